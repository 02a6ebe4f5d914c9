"""A recipe at work: its folder, its data, its backbone, and its examples as instruction rows."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from delrec_hf.data.prepared import PreparedData
from delrec_hf.files import replace_folder
from delrec_hf.instructions.builders import lsr_rows, rps_rows, ta_rows
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.templates import Domain, load_domain
from delrec_hf.instructions.titles import safe_titles
from delrec_hf.modeling.backbone import BackboneConfig, load_backbone
from delrec_hf.resources import resource
from delrec_hf.runs.recipe import Recipe
from delrec_hf.teachers.predictions import read_predictions
from delrec_hf.training.common import ranking_rows


@dataclass(frozen=True)
class Run:
    """A recipe at work in its folder.

    Attributes:
        recipe: What to run and where.
        fingerprint: Stands for the inputs and settings of the stage at work.
    """

    recipe: Recipe
    fingerprint: str = ""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.recipe.output_dir

    @cached_property
    def prepared(self) -> PreparedData:
        """The prepared data of the run."""
        return PreparedData.load(self.folder / "data")

    @cached_property
    def domain(self) -> Domain:
        """How the items are spoken about."""
        return load_domain(self.prepared.info["domain"])

    def trainer_settings(self, section: str, stage: str) -> Any:
        """Return a section of TrainingArguments whose checkpoints go to `checkpoints/STAGE`."""
        forced: dict[str, Any] = {"output_dir": str(self.folder / "checkpoints" / stage)}
        given = self.recipe.sections.get(section, {})
        if "disable_tqdm" not in given:
            forced["disable_tqdm"] = False  # transformers hides the bar where its log is quiet
        if not torch.accelerator.is_available():
            forced |= {"use_cpu": True, "dataloader_pin_memory": False}
            # SFTConfig's own default, true, rounds on a CPU for no gain in time.
            forced["bf16"] = given.get("bf16", False)
        return self.recipe.settings(section, **forced)

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

    def predictions(self, part: str) -> Dataset:
        """The teacher's top items for the places of a part."""
        return read_predictions(self.folder / "teacher" / "predictions", part)


@dataclass(frozen=True)
class InstructionRows:
    """Writes a run's examples as instruction rows for one tokenizer."""

    run: Run
    tokenizer: PreTrainedTokenizerBase
    seed: int

    @cached_property
    def encoder(self) -> ChatEncoder:
        """Turns messages into token ids."""
        return ChatEncoder(self.tokenizer)

    @cached_property
    def titles(self) -> dict[str, str]:
        """Item id to the title that stands in prompts."""
        items = self.run.prepared.items
        titles = safe_titles(items["title"][:], self.tokenizer)
        return dict(zip(items["item_id"][:], titles, strict=True))

    def rows(self, task: str, part: str, max_users: int | None = None) -> Dataset:
        """Return the instruction rows of a task, of all users or of some drawn by seed."""
        prepared, domain = self.run.prepared, self.run.domain
        examples = some_users(prepared.examples[part], max_users, self.seed)
        titles = list(self.titles.values())
        if task == "lsr":
            return lsr_rows(examples, prepared.items, titles, domain)
        if task == "ta":
            return ta_rows(examples, prepared.sequences, prepared.items, titles, domain, self.seed)
        found = self.run.predictions(part)
        return rps_rows(examples, found, prepared.items, titles, domain, self.seed)

    def encoded(self, rows: Dataset) -> Dataset:
        """Encode rows for training."""
        return rows.map(
            self.encoder.encode_rows,
            batched=True,
            remove_columns=rows.column_names,
            desc="Encoding",
        )

    def for_ranking(self, rows: Dataset) -> Dataset:
        """Encode rows for ranking."""
        return ranking_rows(rows, self.encoder, self.titles)


def some_users(examples: Dataset, max_users: int | None, seed: int) -> Dataset:
    """Return the examples of at most so many users, drawn by seed."""
    users = np.unique(examples["user_id"][:])
    if max_users is None or len(users) <= max_users:
        return examples
    chosen = np.random.default_rng(seed).choice(users, max_users, replace=False)
    return examples.select(np.flatnonzero(np.isin(examples["user_id"][:], chosen)))
