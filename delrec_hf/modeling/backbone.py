"""Loading the language model that DELRec adapts, from the Hub or from a folder."""

import os
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
from delrec_hf.modeling.artefact import weights_hash

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


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


def load_backbone(config: BackboneConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer.

    Returns:
        The model in evaluation mode, and the tokenizer with a padding token.

    Raises:
        InputError: If the model cannot be found or loaded.
    """
    name = config.model_name_or_path
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
            **_quantization(config),
            **shared,
        )
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(
            f"backbone `{name}` cannot be loaded: {reason} (expected the folder or the Hub id of a "
            "causal language model with safetensors weights)"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _keep_weights_unpacked(model)
    return model.eval(), tokenizer


def describe_backbone(model: PreTrainedModel, name: str, relative_to: Path) -> dict[str, Any]:
    """Return how an artefact names its backbone.

    Args:
        model: The loaded backbone.
        name: The Hub id or folder that it came from.
        relative_to: Folder of the artefact.

    Returns:
        `name`, `revision`, `sha256`: a Hub model by id and commit; a local one by its path
        relative to the artefact and the hash of its weights. `torch_dtype`: what it computes in.
    """
    folder = Path(name)
    dtype = str(model.dtype).removeprefix("torch.")
    if not folder.is_dir():
        commit = model.config._commit_hash
        return {"name": name, "revision": commit, "sha256": None, "torch_dtype": dtype}
    relative = Path(os.path.relpath(folder.resolve(), relative_to.resolve())).as_posix()
    digest = weights_hash(folder)
    return {"name": relative, "revision": None, "sha256": digest, "torch_dtype": dtype}


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
    if not (config.load_in_4bit or config.load_in_8bit):
        return {}
    half = {"float16": torch.float16, "float32": torch.float32}
    quantization = BitsAndBytesConfig(
        load_in_4bit=config.load_in_4bit,
        load_in_8bit=config.load_in_8bit,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=half.get(config.torch_dtype, torch.bfloat16),
    )
    # bitsandbytes quantises while loading, so each process names its own device.
    return {"quantization_config": quantization, "device_map": {"": PartialState().device}}
