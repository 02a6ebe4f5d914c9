"""What the backbone of a recipe costs on a device, before its weights are there."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger
from delrec_hf.modeling.backbone import BackboneConfig
from delrec_hf.modeling.prompt import cartridge_shape
from delrec_hf.planning.cost import Batch, Cost, Pass, build, count
from delrec_hf.planning.lengths import Reading
from delrec_hf.planning.timing import seconds_of
from delrec_hf.ranking import budget
from delrec_hf.resources import resource
from delrec_hf.training.recommendation import FinetuneConfig

logger = get_logger(__name__)

EFFICIENCY = 0.3
"""What a training reaches on a GPU of the rate of large products, where hidden states are this wide
or wider; narrower ones keep it less busy. See docs/plan.md."""
_WIDE = 3072

_RETAINED_ON_GPU = 1.1  # bytes that a GPU's allocator holds for each byte of tensors
_TRAINER = 100_000_000  # bytes of a process that trains: modules loaded late, batches, checkpoints
_BYTES_4BIT = 0.516  # NF4 with double quantisation: 4 bits, and 8.25 bits for 64 of them
_BYTES_8BIT = 1.0


@dataclass(frozen=True)
class BackboneCost:
    """Counts and measures passes of a backbone; each once.

    Attributes:
        config: The backbone's own config.
        loading: How the recipe loads it.
        flops: What the device does in a second in large matrix products; None: measured here.
        on_device: Whether the plan is for a GPU, where tensors alone count.
        base: Bytes that the process holds before there is a model.
    """

    config: PreTrainedConfig
    loading: BackboneConfig
    flops: float | None
    on_device: bool
    base: int
    _counted: dict[tuple[object, ...], Cost] = field(default_factory=dict)
    _rates: dict[tuple[object, ...], float] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, or of what quantised ones compute in."""
        if self.loading.torch_dtype != "auto":
            found: torch.dtype = getattr(torch, self.loading.torch_dtype)
            return found
        if self.loading.load_in_4bit:
            return torch.bfloat16
        return self.config.dtype or torch.float32

    def changed(self, **loading: Any) -> "BackboneCost":
        """Return the same backbone, loaded otherwise."""
        return replace(self, loading=replace(self.loading, **loading), _counted={}, _rates={})

    @property
    def efficiency(self) -> float:
        """What is reached of the rate of large matrix products."""
        return EFFICIENCY * min(1.0, self.config.get_text_config().hidden_size / _WIDE)

    @cached_property
    def parameters(self) -> int:
        """How many parameters the backbone has."""
        return sum(one.numel() for one in self._empty().parameters())

    def trainable(
        self, lora: FinetuneConfig | None, virtual: int, prompt_type: str | None = None
    ) -> int:
        """Return how many parameters learn: those of LoRA, or without one the soft prompt's."""
        if lora is None and prompt_type == "cartridge":
            layers, heads, size = cartridge_shape(self._empty())
            return (virtual - 1) * layers * 2 * heads * size
        if lora is None:
            return virtual * self._empty().get_input_embeddings().weight.shape[1]
        model = self._empty(lora)
        return sum(one.numel() for one in model.parameters() if one.requires_grad)

    def _empty(self, lora: FinetuneConfig | None = None) -> PreTrainedModel:
        with torch.device("meta"):
            return build(self.config, self.dtype, Pass(lora))

    @cached_property
    def weights(self) -> int:
        """The bytes of the weights; layers of 4 or 8 bits as bitsandbytes keeps them."""
        model = self._empty()
        whole = sum(one.numel() for one in model.parameters()) * self.dtype.itemsize
        kept = {"load_in_4bit": _BYTES_4BIT, "load_in_8bit": _BYTES_8BIT}
        size = next((n for key, n in kept.items() if getattr(self.loading, key)), None)
        if size is None:
            return whole
        output = model.get_output_embeddings()
        linear = sum(
            one.weight.numel()
            for one in model.modules()
            if isinstance(one, nn.Linear) and one is not output
        )
        return int(whole - linear * (self.dtype.itemsize - size))

    def _cost(self, what: Pass, batch: Batch) -> Cost:
        """Return what a batch costs."""
        key = (_key(what), batch)
        if key not in self._counted:
            self._counted[key] = count(self.config, self.dtype, what, batch)
        return self._counted[key]

    def _operations(self, what: Pass, batch: Batch) -> Cost:
        """Return what any batch of this kind costs: a token takes the same in all of them."""
        alike = (cost for key, cost in self._counted.items() if key[0] == _key(what))
        return next(alike, None) or self._cost(what, batch)

    def memory(self, what: Pass, batch: Batch, held: float = 0) -> int:
        """Return the bytes of a process at its peak.

        Args:
            what: What it does.
            batch: The largest batch.
            held: Bytes that are there beside the weights all the time.
        """
        cost = self._cost(what, batch)
        if self.on_device:
            logits = batch.scored * self.config.get_text_config().vocab_size
            # A slice of logits as they are, in float32, and as chances; on a CPU slices are small.
            logits = min(logits, budget.LOGITS_ON_DEVICE) * (4 + 2 * self.dtype.itemsize)
            return int(self.weights + _RETAINED_ON_GPU * (cost.memory + held + logits))
        process = self.base + (_TRAINER if what.learns else 0)
        return int(process + self.weights + cost.resident + held)

    def seconds(self, what: Pass, batch: Batch, reading: Reading) -> float:
        """Return how long it takes to read so much.

        Args:
            what: What is done.
            batch: A batch as it comes.
            reading: All that is read.
        """
        cost = self._operations(what, batch)
        operations = cost.operations(reading.tokens, reading.pairs, reading.scored)
        return operations * self._seconds_per_operation(what, batch)

    def _seconds_per_operation(self, what: Pass, batch: Batch) -> float:
        if self.flops is not None:
            return 1 / (self.efficiency * self.flops)
        key = _key(what)
        if key not in self._rates:
            device = torch.accelerator.current_accelerator() or torch.device("cpu")
            logger.info("plan: timing a few layers on %s", device)
            taken = seconds_of(self.config, self.dtype, what, batch, device)
            self._rates[key] = taken / self._operations(what, batch).of(batch)
        return self._rates[key]


def _key(what: Pass) -> tuple[object, ...]:
    return (
        what.lora is not None,
        what.learns,
        what.checkpointing,
        what.autocast,
    )


def read_config(loading: BackboneConfig) -> PreTrainedConfig:
    """Read the backbone's config alone.

    Raises:
        InputError: If it is neither in a folder nor can be had from the Hub.
    """
    try:
        return AutoConfig.from_pretrained(
            place_of(loading),
            revision=loading.model_revision,
            trust_remote_code=loading.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"the config of backbone `{loading.model_name_or_path}` cannot be had; a folder with "
            "its config.json and tokenizer files is enough for a plan: give it as "
            "--backbone.model_name_or_path"
        ) from error


def read_tokenizer(loading: BackboneConfig) -> PreTrainedTokenizerBase | None:
    """Read the backbone's tokenizer; None if it is not there."""
    place = place_of(loading)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            place, revision=loading.model_revision, trust_remote_code=loading.trust_remote_code
        )
    except (OSError, ValueError, ImportError, TypeError, AttributeError):
        return None
    if Path(place).is_dir() and not any(Path(place).glob("tokenizer*")):
        return None  # made up from the config's type, without words
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def place_of(loading: BackboneConfig) -> str:
    """Return the folder or Hub id of a backbone; the toy one is shipped."""
    name = loading.model_name_or_path
    return str(resource("recipes/backbones/toy")) if name == "toy" else name
