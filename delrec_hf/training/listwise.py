"""Learning by ranking: cross-entropy over the scores of a prompt's candidates."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from delrec_hf.ranking.scoring import CandidateScorer


def listwise_losses(
    scorer: CandidateScorer,
    batch: dict[str, Any],
    temperature: float,
    title_weight: float,
) -> torch.Tensor:
    r"""Return each row's loss, differentiable.

    $L = -\sum_c t_c \log\mathrm{softmax}(S / \tau)_c - \lambda \sum_c t_c\, \ell_c$, with the score
    $S_c$ of candidate c, its chance $t_c$ of being the target, and the mean log-probability
    $\ell_c$ of its tokens.

    Args:
        scorer: Scores the candidates.
        batch: From `ListwiseCollator`.
        temperature: $\tau$.
        title_weight: $\lambda$; 0 learns from the comparison alone.

    Returns:
        `(rows,)` float64.
    """
    candidates = batch["candidate_ids"]
    totals = torch.cat(scorer.totals(batch["prompt_ids"], candidates))
    every = [one for offered in candidates for one in offered]
    sizes = torch.tensor([len(offered) for offered in candidates])
    places = torch.arange(int(sizes.max()))
    held = (places < sizes[:, None]).to(totals.device)  # rows with fewer candidates are padded
    index = (places.clamp(max=sizes[:, None] - 1) + (sizes.cumsum(0) - sizes)[:, None]).to(
        held.device
    )
    wanted = pad_sequence(batch["chances"], batch_first=True).to(totals)
    scores = (scorer.scoring.of(totals, every) / temperature)[index].masked_fill(~held, -torch.inf)
    losses = -(wanted * scores.log_softmax(1).masked_fill(~held, 0.0)).sum(1)
    if title_weight:
        lengths = totals.new_tensor([len(one) for one in every])
        losses = losses - title_weight * (wanted * (totals / lengths)[index]).sum(1)
    return losses


class ListwiseCollator:
    """Makes a batch of ranking rows: token ids as lists, and the chances of the candidates."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return `prompt_ids` and `candidate_ids` as lists, and `chances`.

        Args:
            rows: With `prompt_ids`, `candidate_ids` and `target_place`; where they have `chances`,
                `(candidates,)` floats that sum to 1, these are the target instead of the one place.

        Returns:
            `chances` holds a float64 tensor `(candidates,)` for each row.
        """
        return {
            "prompt_ids": [row["prompt_ids"] for row in rows],
            "candidate_ids": [row["candidate_ids"] for row in rows],
            "chances": [_chances(row) for row in rows],
        }


def _chances(row: dict[str, Any]) -> torch.Tensor:
    if row.get("chances") is not None:
        return torch.tensor(row["chances"], dtype=torch.float64)
    chances = torch.zeros(len(row["candidate_ids"]), dtype=torch.float64)
    chances[row["target_place"]] = 1.0
    return chances
