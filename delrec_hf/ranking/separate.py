"""Candidates one by one, for backbones that take no tree: from the prompt's cache, or in full."""

import copy
import inspect
from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from delrec_hf.ranking import budget
from delrec_hf.ranking.forward import embed

TokenIds = list[int]


def from_cache(
    backbone: PreTrainedModel,
    soft_prompt: torch.Tensor | None,
    prompt: TokenIds,
    candidates: Sequence[TokenIds],
) -> torch.Tensor | None:
    """Return each candidate's log-probability, the prompt read once for all of them.

    The candidates go on from copies of the prompt's keys, values and states, one token a forward
    as in generation: some models with states read several tokens as if nothing had come before.

    Args:
        backbone: A causal language model of transformers.
        soft_prompt: `(virtual tokens, hidden size)`, or None.
        prompt: Token ids up to where the answer starts.
        candidates: The candidates' token ids.

    Returns:
        `(candidates,)` float64, or None if the model gives no cache that can be copied.
    """
    trunk = embed(backbone, soft_prompt, torch.tensor([prompt[:-1]], dtype=torch.long))
    parameters = inspect.signature(type(backbone).forward).parameters
    name = "cache_params" if "cache_params" in parameters else "past_key_values"  # as Mamba says
    if trunk.shape[1] == 0 or not {name, "logits_to_keep"} <= parameters.keys():
        return None
    read = backbone(inputs_embeds=trunk, use_cache=True, logits_to_keep=1)
    cache = getattr(read, name, None)
    if not isinstance(cache, DynamicCache):
        return None
    start, longest = trunk.shape[1], max(map(len, candidates))
    rows = budget.rows_at_once(start + longest, read.logits.shape[-1])
    totals = []
    for first in range(0, len(candidates), rows):
        offered = candidates[first : first + rows]
        branches = copy.deepcopy(cache)
        branches.reorder_cache(torch.zeros(len(offered), dtype=torch.long))
        ids, labels = _next_tokens(prompt[-1], offered)
        embeds, labels = embed(backbone, None, ids), labels.to(read.logits.device)
        total = torch.zeros(len(offered), dtype=torch.float64, device=labels.device)
        for place in range(ids.shape[1]):
            inputs = {"inputs_embeds": embeds[:, place : place + 1], name: branches}
            if "position_ids" in parameters:  # Bamba would begin at 0 again
                at = torch.full((len(offered), 1), start + place, device=embeds.device)
                inputs["position_ids"] = at
            logits = backbone(**inputs, use_cache=True).logits
            total += _gained(logits, labels[:, place : place + 1])
        totals.append(total)
    return torch.cat(totals)


def row_by_row(
    backbone: PreTrainedModel,
    soft_prompt: torch.Tensor | None,
    prompt: TokenIds,
    candidates: Sequence[TokenIds],
) -> torch.Tensor:
    """Return each candidate's log-probability, each read in full behind its prompt.

    Differentiable. The reference for the other ways, and the one for any causal language model.

    Args:
        backbone: A causal language model.
        soft_prompt: `(virtual tokens, hidden size)`, or None.
        prompt: Token ids up to where the answer starts.
        candidates: The candidates' token ids.

    Returns:
        `(candidates,)` float64.
    """
    keeps = "logits_to_keep" in inspect.signature(type(backbone).forward).parameters
    start = len(prompt) - 1 + (0 if soft_prompt is None else len(soft_prompt))
    longest = max(map(len, candidates))
    vocabulary = backbone.config.get_text_config().vocab_size
    projected = longest if keeps else start + longest
    rows = budget.rows_at_once(start + longest, projected * vocabulary)
    totals = []
    for first in range(0, len(candidates), rows):
        offered = candidates[first : first + rows]
        ids, labels = _next_tokens(prompt[-1], offered)
        ids = torch.cat([torch.tensor([prompt[:-1]] * len(offered), dtype=torch.long), ids], dim=1)
        embeds = embed(backbone, soft_prompt, ids)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        mask[:, -labels.shape[1] :] = (labels >= 0).to(mask)
        keep = {"logits_to_keep": labels.shape[1]} if keeps else {}
        inputs = {"inputs_embeds": embeds, "attention_mask": mask, "use_cache": False}
        logits = backbone(**inputs, **keep).logits
        totals.append(_gained(logits[:, -labels.shape[1] :], labels.to(logits.device)))
    return torch.cat(totals)


def _next_tokens(last: int, candidates: Sequence[TokenIds]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the candidates' positions read and what they predict, -1 behind the end."""
    longest = max(map(len, candidates))
    labels = torch.tensor([one + [-1] * (longest - len(one)) for one in candidates])
    read = torch.cat([torch.full((len(candidates), 1), last), labels[:, :-1].clamp(min=0)], dim=1)
    return read, labels


def _gained(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    gained = logits.float().log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return gained.masked_fill(labels < 0, 0).double().sum(1)
