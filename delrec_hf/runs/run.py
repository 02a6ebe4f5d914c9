"""A recipe at work: its folder, its data, its backbone, and its examples as instruction rows."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from delrec_hf.data.prepared import PreparedData
from delrec_hf.files import replace_folder
from delrec_hf.instructions.rows import InstructionRows
from delrec_hf.instructions.templates import Domain, load_domain
from delrec_hf.modeling.backbone import BackboneConfig, load_backbone
from delrec_hf.ranking.calibration import Calibration
from delrec_hf.ranking.scoring import Scoring, ScoringKind
from delrec_hf.resources import resource
from delrec_hf.runs.recipe import TRAININGS, Recipe
from delrec_hf.teachers.folds import load_label_teacher, refuse_in_sample
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import read_predictions, score_candidates
from delrec_hf.training.common import StageConfig


@dataclass(frozen=True)
class Run:
    """A recipe at work in its folder.

    Attributes:
        recipe: What to run and where.
        fingerprint: Stands for the inputs and settings of the step at work.
        finished: The stages whose output is there and of this recipe.
        prints: Fingerprints of the stages up to the one at work.
    """

    recipe: Recipe
    fingerprint: str = ""
    finished: frozenset[str] = frozenset()
    prints: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.recipe.output_dir

    @property
    def scores(self) -> Path:
        """Where what language models said of rows is kept, by all seeds of a recipe."""
        return (self.recipe.shared_dir or self.folder) / "scores"

    @cached_property
    def prepared(self) -> PreparedData:
        """The prepared data of the run."""
        return PreparedData.load(self.folder / "data")

    @cached_property
    def domain(self) -> Domain:
        """How the items are spoken about."""
        return load_domain(self.prepared.info["domain"])

    def settings(self, section: str) -> Any:
        """Return a section as the stages see it."""
        if section in TRAININGS:
            return self.trainer_settings(section, section)
        return self.recipe.settings(section)

    def trainer_settings(self, section: str, stage: str, name: str = "") -> Any:
        """Return a section of TrainingArguments for one training.

        Args:
            section: The section.
            stage: Checkpoints go to `checkpoints/STAGE`.
            name: What trackers call the training; default: the section.
        """
        given = self.recipe.sections.get(section, {})
        forced = self._tracked(given, name or section)
        forced["output_dir"] = str(self.folder / "checkpoints" / stage)
        if "disable_tqdm" not in given:
            forced["disable_tqdm"] = False  # transformers hides the bar where its log is quiet
        if not torch.accelerator.is_available():
            forced |= {"use_cpu": True, "dataloader_pin_memory": False}
            # SFTConfig's own default, true, rounds on a CPU for no gain in time.
            forced["bf16"] = given.get("bf16", False)
        return self.recipe.settings(section, **forced)

    def _tracked(self, given: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return what trackers are told, so that each training is a run of its own there."""
        outermost = (self.recipe.shared_dir or self.folder).resolve()
        own = self.folder.resolve().relative_to(outermost) / name  # tells seeds and variants apart
        folder = self.folder / "logs" / "tensorboard" / name
        if given.get("logging_dir"):
            folder = Path(str(given["logging_dir"])) / own
        told = {
            "run_name": f"{given.get('run_name') or outermost.name}/{own.as_posix()}",
            "logging_dir": str(folder),
        }
        # transformers would publish what trackio has kept along with checkpoints that it pushes
        otherwise = {"project": self.recipe.name, "trackio_static_space_id": False}
        return told | {key: value for key, value in otherwise.items() if key not in given}

    def backbone_config(self) -> BackboneConfig:
        """Return how to load the backbone; the shipped toy one has a copy in the run's folder."""
        config: BackboneConfig = self.recipe.settings("backbone")
        if config.model_name_or_path == "toy":
            config.model_name_or_path = str(self.folder / "backbone")
        return config

    def backbone(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the backbone, afresh each time: adapters are injected into it.

        All processes call this together: the first one copies the toy backbone into the run.
        """
        state, place = PartialState(), self.folder / "backbone"
        is_toy = self.recipe.settings("backbone").model_name_or_path == "toy"
        if is_toy and state.is_main_process and not place.is_dir():
            with replace_folder(place) as aside:
                shutil.copytree(resource("recipes/backbones/toy"), aside, dirs_exist_ok=True)
        state.wait_for_everyone()
        return load_backbone(self.backbone_config())

    @cached_property
    def calibration(self) -> Calibration:
        """What the untrained backbone's scores are worth."""
        return Calibration.load(self.folder / "calibration")

    def scoring(
        self, tokenizer: PreTrainedTokenizerBase, kind: ScoringKind | None = None
    ) -> Scoring:
        """Return how titles are scored: as `kind` says, or as in training and report alike."""
        kind = kind or self.recipe.settings("evaluate").scoring
        if kind != "calibrated":
            return Scoring(kind)
        write = self.instruction_rows(tokenizer, seed=0)
        answers = write.encoder.encode_answers(list(write.titles.values()))
        return self.calibration.scoring(kind, answers)

    def temperature(self, config: StageConfig) -> float:
        """Return what a stage divides scores by: its own key, or what fits the untrained model."""
        if config.temperature is not None:
            return config.temperature
        return self.calibration.fits[self.recipe.settings("evaluate").scoring].temperature

    def predictions(self, part: str) -> Dataset:
        """The teacher's top items for the places of a part."""
        return read_predictions(self.folder / "teacher" / "predictions", part)

    def teacher_scores(self, part: str, examples: Dataset) -> npt.NDArray[np.float64]:
        """The teacher's scores of candidates, of training examples out of fold."""
        load = load_label_teacher if part == "train" else load_teacher
        teacher = load(self.folder / "teacher", self.prepared)
        return score_candidates(teacher, self.prepared, examples)

    def instruction_rows(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> InstructionRows:
        """Return what writes the run's examples for a tokenizer."""
        config = self.recipe.settings("instructions")
        if config.teacher != "none":
            refuse_in_sample(self.folder / "teacher", f"instructions.teacher: {config.teacher}")
        return InstructionRows(
            self.prepared,
            self.domain,
            config,
            self.predictions,
            self.teacher_scores,
            tokenizer,
            seed,
        )
