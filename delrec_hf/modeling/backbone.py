"""Loading the language model that DELRec adapts, from the Hub or from a folder."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from delrec_hf.errors import InputError
from delrec_hf.modeling.artefact import ArtefactConfig, resolve_base_model, weights_hash
from delrec_hf.modeling.gguf_source import read_source

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
PRE_QUANTIZED = "pre_quantized"


@dataclass
class BackboneConfig:
    """Which language model to adapt, and how to load it; the recipe section `backbone`."""

    model_name_or_path: str = field(
        metadata={"help": "Hub id or folder of any causal chat model; `toy` is the shipped one"}
    )
    model_revision: str | None = field(
        default=None, metadata={"help": "commit, tag or branch of a model on the Hub"}
    )
    torch_dtype: Dtype = field(
        default="auto", metadata={"help": "dtype of the weights; `auto` keeps the checkpoint's"}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "`sdpa`, `eager`, `flash_attention_2`, ..."}
    )
    load_in_4bit: bool = field(
        default=False, metadata={"help": "quantise to 4 bits (NF4) with bitsandbytes"}
    )
    load_in_8bit: bool = field(
        default=False, metadata={"help": "quantise to 8 bits with bitsandbytes"}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "run the Python code that the model's repository brings"}
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be combined."""
        if self.load_in_4bit and self.load_in_8bit:
            raise InputError("`backbone.load_in_4bit` and `load_in_8bit` are both set; keep one")


def load_backbone(
    config: BackboneConfig,
    *,
    quantization: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer.

    Args:
        config: Which, and how.
        quantization: Arguments of `BitsAndBytesConfig`, in place of those that `config` stands for.
        device: Where to; by default a quantised one to the accelerator, if there is one, and
            others to the CPU.

    Returns:
        The model in evaluation mode, and the tokenizer with a padding token.

    Raises:
        InputError: If the model cannot be found or loaded.
    """
    name = config.model_name_or_path
    quantization = _quantization(config) if quantization is None else quantization
    placed: dict[str, Any] = {} if device is None else {"device_map": {"": _usable(device)}}
    if quantization:
        # bitsandbytes quantises while loading, so each process names its own device.
        placed = {"device_map": {"": PartialState().device}} | placed
        placed["quantization_config"] = BitsAndBytesConfig(**quantization)
    shared: dict[str, Any] = {
        "revision": config.model_revision,
        "trust_remote_code": config.trust_remote_code,
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **shared)
        model = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=config.torch_dtype,
            attn_implementation=config.attn_implementation,
            use_safetensors=True,
            **placed,
            **shared,
        )
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"backbone `{name}` cannot be loaded: {_reason(error)} (expected the folder or the Hub "
            "id of a causal language model with safetensors weights)"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _keep_weights_unpacked(model)
    return model.eval(), tokenizer


def load_recorded_backbone(
    config: ArtefactConfig,
    folder: Path,
    *,
    base_model: str | None = None,
    torch_dtype: Dtype | None = None,
    load_in_4bit: bool | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load the backbone of an artefact in the precision that the artefact was trained in.

    Args:
        config: The artefact's facts.
        folder: The artefact's folder.
        base_model: Backbone to use instead of the recorded one.
        torch_dtype: Dtype of its weights, and of what 4-bit layers compute in, instead of the
            recorded ones.
        load_in_4bit: Quantise to 4 bits (NF4), or load unquantised, whatever is recorded.
        device: Where to load it to; see `load_backbone`.
        trust_remote_code: Whether the backbone's repository may run its own code.

    Raises:
        InputError: If the backbone is missing, another one, or quantised where it should not be.
    """
    config.warn_of_age(folder)
    recorded = config.base_model
    name, revision = resolve_base_model(config, folder, base_model)
    kept = dict(recorded.get("quantization") or {})  # earlier versions recorded none
    to_4bit = load_in_4bit and "load_in_4bit" not in kept
    if PRE_QUANTIZED in kept or load_in_4bit is False or to_4bit:
        kept = {}
    # Weights of another dtype would be rounded to other bits: they are cast afterwards.
    cast_to = torch_dtype if kept and torch_dtype != "auto" else None
    if cast_to is not None and "bnb_4bit_compute_dtype" in kept:
        kept["bnb_4bit_compute_dtype"] = cast_to
    dtype = recorded.get("torch_dtype", "auto")
    wanted = BackboneConfig(
        model_name_or_path=name,
        model_revision=revision,
        torch_dtype=dtype if kept else torch_dtype or dtype,
        load_in_4bit=bool(load_in_4bit),
        trust_remote_code=trust_remote_code,
    )
    model, _ = load_backbone(wanted, quantization=kept or None, device=device)
    if cast_to is not None:
        cast_weights(model, cast_to)
    if load_in_4bit is False and is_quantized(model):
        raise InputError(
            f"the files of backbone `{name}` are quantised themselves; leave load_in_4bit (on the "
            "command line --load_in_4bit) out, or give the unquantised backbone with base_model"
        )
    return model


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of an artefact.

    Raises:
        InputError: If it cannot be loaded, or brings its own code and may not run it.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"the tokenizer in {folder} cannot be loaded: {_reason(error)}") from error


def describe_backbone(model: PreTrainedModel, name: str, relative_to: Path) -> dict[str, Any]:
    """Return how an artefact names its backbone.

    Args:
        model: The loaded backbone.
        name: The Hub id or folder that it came from.
        relative_to: Folder of the artefact.

    Returns:
        `name`, `revision`, `sha256`: a Hub model by id and commit; a local one by its path
        relative to the artefact and the hash of its weights. `torch_dtype`: its dtype.
        `quantization`: the arguments of `BitsAndBytesConfig` that it was loaded with, or
        `{"pre_quantized": METHOD}` if its own files are quantised, or None. `gguf`: what
        `describe_source` returns, if a local one was made from a GGUF file, or None.
    """
    folder, local = Path(name), Path(name).is_dir()
    relative = Path(os.path.relpath(folder.resolve(), relative_to.resolve())).as_posix()
    return {
        "name": relative if local else name,
        "revision": None if local else model.config._commit_hash,
        "sha256": weights_hash(folder) if local else None,
        "torch_dtype": str(model.dtype).removeprefix("torch."),
        "quantization": _describe_quantization(model),
        "gguf": read_source(folder) if local else None,
    }


def cast_weights(model: PreTrainedModel, dtype: Dtype) -> None:
    """Give the weights another dtype, in place; quantised ones, and buffers, stay as they are."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(getattr(torch, dtype))


def is_quantized(model: PreTrainedModel) -> bool:
    """Say whether a model's weights are quantised."""
    return getattr(model, "hf_quantizer", None) is not None


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with plain weights: what its quantised ones stand for, in its dtype.

    Raises:
        InputError: If its kind of quantisation cannot be undone.
    """
    if not is_quantized(model):
        return model
    try:
        return model.dequantize()
    except NotImplementedError as error:
        method = model.hf_quantizer.quantization_config.quant_method
        raise InputError(
            f"weights quantised by {method} cannot be made plain again; give the unquantised "
            "backbone with base_model (--base_model on the command line)"
        ) from error


def _keep_weights_unpacked(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from packing 4-bit weights for a kernel that has no gradient.

    On CPUs with avx512_bf16 (bitsandbytes 0.50.2) the first forward without gradients packs the
    weights in place, with scales rounded to bfloat16. From then on training, too, goes through the
    packed kernel: no gradient passes it, and with biases it fails. See
    https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1804 (packing) and
    https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2078 (weights left packed).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _quantization(config: BackboneConfig) -> dict[str, Any]:
    if config.load_in_8bit:
        return {"load_in_8bit": True}
    if not config.load_in_4bit:
        return {}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16"
        if config.torch_dtype == "auto"
        else config.torch_dtype,
    }


def _describe_quantization(model: PreTrainedModel) -> dict[str, Any] | None:
    if not is_quantized(model):
        return None
    found = model.hf_quantizer.quantization_config.to_dict()
    if model.hf_quantizer.pre_quantized:
        return {PRE_QUANTIZED: getattr(found["quant_method"], "value", found["quant_method"])}
    if found.get("load_in_8bit"):
        return {"load_in_8bit": True}
    names = ("quant_type", "use_double_quant", "compute_dtype")
    return {"load_in_4bit": True} | {
        f"bnb_4bit_{name}": found[f"bnb_4bit_{name}"] for name in names
    }


def _reason(error: Exception) -> str:
    """Return what a library complains of, in one line."""
    text = str(error).strip()
    if "trust_remote_code" in text:
        return (
            "it brings code of its own; where you trust it, set trust_remote_code (on the command "
            "line --trust_remote_code, in a recipe backbone.trust_remote_code)"
        )
    return text.splitlines()[0] if text else repr(error)


def _usable(device: str) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device `{device}` cannot be used here: {_reason(error)}; give cpu, cuda, cuda:1, "
            "mps, ..."
        ) from error
    return device
