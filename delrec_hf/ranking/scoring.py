"""Log-probabilities of candidates' titles: all candidates of a prompt in one forward.

A prompt and its candidates form a tree: the prompt is the trunk, each candidate a branch. A block
attention mask lets a branch see the trunk and itself, never a sibling, and each token's position
counts from the root. So the prompt is read once, whatever the number of candidates, and the scores
are those of separate forwards.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from delrec_hf.errors import InputError

FloatArray = npt.NDArray[np.float64]
TokenIds = list[int]

LOGITS_BUDGET = 1 << 26  # logits held at once: 256 MiB in float32
TOKEN_BUDGET = 1 << 13  # tokens of one forward


@dataclass(frozen=True)
class CandidateScorer:
    """Scores candidates under a backbone, with or without a soft prompt.

    The score of a title is the sum of log p(token | prompt, earlier tokens) over its tokens and the
    end of the turn (`sum`), or that sum divided by the number of tokens (`mean`).

    Attributes:
        backbone: A causal language model, with or without a native LoRA adapter, in eval mode.
        soft_prompt: `(virtual tokens, hidden size)`, or None.
        scoring: `sum` or `mean`.
    """

    backbone: PreTrainedModel
    soft_prompt: torch.Tensor | None = None
    scoring: Literal["sum", "mean"] = "sum"

    def score(
        self, prompts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[FloatArray]:
        """Score each prompt's candidates.

        Args:
            prompts: Token ids up to where the answer starts.
            candidates: For each prompt the candidates' token ids, the end of the turn included.

        Returns:
            For each prompt `(candidates,)` scores; higher is likelier.
        """
        scores: list[FloatArray] = [np.empty(0)] * len(prompts)
        for rows in make_batches(prompts, candidates):
            batch = self.score_batch([prompts[r] for r in rows], [candidates[r] for r in rows])
            for row, found in zip(rows, batch, strict=True):
                scores[row] = found
        return scores

    @torch.inference_mode()
    def score_batch(
        self, prompts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[FloatArray]:
        """Score one batch of prompts in one forward."""
        longest = max(
            self._virtual + len(prompt) + sum(map(len, offered))
            for prompt, offered in zip(prompts, candidates, strict=True)
        )
        if not self._can_share_the_prompt(longest):
            pairs = zip(prompts, candidates, strict=True)
            return [self.score_separately(prompt, offered) for prompt, offered in pairs]
        trees = [
            _Tree.of(self._virtual + len(prompt) - 1, prompt[-1], offered)
            for prompt, offered in zip(prompts, candidates, strict=True)
        ]
        longest = max(tree.trunk + len(tree.tokens) for tree in trees)
        ids = torch.zeros(len(trees), longest, dtype=torch.long)
        depth = torch.zeros(len(trees), longest, dtype=torch.long)
        branch = torch.full((len(trees), longest), _PADDING)
        for row, (tree, prompt) in enumerate(zip(trees, prompts, strict=True)):
            start = longest - tree.trunk - len(tree.tokens)
            ids[row, start + self._virtual :] = torch.tensor(prompt[:-1] + tree.tokens)
            depth[row, start:] = torch.tensor([*range(tree.trunk), *tree.depths])
            branch[row, start:] = torch.tensor([_TRUNK] * tree.trunk + tree.branches)
        embeds = self._embed(ids)
        if self.soft_prompt is not None:
            place = (branch == _TRUNK) & (depth < self._virtual)
            rows = self.soft_prompt.to(embeds.dtype).repeat(len(trees), 1)
            embeds[place.to(embeds.device)] = rows.to(embeds.device)
        keep = max(len(tree.tokens) for tree in trees)
        logits = self.backbone(
            inputs_embeds=embeds,
            attention_mask=_tree_mask(branch, embeds),
            position_ids=depth.to(embeds.device),
            logits_to_keep=keep,
            use_cache=False,
        ).logits
        return [
            self._tree_scores(tree, logits[row, keep - len(tree.tokens) :])
            for row, tree in enumerate(trees)
        ]

    @property
    def _virtual(self) -> int:
        return 0 if self.soft_prompt is None else self.soft_prompt.shape[0]

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        table = self.backbone.get_input_embeddings()
        embeds: torch.Tensor = table(ids.to(table.weight.device))
        return embeds

    def _tokens_per_forward(self) -> int:
        vocabulary = self.backbone.get_output_embeddings().weight.shape[0]
        return max(64, min(TOKEN_BUDGET // 2, LOGITS_BUDGET // vocabulary))

    def _can_share_the_prompt(self, longest: int) -> bool:
        """Say whether the model takes a tree mask over so many tokens."""
        config = self.backbone.config.get_text_config()
        parameters = inspect.signature(type(self.backbone).forward).parameters
        takes_mask = config._attn_implementation in ("sdpa", "eager")
        takes_rest = {"position_ids", "logits_to_keep"} <= parameters.keys()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        window = getattr(config, "sliding_window", None)
        if kinds == {"full_attention"} and not getattr(config, "use_sliding_window", True):
            window = None
        attends = kinds <= {"full_attention", "sliding_attention"}
        return takes_mask and takes_rest and attends and (window is None or longest <= window)

    def _tree_scores(self, tree: "_Tree", logits: torch.Tensor) -> FloatArray:
        labels = torch.tensor(tree.labels, device=logits.device)
        scored = labels >= 0
        logits = logits[scored].float()
        gained = logits.gather(1, labels[scored, None])[:, 0] - logits.logsumexp(1)
        branch = torch.tensor(tree.branches, device=logits.device)[scored] - 1
        lengths = torch.tensor(tree.lengths, device=logits.device, dtype=torch.float64)
        totals = torch.zeros_like(lengths).index_add_(0, branch, gained.double())
        return self._reduce(totals, lengths)

    @torch.inference_mode()
    def score_separately(self, prompt: TokenIds, candidates: Sequence[TokenIds]) -> FloatArray:
        """Score with one row per candidate: for models that take no tree mask."""
        totals = []
        for start, end in _chunks(candidates, self._tokens_per_forward(), extra=len(prompt)):
            offered = candidates[start:end]
            longest = max(map(len, offered))
            answers = torch.tensor([row + [-1] * (longest - len(row)) for row in offered])
            ids = torch.tensor([prompt] * len(offered))
            embeds = self._embed(torch.cat([ids, answers.clamp(min=0)], dim=1))
            if self.soft_prompt is not None:
                virtual = self.soft_prompt.to(embeds).expand(len(offered), -1, -1)
                embeds = torch.cat([virtual, embeds], dim=1)
            mask = torch.ones(embeds.shape[:2], dtype=torch.long)
            mask[:, -longest:] = answers >= 0
            logits = self.backbone(
                inputs_embeds=embeds, attention_mask=mask.to(embeds.device), use_cache=False
            ).logits[:, -longest - 1 : -1]
            labels = answers.to(logits.device)
            gained = logits.float().log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])
            totals.append(gained[..., 0].masked_fill(labels < 0, 0).double().sum(1))
        lengths = torch.tensor([len(row) for row in candidates], dtype=torch.float64)
        total = torch.cat(totals)
        return self._reduce(total, lengths.to(total.device))

    def _reduce(self, totals: torch.Tensor, lengths: torch.Tensor) -> FloatArray:
        scores = totals / lengths if self.scoring == "mean" else totals
        found: FloatArray = scores.cpu().numpy()
        return found


_PADDING, _TRUNK = -1, 0  # branches count from 1


@dataclass(frozen=True)
class _Tree:
    """The branches of one prompt, token by token.

    Each branch begins with a copy of the prompt's last token, so that every position predicts
    exactly one next token.
    """

    trunk: int
    tokens: list[int]
    labels: list[int]
    depths: list[int]
    branches: list[int]
    lengths: list[int]

    @classmethod
    def of(cls, trunk: int, last: int, candidates: Sequence[TokenIds]) -> "_Tree":
        if not all(candidates):
            raise InputError("a candidate has no tokens; expected a title and the end of a turn")
        lengths = [len(candidate) for candidate in candidates]
        return cls(
            trunk,
            [token for candidate in candidates for token in (last, *candidate[:-1])],
            [token for candidate in candidates for token in candidate],
            [trunk + k for length in lengths for k in range(length)],
            [number for number, n in enumerate(lengths, start=1) for _ in range(n)],
            lengths,
        )


def _tree_mask(branch: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the additive attention mask `(batch, 1, length, length)`.

    A token sees earlier tokens of the trunk and of its own branch. Padding sees itself, because a
    row that may see nothing would be NaN.

    Args:
        branch: `(batch, length)` number of each token's branch, `_TRUNK` or `_PADDING`.
        like: Where the mask is used: its dtype and device.
    """
    branch = branch.to(like.device)
    places = torch.arange(branch.shape[1], device=like.device)
    keys, queries = branch[:, None, :], branch[:, :, None]
    seen = (places[None, :] <= places[:, None]) & ((keys == _TRUNK) | (keys == queries))
    seen &= keys != _PADDING
    seen |= places[None, :] == places[:, None]
    mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(~seen, torch.finfo(like.dtype).min)[:, None]


def make_batches(
    prompts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]
) -> list[list[int]]:
    """Group rows of like length into batches under a budget of tokens.

    The grouping depends on the rows alone, so that each process of several computes exactly what
    one process would.

    Returns:
        Lists of row numbers.
    """
    lengths = [
        len(prompt) + sum(len(title) for title in offered)
        for prompt, offered in zip(prompts, candidates, strict=True)
    ]
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda r: (-lengths[r], r)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= TOKEN_BUDGET:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _chunks(
    candidates: Sequence[TokenIds], budget: int, extra: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield `(start, end)` of runs of candidates that hold at most `budget` tokens."""
    start, used = 0, 0
    for place, candidate in enumerate(candidates):
        if place > start and used + len(candidate) + extra > budget:
            yield start, place
            start, used = place, 0
        used += len(candidate) + extra
    if candidates:
        yield start, len(candidates)
