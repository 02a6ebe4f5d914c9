"""What a training cannot do without, what this machine reaches, and a clock for both."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from delrec_hf.labels import IGNORED
from delrec_hf.ranking.tree import tree_width


class Clock(TrainerCallback):
    """Takes the time from the end of the last step that warms up to the end of the last one."""

    def __init__(self, warm: int, device: torch.device) -> None:
        self._warm, self._device = warm, device
        self._start = self.seconds = 0.0

    def now(self) -> float:
        """Return CPU seconds on a CPU, else seconds of the clock once the device has come along."""
        if self._device.type == "cpu":
            return time.process_time()
        torch.accelerator.synchronize()
        return time.perf_counter()

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Look at the clock."""
        if state.global_step == self._warm:
            self._start = self.now()
        if state.global_step == state.max_steps:
            self.seconds = self.now() - self._start


class Read:
    """Counts the positions that a backbone's layers read, padding included."""

    def __init__(self, backbone: nn.Module) -> None:
        self.positions = 0
        layers = (one for one in backbone.modules() if isinstance(one, GradientCheckpointingLayer))
        next(layers).register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = given[0] if given else named["hidden_states"]
        self.positions += states.shape[0] * states.shape[1]


class Memory:
    """The most that a training holds: of a GPU what torch counts, else of this process in RAM."""

    def __init__(self, device: torch.device) -> None:
        self._on_device = device.type != "cpu"
        if self._on_device:
            torch.accelerator.reset_peak_memory_stats()
        else:  # the kernel's mark is set back to what is held now
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """Return the bytes."""
        if self._on_device:
            return torch.accelerator.max_memory_allocated()
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


@dataclass(frozen=True)
class Work:
    """What examples hold: tokens read, attention's pairs of tokens, and tokens predicted."""

    tokens: float
    pairs: float
    predicted: float

    @classmethod
    def of_titles(cls, encoded: Dataset, virtual: int) -> "Work":
        """Return that of rows which learn one title."""
        widths = np.array([len(one) + virtual for one in encoded["input_ids"]])
        answers = [sum(label != IGNORED for label in one) for one in encoded["labels"]]
        return cls(widths.mean(), (widths**2).mean() / 2, float(np.mean(answers)))

    @classmethod
    def of_trees(cls, rows: Dataset, virtual: int) -> "Work":
        """Return that of rows which learn to rank."""
        pairs = list(zip(rows["prompt_ids"], rows["candidate_ids"], strict=True))
        trunks = np.array([len(prompt) + virtual for prompt, _ in pairs])
        widths = np.array([tree_width(*pair, virtual) for pair in pairs])
        branches = widths - trunks
        seen = trunks**2 / 2 + branches * (trunks + 3)  # a title's own tokens are few
        return cls(widths.mean(), seen.mean(), float(branches.mean()) + 1)

    def operations(self, config: Any) -> float:
        """Return the floating-point operations that one example cannot do without."""
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = config.num_attention_heads + config.num_key_value_heads
        layer = (
            2 * config.hidden_size * head * heads
            + 3 * config.hidden_size * config.intermediate_size
        )
        attention = 2 * config.num_attention_heads * head  # scores and sums of values
        layers = config.num_hidden_layers * (2 * layer * self.tokens + 3 * attention * self.pairs)
        output = 2 * config.hidden_size * config.vocab_size * self.predicted
        return 2 * (layers + output)  # a multiply and an add each


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of a product of large matrices."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    clock, times = Clock(0, device), []
    for _ in range(7):
        start = clock.now()
        a @ b
        times.append(clock.now() - start)
    return 2 * size**3 / float(np.median(times))
