"""Saved LoRA adapters, put into a loaded backbone in the precision that they were trained in."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftModelForCausalLM, PeftType
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from delrec_hf.errors import InputError
from delrec_hf.files import read_json, write_json
from delrec_hf.shards import fill

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_MAGNITUDE = ".lora_magnitude_vector"
_PREFIX = "base_model.model."  # of names in saved adapters


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
    given = {_saved_name(name.removeprefix(_PREFIX)): value for name, value in saved.items()}
    own = {
        _saved_name(name): parameter
        for name, parameter in backbone.named_parameters()
        if ".lora_" in name
    }
    if {name: one.shape for name, one in own.items()} != {
        name: one.shape for name, one in given.items()
    }:
        raise _does_not_fit(folder)
    for name, parameter in own.items():
        fill(parameter, given[name])


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


@torch.no_grad()
def as_lora(folder: Path) -> None:
    """Turn a saved AdaLoRA adapter into the plain LoRA adapter that computes the same, in place.

    PEFT loads AdaLoRA's pruned ranks into its own models alone, not into those of transformers,
    and does not merge them into quantised weights; inference servers know LoRA only. The config's
    `rank_pattern` says how many ranks each layer has. LoRA has one at least: a layer that AdaLoRA
    left none has one of zeros. Adapters of other kinds stay as they are.

    The same numbers are multiplied in another order: in float32 logits agree to 1e-5, and bfloat16
    rounds a few of them to the neighbouring number.

    Args:
        folder: Where PEFT has saved the adapter, with the ranks that were taken set to zero.
    """
    config = PeftConfig.from_pretrained(str(folder))
    if config.peft_type != PeftType.ADALORA:
        return
    saved = adapter_weights(folder)
    scale = config.lora_alpha / (config.init_r + 1e-5)  # as PEFT's layers compute it
    weights, ranks = {}, {}
    for module in [name.removesuffix(".lora_E") for name in saved if name.endswith(".lora_E")]:
        values = saved[f"{module}.lora_E"]
        kept = values[:, 0] != 0
        kept[0] |= not kept.any()
        rows = values[kept] * saved[f"{module}.lora_A"][kept]
        weights[f"{module}.lora_A.weight"] = rows.contiguous()
        columns = saved[f"{module}.lora_B"][:, kept] * scale
        weights[f"{module}.lora_B.weight"] = columns.contiguous()
        ranks[module.removeprefix(_PREFIX)] = int(kept.sum())
    largest = max(ranks.values())
    LoraConfig(
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        target_modules=config.target_modules,
        fan_in_fan_out=config.fan_in_fan_out,
        lora_dropout=config.lora_dropout,
        r=largest,
        lora_alpha=largest,  # a scale of 1 everywhere: AdaLoRA's is in the weights
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def name_magnitudes_for_transformers(folder: Path) -> None:
    """Name DoRA's magnitudes in a saved adapter so that transformers' `load_adapter` takes them.

    PEFT saves `lora_magnitude_vector`, reads that as well as `lora_magnitude_vector.weight`, and
    transformers 5 reads the latter alone: with the former it leaves the magnitudes out.
    """
    weights = adapter_weights(folder)
    if any(name.endswith(_MAGNITUDE) for name in weights):
        weights = {
            f"{name}.weight" if name.endswith(_MAGNITUDE) else name: weight
            for name, weight in weights.items()
        }
        save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def sort_layers(folder: Path) -> None:
    """Write the adapted layers of a saved adapter's config in order.

    PEFT keeps them as a set, whose order is another one in each process.
    """
    path = folder / ADAPTER_CONFIG
    config = read_json(path)
    if isinstance(config.get("target_modules"), list):
        write_json(path, config | {"target_modules": sorted(config["target_modules"])})


def _saved_name(name: str) -> str:
    """Return what PEFT calls a parameter of an adapter in its files."""
    name = re.sub(r"\.default(?=\.|$)", "", name)
    return name.removesuffix(".weight") if _MAGNITUDE in name else name


def _does_not_fit(folder: Path) -> InputError:
    return InputError(
        f"the LoRA adapter in {folder} does not fit this backbone; load it with the backbone that "
        "it was trained on"
    )
