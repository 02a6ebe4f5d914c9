"""Which way of scoring a backbone takes, and why."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from transformers import PreTrainedModel

Way = Literal["tree", "cache", "rows"]

_TAKES_MASK = {"sdpa", "eager"}
_SEES_PAST = {"full_attention", "sliding_attention"}
# These look back, or place tokens, by the order in the row, whatever mask and position_ids say.
_COUNTS_PLACES: dict[str, Way] = {
    "camembert": "rows",
    "data2vec-text": "rows",
    "gpt_neo": "cache",
    "openai-gpt": "rows",
    "roberta": "rows",
    "roberta-prelayernorm": "rows",
    "xlm-roberta": "rows",
    "xlm-roberta-xl": "rows",
    "xmod": "rows",
}


def way_of(backbone: PreTrainedModel) -> tuple[Way, str]:
    """Return how a backbone's candidates are scored, and what stands against the tree.

    Args:
        backbone: A causal language model.

    Returns:
        `tree` (all candidates in one forward), `cache` (each goes on from the prompt's cache) or
        `rows` (each is read in full), and the reason why it is not the tree.
    """
    config = backbone.config.get_text_config()
    classes = type(backbone).__mro__
    if not any(one.__module__.startswith("transformers.models.") for one in classes):
        return "rows", "its code is not transformers' own"
    if config.model_type in _COUNTS_PLACES:
        return _COUNTS_PLACES[config.model_type], "it places tokens by their order in the row"
    others = sorted(set(getattr(config, "layer_types", None) or []) - _SEES_PAST)
    if others:
        return "cache", f"it has layers of {', '.join(others)}"
    if backbone._is_stateful:
        return "cache", "it keeps a running state"
    parameters = inspect.signature(type(backbone).forward).parameters
    if "position_ids" not in parameters or getattr(config, "alibi", False):
        return "cache", "it takes no position_ids"
    if backbone.base_model is backbone:
        return "cache", "its forward does not call `base_model`"
    if not (_takes_mask(backbone) or backbone._can_set_attn_implementation()):
        return "cache", f"its {config._attn_implementation} attention takes no mask"
    return "tree", ""


def no_prefix(backbone: PreTrainedModel) -> str:
    """Return what stands against going on from a prefix's keys and values, if anything does."""
    way, reason = way_of(backbone)
    if way != "tree":
        return reason
    if "past_key_values" not in inspect.signature(type(backbone).forward).parameters:
        return "it takes no past_key_values"
    return ""


@contextmanager
def masked_attention(backbone: PreTrainedModel) -> Iterator[None]:
    """Let attention take a mask: flash and flex attention give way to sdpa, or eager, meanwhile."""
    without_plans(backbone.device)
    if _takes_mask(backbone):
        yield
        return
    own = backbone.config.get_text_config()._attn_implementation
    backbone.set_attn_implementation(backbone.get_correct_attn_implementation(None))
    try:
        yield
    finally:
        backbone.set_attn_implementation(own)


def without_plans(device: torch.device) -> None:
    """Keep sdpa from cuDNN's attention, which is planned anew for each shape of a batch.

    A plan takes longer than the attention of several batches, and batches of prompts come in as
    many shapes as there are lengths. It stays off: a checkpointed layer is run again outside.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def _takes_mask(backbone: PreTrainedModel) -> bool:
    return backbone.config.get_text_config()._attn_implementation in _TAKES_MASK
