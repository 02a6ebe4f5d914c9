"""What a run folder knows about itself: which stages are done, with which inputs and settings."""

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from delrec_hf import __version__
from delrec_hf.errors import InputError
from delrec_hf.files import read_json, write_json

_SHOWN = 6  # changed settings that a line names
_FORMAT_VERSION = 2  # 1 kept the settings that were given; now their defaults stand there, too


@dataclass(frozen=True)
class RunRecord:
    """The `run.json` of a run folder.

    Attributes:
        folder: The run's folder.
    """

    folder: Path

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """What each finished stage left: version of the record, fingerprint, settings, seconds.

        Raises:
            InputError: If `run.json` is broken.
        """
        path = self.folder / "run.json"
        if not path.is_file():
            return {}
        content = read_json(path)
        stages = content.get("stages") if isinstance(content, dict) else None
        if not isinstance(stages, dict) or not all(isinstance(v, dict) for v in stages.values()):
            raise InputError(
                f"{path} does not hold the stages of a run; restore it, or remove it to run every "
                "stage again"
            )
        return stages

    def why_again(self, stage: str, settings: Mapping[str, Any]) -> str | None:
        """Say in words why a stage that had finished runs again; None if it never had.

        Args:
            stage: Its name.
            settings: Its settings now, by section.
        """
        before = self.stages.get(stage)
        if before is None:
            return None
        if before.get("format_version") != _FORMAT_VERSION:
            return "an earlier version of delrec_hf finished it"
        changes = _changes(before["settings"], settings)
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        return ", ".join(changes[:_SHOWN]) + more or "what it reads has changed"

    def is_done(self, stage: str, print_: str, outputs: Iterable[Path]) -> bool:
        """Say whether a stage has finished with this fingerprint and its outputs are there."""
        done = self.stages.get(stage, {}).get("fingerprint") == print_
        return done and all(path.exists() for path in outputs)

    def forget(self, stage: str) -> None:
        """Take a stage off the record, before its outputs are replaced."""
        stages = self.stages
        if stages.pop(stage, None) is not None:
            self._write(stages)

    def finish(
        self,
        stage: str,
        print_: str,
        settings: Mapping[str, Any],
        seconds: float,
        device_memory: int | None = None,
    ) -> None:
        """Record a finished stage, and the bytes of its accelerator that its first process held."""
        stages = self.stages
        stages[stage] = {
            "format_version": _FORMAT_VERSION,
            "fingerprint": print_,
            "settings": dict(settings),
            "seconds": round(seconds, 1),
        }
        if device_memory is not None:
            stages[stage]["device_memory"] = device_memory
        self._write(stages)

    def take(self, stage: str, other: "RunRecord") -> None:
        """Record a stage as another run's record has it, its outputs having been copied."""
        self._write(self.stages | {stage: {**other.stages[stage], "copied": True}})

    def seconds(self) -> float:
        """Return how long this run itself has worked on its stages."""
        # Those of stage 2's trainings are in the stage's own.
        return sum(
            one["seconds"]
            for name, one in self.stages.items()
            if "/" not in name and not one.get("copied")
        )

    def _write(self, stages: Mapping[str, Any]) -> None:
        facts = {"versions": library_versions(), "machine": machine()}
        write_json(self.folder / "run.json", {"stages": stages, **facts})


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which keys of which sections differ, and how."""
    return [
        f"{section}.{key} was {before.get(section, {}).get(key)}, is {now[section].get(key)}"
        for section in now
        for key in sorted({*before.get(section, {}), *now[section]})
        if before.get(section, {}).get(key) != now[section].get(key)
    ]


def machine() -> dict[str, Any]:
    """Return what computed: the accelerator or the processor, how many processes, on what."""
    import torch

    accelerator = torch.accelerator.current_accelerator()
    on_cuda = accelerator is not None and accelerator.type == "cuda"
    kind = torch.cuda.get_device_name() if on_cuda else str(accelerator or "cpu")
    return {
        "device": kind,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the numbers."""
    names = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
    return {"delrec_hf": __version__, **{name: version(name) for name in names}}
