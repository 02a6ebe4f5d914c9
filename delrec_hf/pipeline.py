"""The stages of a recipe in order; finished ones are skipped, killed ones go on where they were."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from delrec_hf.data.prepared import PreparedData, prepare
from delrec_hf.errors import InputError
from delrec_hf.files import read_json, replace_folder, write_json
from delrec_hf.instructions.templates import TEMPLATE_VERSION
from delrec_hf.logging import get_logger
from delrec_hf.recipe import Recipe
from delrec_hf.run_record import RunRecord, content_hash, fingerprint

logger = get_logger(__name__)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: What the command line calls it.
        sections: Sections of the recipe whose keys change its outcome.
        after: Stages whose output it reads.
        writes: What it leaves in the run's folder.
        run: The work.
    """

    name: str
    sections: tuple[str, ...]
    after: tuple[str, ...]
    writes: tuple[str, ...]
    run: Callable[["Run"], None]


@dataclass(frozen=True)
class Run:
    """A recipe at work in its folder."""

    recipe: Recipe

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.recipe.output_dir

    @cached_property
    def prepared(self) -> PreparedData:
        """The prepared data of the run."""
        return PreparedData.load(self.folder / "data")

    def trainer_settings(self, section: str, stage: str) -> Any:
        """Return a section of TrainingArguments whose checkpoints go to `checkpoints/STAGE`."""
        import torch

        forced: dict[str, Any] = {"output_dir": str(self.folder / "checkpoints" / stage)}
        if not torch.accelerator.is_available():
            forced["use_cpu"] = True
        return self.recipe.settings(section, **forced)


STAGES: tuple[Stage, ...] = ()


def run_recipe(recipe: Recipe, only: str | None = None) -> None:
    pass
