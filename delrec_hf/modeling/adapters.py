"""Saved LoRA adapters, put into a loaded backbone in the precision that they were trained in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, PeftModelForCausalLM
from safetensors.torch import load_file
from transformers import PreTrainedModel

from delrec_hf.errors import InputError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def load_lora(backbone: PreTrainedModel, folder: str | Path) -> PeftModel:
    """Put a saved LoRA adapter into a backbone, in float32 whatever the backbone's dtype.

    LoRA is trained and validated in float32. transformers' own `load_adapter` rounds it to the
    dtype of the backbone; PEFT's model does not.

    Args:
        backbone: The language model; LoRA is injected into it, in place.
        folder: Where `adapter_config.json` and `adapter_model.safetensors` are.

    Returns:
        The backbone as a PEFT model, frozen and in evaluation mode.

    Raises:
        InputError: If the folder holds no LoRA adapter, or one of another backbone.
    """
    folder = Path(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        raise InputError(f"{folder} holds no LoRA adapter: {ADAPTER_CONFIG} is missing")
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    try:
        model = PeftModelForCausalLM(backbone, config)
    except ValueError as error:
        raise _does_not_fit(folder) from error
    read_lora(backbone, folder)
    return model.eval()


@torch.no_grad()
def read_lora(backbone: PreTrainedModel, folder: Path) -> None:
    """Read a saved LoRA adapter into the one that a backbone holds, in place.

    Raises:
        InputError: If the two are not of the same layers and ranks, or a number is not finite.
    """
    saved = adapter_weights(folder)
    given = {name.removeprefix("base_model.model."): value for name, value in saved.items()}
    own = {
        name.replace(".default.", "."): parameter
        for name, parameter in backbone.named_parameters()
        if ".lora_" in name
    }
    if {name: one.shape for name, one in own.items()} != {
        name: one.shape for name, one in given.items()
    }:
        raise _does_not_fit(folder)
    for name, parameter in own.items():
        parameter.copy_(given[name])


@contextmanager
def without_lora(backbone: PreTrainedModel) -> Iterator[None]:
    """Switch a backbone's LoRA off inside the block, if it has one; whatever happens, on again.

    Which weights learn stays as it was: switching PEFT's layers on would set all of them to learn.
    """
    if not getattr(backbone, "_hf_peft_config_loaded", False):
        yield
        return
    learned = [(one, one.requires_grad) for one in backbone.parameters()]
    backbone.disable_adapters()
    try:
        yield
    finally:
        backbone.enable_adapters()
        for parameter, learns in learned:
            parameter.requires_grad = learns


def adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a saved adapter.

    Raises:
        InputError: If one of them is not finite.
    """
    weights: dict[str, torch.Tensor] = load_file(folder / ADAPTER_WEIGHTS)
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise InputError(
                f"{folder / ADAPTER_WEIGHTS} holds numbers that are not finite (`{name}`): its "
                "training went wrong; train it again with a lower learning_rate"
            )
    return weights


def _does_not_fit(folder: Path) -> InputError:
    return InputError(
        f"the LoRA adapter in {folder} does not fit this backbone; load it with the backbone that "
        "it was trained on"
    )
