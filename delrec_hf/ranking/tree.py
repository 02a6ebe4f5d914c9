"""All candidates of a prompt in one forward: the prompt is the trunk, each candidate a branch.

A block attention mask lets a branch see the trunk and itself, never a sibling, and each token's
position counts from the root. So the prompt is read once, whatever the number of candidates, and
the log-probabilities are those of separate forwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel

from delrec_hf.ranking.forward import embed, log_probabilities

TokenIds = list[int]

_PADDING, _TRUNK = -1, 0  # branches count from 1


def tree_width(prompt: TokenIds, candidates: Sequence[TokenIds], virtual_tokens: int) -> int:
    """Return how many tokens the tree of a prompt and its candidates holds.

    The prompt's last token stands in each branch and not in the trunk.
    """
    return virtual_tokens + len(prompt) - 1 + sum(map(len, candidates))


def in_one_forward(
    backbone: PreTrainedModel,
    soft_prompt: torch.Tensor | None,
    prompts: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]],
) -> list[torch.Tensor]:
    """Return each candidate's log-probability behind its prompt, summed over its tokens.

    Differentiable with respect to the soft prompt and the backbone's weights.

    Args:
        backbone: A causal language model that takes the mask: see `support.way_of`.
        soft_prompt: `(virtual tokens, hidden size)`, or None.
        prompts: Token ids up to where the answer starts.
        candidates: For each prompt the candidates' token ids.

    Returns:
        For each prompt `(candidates,)` float64.
    """
    virtual = 0 if soft_prompt is None else len(soft_prompt)
    trees = Trees.grow(prompts, candidates, virtual)
    embeds = embed(backbone, soft_prompt, trees.ids[:, virtual:])
    inputs = {
        "inputs_embeds": embeds,
        "attention_mask": trees.masks(backbone.config.get_text_config(), embeds),
        "position_ids": trees.depths.to(embeds.device),
        "use_cache": False,
    }
    gained = log_probabilities(backbone, inputs, trees.labels).double()
    counts = [len(offered) for offered in candidates]
    first = torch.tensor([0, *counts[:-1]]).cumsum(0)
    owner = (first[:, None] + trees.branches - 1)[trees.labels >= 0].to(gained.device)
    totals = gained.new_zeros(sum(counts)).index_add(0, owner, gained)
    return list(totals.split(counts))


@dataclass(frozen=True)
class Trees:
    """The trees of several prompts, one a row, padded on the right.

    Each branch begins with a copy of the prompt's last token, so that every position of a branch
    predicts exactly one next token.

    Attributes:
        ids: `(rows, length)` int64 tokens; 0 for virtual tokens and padding.
        depths: `(rows, length)` int64 distance from the root.
        branches: `(rows, length)` int64 number of a token's branch, 0 in the trunk, -1 for padding.
        labels: `(rows, length)` int64 the token that a position predicts; -1 outside the branches.
    """

    ids: torch.Tensor
    depths: torch.Tensor
    branches: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def grow(
        cls,
        prompts: Sequence[TokenIds],
        candidates: Sequence[Sequence[TokenIds]],
        virtual_tokens: int,
    ) -> "Trees":
        """Lay out the trees of prompts with so many virtual tokens in front."""
        ids, depths, branches, labels = [], [], [], []
        for prompt, offered in zip(prompts, candidates, strict=True):
            trunk, last = [0] * virtual_tokens + prompt[:-1], prompt[-1]
            start = len(trunk)
            ids.append(trunk + [token for one in offered for token in (last, *one[:-1])])
            depths.append([*range(start), *(start + k for one in offered for k in range(len(one)))])
            numbers = [number for number, one in enumerate(offered, start=1) for _ in one]
            branches.append([_TRUNK] * start + numbers)
            labels.append([-1] * start + [token for one in offered for token in one])
        return cls(_pad(ids, 0), _pad(depths, 0), _pad(branches, _PADDING), _pad(labels, -1))

    def masks(
        self, config: PreTrainedConfig, like: torch.Tensor
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return the additive attention mask, one for each kind of layer where they differ.

        Args:
            config: The language model's: its kinds of layers and their sliding window.
            like: Where the masks are used: their dtype and device.
        """
        deepest = int(self.depths.max())
        reach = {
            kind: None if window is None or window > deepest else window
            for kind, window in _windows(config).items()
        }
        masks = {window: self._mask(window, like) for window in set(reach.values())}
        if len(masks) == 1:
            return next(iter(masks.values()))
        return {kind: masks[window] for kind, window in reach.items()}

    def _mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Return a mask `(rows, 1, length, length)`.

        A token sees earlier tokens of the trunk and of its own branch, the last `window` of them.
        Padding sees itself, because a row that may see nothing would be NaN.
        """
        branches, depths = self.branches.to(like.device), self.depths.to(like.device)
        places = torch.arange(branches.shape[1], device=like.device)
        keys, queries = branches[:, None, :], branches[:, :, None]
        seen = (places[None, :] <= places[:, None]) & ((keys == _TRUNK) | (keys == queries))
        seen &= keys != _PADDING
        if window is not None:
            seen &= depths[:, None, :] > depths[:, :, None] - window
        seen |= places[None, :] == places[:, None]
        mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
        return mask.masked_fill_(~seen, torch.finfo(like.dtype).min)[:, None]


def _windows(config: PreTrainedConfig) -> dict[str, int | None]:
    """Return how many tokens back each kind of layer sees, None for all of them."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return {kind: window if kind == "sliding_attention" else None for kind in kinds}
    return {"every layer": window if getattr(config, "use_sliding_window", True) else None}


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value)
