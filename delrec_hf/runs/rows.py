"""The rows that both stages learn from, in the form that their loss takes.

They are kept beside the checkpoints of their stage, and go with them: a training that was killed,
the next one of the stage and other processes find them there.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.hashes import fingerprint
from delrec_hf.instructions.mapping import rows_kept_in
from delrec_hf.instructions.rows import InstructionRows, some_users
from delrec_hf.instructions.templates import TEMPLATE_VERSION
from delrec_hf.logging import get_logger
from delrec_hf.ranking.fusion import fit_conditional_logit
from delrec_hf.runs.record import library_versions
from delrec_hf.runs.run import Run
from delrec_hf.teachers.folds import load_label_teacher
from delrec_hf.teachers.labels import teacher_chances
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import predict, score_candidates
from delrec_hf.training.common import StageConfig
from delrec_hf.training.distillation import DistilConfig
from delrec_hf.training.recommendation import FinetuneConfig

FloatArray = npt.NDArray[np.float64]

logger = get_logger(__name__)


@dataclass(frozen=True)
class DistilRows:
    """What stage 1 learns from and is validated on, by task.

    Attributes:
        train: Rows to learn from.
        validation: The same of the validation part.
        ranking: Validation rows to rank.
    """

    train: dict[str, Dataset]
    validation: dict[str, Dataset]
    ranking: dict[str, Dataset]


@dataclass(frozen=True)
class FinetuneRows:
    """What stage 2 learns from, is validated on, and ranks on validation."""

    train: Dataset
    validation: Dataset
    ranking: Dataset


def finetune_rows(run: Run, config: FinetuneConfig, write: InstructionRows) -> FinetuneRows:
    """Word and encode the examples of stage 2."""
    examples = run.prepared.examples["train"]
    # By the data's seed: trainings of other seeds learn from the same users.
    learned = some_users(examples, config.max_train_users, run.prepared.info["seed"])
    with rows_kept_in(_place(run, config)):
        validation = write.of_part("lsr", "validation", config.max_validation_users)
        if write.config.turns and config.loss == "title":  # each answer once, whatever row shows it
            learned = run.prepared.training_windows(learned["user_id"][:])
        train = to_learn(write, write.rows("lsr", "train", learned), config)
        return FinetuneRows(train, to_learn(write, validation, config), write.to_rank(validation))


def _place(run: Run, config: StageConfig) -> Path:
    """Return where a stage keeps its rows: of this version's code and wording alone."""
    checkpoints = run.folder / "checkpoints"
    stage = Path(config.output_dir).relative_to(checkpoints).parts[0]
    return checkpoints / stage / f"rows-{fingerprint(library_versions(), TEMPLATE_VERSION)[:16]}"


def distil_rows(run: Run, config: DistilConfig, tokenizer: PreTrainedTokenizerBase) -> DistilRows:
    """Word and encode the examples of both tasks, with the teacher's labels for RPS."""
    with rows_kept_in(_place(run, config)):
        return _distil_rows(run, config, tokenizer)


def _distil_rows(run: Run, config: DistilConfig, tokenizer: PreTrainedTokenizerBase) -> DistilRows:
    write = run.instruction_rows(tokenizer, config.seed)
    examples = run.prepared.examples
    train, write = (
        (examples["train"], write)
        if config.positions == "examples"
        else _all_positions(run, config, write)
    )
    validation = some_users(examples["validation"], config.max_validation_users, config.seed)
    worded = {
        part: {task: write.rows(task, part, found) for task in config.tasks}
        for part, found in (("train", train), ("validation", validation))
    }
    learned = {
        part: {task: to_learn(write, rows, config) for task, rows in tasks.items()}
        for part, tasks in worded.items()
    }
    if config.rps_labels == "scores" and "rps" in config.tasks:
        for part, tasks in learned.items():
            chances = _teacher_chances(run, config, part, worded[part]["rps"])
            tasks["rps"] = tasks["rps"].add_column("chances", chances)
    ranking = {task: write.to_rank(rows) for task, rows in worded["validation"].items()}
    return DistilRows(learned["train"], learned["validation"], ranking)


def _all_positions(
    run: Run, config: DistilConfig, write: InstructionRows
) -> tuple[Dataset, InstructionRows]:
    """Return examples drawn at all training positions, and what words them."""
    prepared = run.prepared
    train = prepared.training_examples(examples_of(config, prepared), config.seed)
    teacher = load_label_teacher(run.folder / "teacher", prepared)
    drawn = train.select_columns(["user_id", "position"]).with_format("arrow")[:]
    places = Dataset(drawn.group_by(["user_id", "position"]).aggregate([]))
    top_h = run.recipe.settings("teacher").top_h
    predicted = predict(teacher, prepared, places, top_h, disable_tqdm=config.disable_tqdm)
    stored = write.predictions
    return train, replace(
        write, predictions=lambda part: predicted if part == "train" else stored(part)
    )


def examples_of(config: DistilConfig, prepared: PreparedData) -> int:
    """Return how many examples a training on all positions reads, each with its own candidates."""
    if config.max_steps > 0:
        return (
            config.max_steps
            * config.train_batch_size
            * config.gradient_accumulation_steps
            * config.world_size
        )
    positions = sum(max(0, end - 1) for end in prepared.sequences["train_end"][:])
    whole = math.ceil(config.num_train_epochs * positions)
    config.num_train_epochs = 1
    return whole


def _teacher_chances(run: Run, config: DistilConfig, part: str, rows: Dataset) -> list[FloatArray]:
    """Return the teacher's distribution over each row's candidates, at a temperature that fits."""
    folder, prepared = run.folder / "teacher", run.prepared
    full = load_teacher(folder, prepared)
    temperature = config.rps_temperature
    if temperature is None:
        known = prepared.examples["validation"]
        scores = score_candidates(full, prepared, known, disable_tqdm=config.disable_tqdm)
        places = [
            row.index(target)
            for row, target in zip(known["candidates"][:], known["target"][:], strict=True)
        ]
        weight = float(fit_conditional_logit([scores], places).weights[0])
        if weight <= 0:
            raise InputError(
                "the teacher's scores say nothing of the validation targets, so no temperature "
                "makes them a distribution; set `distil.rps_temperature`, or `rps_labels: first`"
            )
        temperature = 1 / weight
        logger.info("distil: the teacher's scores are divided by %.3g", temperature)
    teacher = load_label_teacher(folder, prepared) if part == "train" else full
    return teacher_chances(teacher, prepared, rows, temperature, disable_tqdm=config.disable_tqdm)


def to_learn(write: InstructionRows, rows: Dataset, config: StageConfig) -> Dataset:
    """Return instruction rows in the form that the stage's loss takes."""
    return write.encoded(rows) if config.loss == "title" else write.to_rank(rows)
