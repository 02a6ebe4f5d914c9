"""What a forward and backward cost: operations and memory, counted without weights.

Nothing is estimated that can be counted. The backbone is built from its config alone, of tensors
that have a shape and no content (`FakeTensorMode`). One batch goes through it, forward and
backward, as the trainers send it; the matrix products are counted, and so is every tensor from
where it is made to where it is let go. Whatever a layer saves for its gradient is therein.
"""

import copy
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from delrec_hf.errors import InputError
from delrec_hf.ranking import budget
from delrec_hf.ranking.logits import by_layer
from delrec_hf.ranking.support import way_of
from delrec_hf.training.recommendation import FinetuneConfig, with_lora

_MAPPED = 1 << 25  # bytes from which glibc maps a block by itself and gives it back at once
_RETAINED = 1.5  # what is held for each byte of smaller ones, whose place is kept; see docs/plan.md


@dataclass(frozen=True)
class Batch:
    """Rows that go through one forward.

    Attributes:
        rows: How many.
        length: Tokens of each, virtual ones and padding included.
        scored: Positions of all rows together whose next token is wanted.
    """

    rows: int
    length: int
    scored: int


@dataclass(frozen=True)
class Pass:
    """What is done with a batch.

    Attributes:
        lora: Settings of the LoRA that learns, or is there; None: none is.
        learns: Whether a gradient is taken: of LoRA, or without one of the soft prompt.
        checkpointing: Whether layers are computed again on the way back.
        autocast: Whether products are of bfloat16, whatever the weights are.
    """

    lora: FinetuneConfig | None = None
    learns: bool = True
    checkpointing: bool = False
    autocast: bool = False


@dataclass(frozen=True)
class Cost:
    """What one pass of a batch costs.

    Attributes:
        linear: Operations of matrix products, for each token.
        attention: Operations of attention, for each pair of tokens of a row.
        head: Operations of the output layer, for each scored position.
        memory: Bytes held at once besides the weights.
        resident: Bytes that a process on a CPU holds for these: its allocator keeps what is let go.
    """

    linear: float
    attention: float
    head: float
    memory: int
    resident: int

    def operations(self, tokens: float, pairs: float, scored: float) -> float:
        """Return the operations of so many tokens, pairs of tokens of a row, and positions."""
        return self.linear * tokens + self.attention * pairs + self.head * scored

    def of(self, batch: Batch) -> float:
        """Return the operations of a batch."""
        tokens = batch.rows * batch.length
        return self.operations(tokens, tokens * batch.length, batch.scored)


def build(config: PreTrainedConfig, dtype: torch.dtype, what: Pass) -> PreTrainedModel:
    """Return a backbone of random weights, its LoRA injected; on the meta device of none."""
    model: Any = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype)
    model.requires_grad_(False)
    if what.lora is not None:
        tuned: PeftModel = with_lora(model, what.lora, None)
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        model = tuned.get_base_model()
    if what.checkpointing:
        model.gradient_checkpointing_enable()
    return model.train(what.learns)


def count(config: PreTrainedConfig, dtype: torch.dtype, what: Pass, batch: Batch) -> Cost:
    """Count the operations and the memory of a batch, without weights.

    Raises:
        InputError: If the backbone cannot be run without them.
    """
    try:
        with torch.device("meta"):
            model = build(config, dtype, what)
        with FakeTensorMode():
            _place(model)
            return _count(model, what, batch)
    except InputError:
        raise
    except Exception as error:  # whatever a model's code stumbles over where tensors are empty
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise InputError(
            f"a backbone of type `{config.model_type}` cannot be counted without its weights: "
            f"{reason}; measure a few steps instead (`max_steps: 5`)"
        ) from error


def _place(model: PreTrainedModel) -> None:
    """Replace tensors of the meta device by such as pretend to lie on the CPU, as its kernels do.

    Kernels differ in what they save: attention on the meta device keeps every weight of every pair.
    """
    made: dict[torch.Tensor, torch.Tensor] = {}  # tied weights stay tied
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, one in held.items():
                if one is not None and one not in made:
                    made[one] = torch.empty(one.shape, dtype=one.dtype)
                    if isinstance(one, nn.Parameter):
                        made[one] = nn.Parameter(made[one], requires_grad=one.requires_grad)
                held[name] = None if one is None else made[one]


def _count(model: PreTrainedModel, what: Pass, batch: Batch) -> Cost:
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    counted = FlopCounterMode(
        display=False, custom_mapping={flash: _attention, back: _attention_backward}
    )
    held = _Held(model)
    with counted, held:
        run_once(model, what, batch)
    # Logits, and where a gradient flows on what they are worth: the output layer is frozen.
    head = 2 * model.get_output_embeddings().weight.numel() * (2 if what.learns else 1)
    found = counted.get_flop_counts()["Global"].items()
    pairs = sum(n for op, n in found if "bmm" in str(op) or "attention" in str(op))
    tokens = batch.rows * batch.length
    return Cost(
        linear=(counted.get_total_flops() - pairs - head * batch.scored) / tokens,
        attention=pairs / (tokens * batch.length),
        head=head,
        memory=held.most,
        resident=held.most_resident,
    )


def run_once(model: PreTrainedModel, what: Pass, batch: Batch) -> None:
    """Send a batch through a backbone as trainers and rankings do: forward, loss, backward."""
    rows, length, own = batch.rows, batch.length, model.get_input_embeddings().weight
    embeds = torch.zeros(rows, length, own.shape[1], dtype=own.dtype)
    inputs: dict[str, Any] = {"inputs_embeds": embeds, "use_cache": not what.learns}
    if way_of(model)[0] == "tree":  # a mask that says of each token which ones it sees
        inputs["attention_mask"] = torch.zeros(rows, 1, length, length, dtype=own.dtype)
        inputs["position_ids"] = torch.arange(length).expand(rows, -1)
    if not what.learns:
        with torch.inference_mode():
            _scored(model, model.base_model(**inputs).last_hidden_state, batch)
        return
    embeds.requires_grad_(what.lora is None)
    with torch.autocast(embeds.device.type, torch.bfloat16, enabled=what.autocast):
        loss = _scored(model, model.base_model(**inputs).last_hidden_state, batch)
    loss.backward()


def _scored(model: PreTrainedModel, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Turn scored positions into logits and log-probabilities: see `log_probabilities`."""
    states = hidden.reshape(-1, hidden.shape[-1])[: batch.scored]
    output = model.get_output_embeddings()
    project = by_layer(output)
    found = []
    for some in states.split(max(1, budget.LOGITS // output.weight.shape[0])):
        rows = torch.arange(len(some))
        found.append(project(some, rows, torch.zeros_like(rows)))
    return torch.cat(found).sum()


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


class _Held(TorchDispatchMode):
    """Follows what is allocated and let go.

    Args:
        model: What is there already, and does not count.

    Attributes:
        most: The most bytes held at once.
        most_resident: The same of a process whose allocator is glibc's.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.most = self.most_resident = self._now = self._resident = 0
        there = (*model.parameters(), *model.buffers())
        self._known = {one.untyped_storage()._cdata for one in there}

    def __torch_dispatch__(
        self,
        func: OpOverload,
        _types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.empty:  # memory that nobody has written to yet
            return found
        for one in tree_leaves(found):
            if isinstance(one, torch.Tensor):
                self._take(one)
        return found

    def _take(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, min(storage.nbytes(), tensor.numel() * tensor.itemsize)
        if key not in self._known:
            self._known.add(key)
            resident = size if size >= _MAPPED else int(_RETAINED * size)
            self._add(size, resident)
            weakref.finalize(storage, self._let_go, key, size, resident)

    def _let_go(self, key: int, size: int, resident: int) -> None:
        self._known.discard(key)
        self._add(-size, -resident)

    def _add(self, size: int, resident: int) -> None:
        self._now += size
        self._resident += resident
        self.most = max(self.most, self._now)
        self.most_resident = max(self.most_resident, self._resident)
