"""What prompts begin with, read once: its keys and values, which later tokens go on from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from delrec_hf.ranking.forward import embed
from delrec_hf.ranking.masks import masks

TokenIds = list[int]


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the soft prompt and of tokens behind it.

    They depend on nothing that follows, so that whatever begins with them is read from there on.

    Attributes:
        tokens: The tokens behind the soft prompt.
        length: How many are read, virtual tokens included.
        states: Each layer's keys and values, `(1, heads, length, head size)`; None for a layer that
            keeps none.
    """

    tokens: TokenIds
    length: int
    states: Sequence[tuple[torch.Tensor, torch.Tensor] | None]

    @classmethod
    @torch.inference_mode()
    def read(
        cls, backbone: PreTrainedModel, soft_prompt: torch.Tensor | None, tokens: TokenIds
    ) -> "Prefix":
        """Read the soft prompt and tokens behind it; either may be empty.

        Args:
            backbone: A causal language model that goes on from a prefix: see `support.no_prefix`.
            soft_prompt: `(virtual tokens, hidden size)`, or None.
            tokens: Token ids.
        """
        return cls([], 0, [])._with(backbone, soft_prompt, tokens)

    @torch.inference_mode()
    def extended(self, backbone: PreTrainedModel, tokens: TokenIds) -> "Prefix":
        """Return the prefix that goes on with more tokens, those alone being read."""
        return self._with(backbone, None, tokens)

    def _with(
        self, backbone: PreTrainedModel, soft_prompt: torch.Tensor | None, tokens: TokenIds
    ) -> "Prefix":
        embeds = embed(backbone, soft_prompt, torch.tensor([tokens], dtype=torch.long))
        if not embeds.shape[1]:
            return self
        cache = self.cache(1)
        read_on(backbone, embeds, cache, self.length)
        length = self.length + embeds.shape[1]
        return Prefix([*self.tokens, *tokens], length, states_of(cache))

    def begins(self, prompts: Sequence[TokenIds]) -> bool:
        """Say whether all prompts begin with it and go on."""
        size = len(self.tokens)
        return all(len(one) > size and one[:size] == self.tokens for one in prompts)

    def cache(self, rows: int) -> DynamicCache:
        """Return a cache for a forward of so many rows, which leaves the prefix as it is.

        Layers with a sliding window keep all tokens as well: what they see is up to the mask.
        """
        return cache_of(
            [
                None if state is None else tuple(one.expand(rows, -1, -1, -1) for one in state)
                for state in self.states
            ]
        )


def read_on(
    backbone: PreTrainedModel, embeds: torch.Tensor, cache: DynamicCache, past: int
) -> None:
    """Read embeddings into a cache, each behind all that stand before it.

    Args:
        backbone: A causal language model that goes on from a prefix: see `support.no_prefix`.
        embeds: `(rows, length, hidden size)`; rows that are padded on the right are not disturbed.
        cache: What is read already.
        past: How many tokens that are.
    """
    places = torch.arange(past + embeds.shape[1]).expand(len(embeds), -1)
    own = places[:, past:]
    mask = None  # the backbone's own is the fastest, and right where nothing stands before
    if past:
        seen = (places[:, None, :] <= own[:, :, None]).to(embeds.device)
        mask = masks(backbone.config.get_text_config(), seen, own, places, embeds)
    backbone.base_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=own.to(embeds.device),
        past_key_values=cache,
        use_cache=True,
    )


def cache_of(states: Sequence[tuple[torch.Tensor, ...] | None]) -> DynamicCache:
    """Return a cache that holds keys and values, without copying them."""
    cache = DynamicCache()
    for state in states:
        layer = DynamicLayer()
        if state is not None:
            layer.lazy_initialization(*state)
            layer.keys, layer.values = state  # type: ignore[assignment]
        cache.layers.append(layer)
    return cache


def states_of(cache: DynamicCache) -> list[tuple[torch.Tensor, torch.Tensor] | None]:
    """Return each layer's keys and values."""
    return [(layer.keys, layer.values) if layer.is_initialized else None for layer in cache.layers]


def common_beginning(prompts: Sequence[TokenIds]) -> TokenIds:
    """Return what all prompts begin with, without the last token of the shortest one.

    The last one is left out since an answer's first token is predicted from there.
    """
    if not prompts:
        return []
    first, last = min(prompts), max(prompts)  # the two that part first
    longest = min(map(len, prompts)) - 1
    for place in range(longest):
        if first[place] != last[place]:
            return first[:place]
    return first[:longest]
