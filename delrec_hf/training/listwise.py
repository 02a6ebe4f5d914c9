"""Learning by ranking: cross-entropy over the scores of a prompt's candidates."""

from collections.abc import Sequence
from typing import Any

import torch

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
    candidates, chances = batch["candidate_ids"], batch["chances"]
    losses = []
    for total, offered, wanted in zip(
        scorer.totals(batch["prompt_ids"], candidates), candidates, chances, strict=True
    ):
        wanted = wanted.to(total)
        scores = scorer.scoring.of(total, offered) / temperature
        loss = -(wanted * scores.log_softmax(0)).sum()
        if title_weight:
            lengths = total.new_tensor([len(one) for one in offered])
            loss = loss - title_weight * (wanted * total / lengths).sum()
        losses.append(loss)
    return torch.stack(losses)


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
