"""What every training shows on the terminal, and keeps of its log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from delrec_hf.files import write_json

_PAUSE = 20  # times as long as a write took: so much of a training, at most, goes into its log


class _Bar(ProgressCallback):
    """The Trainer's progress bar without its dictionaries."""

    def on_log(self, *_: Any, **__: Any) -> None:
        pass


def show_bar_alone(trainer: Trainer) -> None:
    """Take the dictionaries that the Trainer prints off the terminal; its bar, if any, stays."""
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_Bar())


@contextmanager
def kept_log(trainer: Trainer, path: Path) -> Iterator[None]:
    """Keep all that a training logs within the block in a file, while it runs.

    The file is a JSON list at any moment, whatever ends the process. It follows the Trainer's own
    history: a training that goes on from a checkpoint repeats no step and lacks none. The first
    process of several writes. Where steps are shorter than writes, not each is written at once, but
    the last one is, unless the process is killed.

    Args:
        trainer: What trains.
        path: The file; what is there of a training before is replaced.
    """
    log = _KeptLog(path)
    trainer.add_callback(log)
    try:
        yield
    finally:
        if log.next is not None:
            log.write(trainer.state)
        trainer.remove_callback(log)


class _KeptLog(TrainerCallback):
    """Writes what is logged, unless it did just now.

    Attributes:
        next: When to write again; None: nothing was logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.next: float | None = None

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        if self.next is None or time.monotonic() >= self.next:
            self.write(state)

    def write(self, state: TrainerState) -> None:
        """Write all that was logged so far."""
        start = time.monotonic()
        if state.is_world_process_zero:
            write_json(self._path, state.log_history)
        end = time.monotonic()
        self.next = end + _PAUSE * (end - start)
