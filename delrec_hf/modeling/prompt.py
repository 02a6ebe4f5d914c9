"""Prompts as PEFT saves them: embeddings, or a cartridge's keys and values in every layer."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftType, PromptLearningConfig
from safetensors.torch import save_file
from transformers import PreTrainedModel

from delrec_hf.errors import InputError
from delrec_hf.modeling.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_weights

PROMPT_TYPES = (PeftType.PROMPT_TUNING, PeftType.CARTRIDGE)


def read_prompt_config(folder: Path, backbone: PreTrainedModel) -> PromptLearningConfig:
    """Read what a saved prompt is, for the backbone that it will stand in front of.

    Raises:
        InputError: If the folder holds no prompt, or one of another backbone.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise InputError(f"{folder} holds no soft prompt: {ADAPTER_CONFIG} is missing")
    config = PeftConfig.from_pretrained(str(folder))
    if config.peft_type == PeftType.CARTRIDGE:
        found = (config.num_layers, config.num_attention_heads, config.token_dim)
        layers, heads, size = cartridge_shape(backbone)
        if found != (layers, heads, heads * size):
            raise InputError(
                f"the cartridge in {folder} is of other layers and heads than the backbone's "
                f"{layers} layers of {heads} heads of keys, {size} wide; load it with the backbone "
                "that it was distilled on"
            )
        return config
    width = backbone.get_input_embeddings().embedding_dim
    if config.token_dim != width:
        raise InputError(
            f"the soft prompt in {folder} is {config.token_dim} wide and the backbone "
            f"{width}; load it with the backbone that it was distilled on"
        )
    return config


def save_prompt(
    config: PromptLearningConfig, rows: torch.Tensor, folder: Path, base_model_name: str
) -> None:
    """Write a prompt as plain PEFT does, its config naming the backbone by a given name."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"prompt_embeddings": rows.detach().cpu().contiguous()}
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    named = type(config)(**config.to_dict())
    named.base_model_name_or_path = base_model_name
    if getattr(named, "tokenizer_name_or_path", None) is not None:
        named.tokenizer_name_or_path = base_model_name
    named.inference_mode = True
    named.save_pretrained(str(folder))


@torch.no_grad()
def load_prompt(encoder: Any, folder: Path) -> None:
    """Read a saved prompt into one of PEFT's prompt encoders, in place.

    Raises:
        InputError: If the two are of other shapes, or a number is not finite.
    """
    saved = adapter_weights(folder)["prompt_embeddings"]
    own = encoder.embedding.weight
    if saved.shape != own.shape:
        raise InputError(
            f"the soft prompt in {folder} is {tuple(saved.shape)} and this model's "
            f"{tuple(own.shape)}; expected the same virtual tokens and width"
        )
    if hasattr(encoder, "load_prompt_embeddings"):  # a cartridge's rows are of two parameters
        encoder.load_prompt_embeddings(saved)
    else:
        own.copy_(saved)


def keys_and_values(
    config: PromptLearningConfig, rows: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return each layer's keys and values out of a cartridge's rows, differentiable.

    Args:
        config: The cartridge's layers and heads.
        rows: `(virtual tokens, layers * 2 * heads * head size)`.

    Returns:
        `(1, heads, virtual tokens, head size)` each.
    """
    parts = rows.unflatten(1, (config.num_layers, 2, config.num_attention_heads, -1))
    return [(keys[None], values[None]) for keys, values in parts.permute(1, 2, 3, 0, 4)]


def cartridge_shape(backbone: PreTrainedModel) -> tuple[int, int, int]:
    """Return how many layers a backbone has, and how many heads of keys of what size in each."""
    config = backbone.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size
