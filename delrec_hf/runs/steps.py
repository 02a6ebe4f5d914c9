"""A step of a run, done once: here, or in another run of the same inputs and settings."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from delrec_hf.devices import counts_memory
from delrec_hf.files import replace_folder, write_bytes
from delrec_hf.logging import get_logger
from delrec_hf.runs.record import RunRecord

logger = get_logger(__name__)


@dataclass(frozen=True)
class Step:
    """A stage, or one of the trainings within it.

    Attributes:
        name: Its name in the record and the log.
        print_: Stands for its inputs and settings.
        settings: Its settings by section, defaults filled in.
        writes: What it leaves in the run's folder.
    """

    name: str
    print_: str
    settings: Mapping[str, dict[str, Any]]
    writes: tuple[str, ...]

    def is_done(self, folder: Path) -> bool:
        """Say whether the run of a folder has finished this very step and holds its output."""
        outputs = [folder / name for name in self.writes]
        return RunRecord(folder).is_done(self.name, self.print_, outputs)

    def is_elsewhere(self, siblings: Sequence[Path]) -> Path | None:
        """Return the first other run that has finished this very step, and left whole folders."""
        for one in siblings:
            if self.is_done(one) and all((one / name).is_dir() for name in self.writes):
                return one
        return None


def found(step: Step, folder: Path, siblings: Sequence[Path]) -> bool:
    """Say whether a step is finished, after copying it from another run that has done the same.

    All processes of a launch call this together.

    Args:
        step: What is asked for.
        folder: The run's folder.
        siblings: Folders of the other runs.
    """
    state = PartialState()
    done, other = step.is_done(folder), step.is_elsewhere(siblings)
    # No process may write the record while another one still reads it.
    state.wait_for_everyone()
    if done or other is None:
        return done
    if state.is_main_process:
        _take(step, folder, other)
    state.wait_for_everyone()
    logger.info("%s: copied from %s", step.name, other)
    return True


def once(
    step: Step, folder: Path, siblings: Sequence[Path], work: Callable[[], None], reads: str
) -> None:
    """Do a step, unless it is finished or another run has done the same.

    All processes of a launch call this together.

    Args:
        step: What is done.
        folder: The run's folder.
        siblings: Folders of runs whose output is taken where it is of the same step.
        work: Does it.
        reads: What it reads, for the log.
    """
    state, record = PartialState(), RunRecord(folder)
    why = record.why_again(step.name, step.settings)
    if step.is_done(folder):
        logger.info("%s: finished before, skipped", step.name)
    if found(step, folder, siblings):
        return
    logger.info("%s: reads %s", step.name, reads)
    if why is not None:
        logger.info("%s: runs again: %s", step.name, why)
    start = time.perf_counter()
    if state.is_main_process:
        record.forget(step.name)
    is_counted = counts_memory(torch.accelerator.current_accelerator())
    if is_counted:
        torch.accelerator.reset_peak_memory_stats()
    work()
    seconds = time.perf_counter() - start
    memory = torch.accelerator.max_memory_reserved() if is_counted else None
    state.wait_for_everyone()
    if state.is_main_process:
        record.finish(step.name, step.print_, step.settings, seconds, memory)
    state.wait_for_everyone()
    written = ", ".join(str(folder / name) for name in step.writes)
    held = "" if memory is None else f", at most {memory / 1e9:.2f} GB of the device's memory"
    logger.info("%s: wrote %s in %.0f s%s", step.name, written, seconds, held)


def _take(step: Step, folder: Path, other: Path) -> None:
    """Copy a step's output and its training's history from another run, and record it."""
    record = RunRecord(folder)
    record.forget(step.name)
    for name in step.writes:
        with replace_folder(folder / name) as aside:
            shutil.copytree(other / name, aside, dirs_exist_ok=True)
        history = other / "logs" / f"{name}.json"
        if history.is_file():
            write_bytes(folder / "logs" / history.name, history.read_bytes())
    record.take(step.name, RunRecord(other))
