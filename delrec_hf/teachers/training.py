"""Training a teacher, keeping it in a folder, and getting it back."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from delrec_hf.checkpoints import last_checkpoint
from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.files import fingerprint, read_json, replace_folder, write_json
from delrec_hf.logging import get_logger
from delrec_hf.teachers.baselines import Markov, Popularity, Random
from delrec_hf.teachers.histories import Histories, IntArray, column
from delrec_hf.teachers.sasrec import SASRecConfig, SASRecModel
from delrec_hf.teachers.windows import Batch, TrainingWindows, ValidationHistories

FloatArray = npt.NDArray[np.float64]

logger = get_logger(__name__)

_SETTINGS = {
    "sasrec": (
        *("max_length", "hidden_size", "num_layers", "num_heads", "dropout", "learning_rate"),
        *("lr_scheduler_type", "warmup_steps", "weight_decay", "per_device_train_batch_size"),
        *("num_train_epochs", "patience", "seed"),
    ),
    "random": ("seed",),
    "popularity": (),
    "markov": (),
}
"""The settings that make a teacher of each type what it is."""


@dataclass
class TeacherConfig(TrainingArguments):
    """Recipe section `teacher`: transformers' `TrainingArguments` and the keys below."""

    type: Literal["sasrec", "popularity", "markov", "random"] = field(
        default="sasrec", metadata={"help": "which recommender teaches"}
    )
    top_h: int = field(default=10, metadata={"help": "how many of its best items are kept"})
    max_length: int = field(default=20, metadata={"help": "SASRec: how many last items it reads"})
    hidden_size: int = field(default=64, metadata={"help": "SASRec: width"})
    num_layers: int = field(default=2, metadata={"help": "SASRec: attention blocks"})
    num_heads: int = field(default=2, metadata={"help": "SASRec: attention heads"})
    dropout: float = field(default=0.3, metadata={"help": "SASRec: share of values dropped"})
    patience: int = field(
        default=5, metadata={"help": "stop after so many epochs without a better validation"}
    )

    num_train_epochs: float = field(default=100, metadata={"help": "at most so many epochs"})
    learning_rate: float = field(default=2e-3, metadata={"help": "peak learning rate"})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "schedule"})
    warmup_steps: float = field(default=50, metadata={"help": "steps up to the peak"})
    per_device_train_batch_size: int = field(default=128, metadata={"help": "windows per step"})
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "users per step"})
    eval_strategy: str = field(default="epoch", metadata={"help": "when to validate"})
    save_strategy: str = field(default="epoch", metadata={"help": "when to keep a checkpoint"})
    logging_strategy: str = field(default="epoch", metadata={"help": "when to log the loss"})
    save_total_limit: int | None = field(default=1, metadata={"help": "checkpoints to keep"})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "keep the best epoch"})
    metric_for_best_model: str | None = field(
        default="ndcg@10", metadata={"help": "what is best on validation"}
    )
    greater_is_better: bool | None = field(default=True, metadata={"help": "its direction"})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "a resumed run counts its patience on"}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "every parameter of a teacher takes part in every step"}
    )
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "pin batches in memory"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "leave this off"})
    seed: int = field(default=42, metadata={"help": "decides the weights and the order"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"teacher.hidden_size {self.hidden_size} is not a multiple of teacher.num_heads "
                f"{self.num_heads}; change one of them"
            )
        for name in ("top_h", "max_length", "hidden_size", "num_layers", "num_heads", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"teacher.{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise InputError(f"teacher.dropout is {self.dropout}; expected 0 or more, below 1")

    def settings(self) -> dict[str, Any]:
        """Return what makes this teacher what it is, for records and cards."""
        return {name: getattr(self, name) for name in _SETTINGS[self.type]}


class Teacher(Protocol):
    """Whatever can score items after a history."""

    def score(
        self, user_ids: Sequence[str], positions: IntArray, histories: Sequence[IntArray]
    ) -> FloatArray:
        """Score every item as the next one of each history.

        Args:
            user_ids: `(batch,)`.
            positions: `(batch,)` index in the user's sequence of the item to come.
            histories: The item rows before that position, oldest first, all of them.

        Returns:
            `(batch, items)`, higher is better, -inf for an item that is never recommended. A row
            depends on its own user, position and history alone.
        """
        ...


def train_teacher(prepared: PreparedData, config: TeacherConfig, folder: Path) -> None:
    """Train a teacher on training items alone and write it to a folder.

    A run that was killed continues from its last checkpoint in `config.output_dir`, if data and
    settings are still the same. With several processes all train and the first one writes.

    Args:
        prepared: The data.
        config: The settings; `output_dir` holds checkpoints while training.
        folder: What was there is replaced once the teacher is complete.
    """
    state = PartialState()
    record: dict[str, Any] = {
        "type": config.type,
        "settings": config.settings(),
        "catalogue": _catalogue_print(prepared),
    }
    model = None
    if config.type == "sasrec":
        started = time.process_time()
        trainer = _train_sasrec(prepared, config)
        model = trainer.accelerator.unwrap_model(trainer.model)
        record["validation"] = {"ndcg@10": trainer.state.best_metric}
        record["epochs"] = trainer.state.epoch
        record["cpu_seconds"] = round(time.process_time() - started, 1)
    if state.is_main_process:
        with replace_folder(folder) as aside:
            if model is not None:
                with _no_file_bars():
                    model.save_pretrained(aside)
            write_json(aside / "teacher.json", record)
    state.wait_for_everyone()


def load_teacher(folder: Path, prepared: PreparedData) -> Teacher:
    """Return the teacher that `train_teacher` wrote.

    Args:
        folder: Its folder.
        prepared: The data it was trained on; the simple ones are fitted to it again.

    Raises:
        InputError: If the folder holds no teacher, or one of another catalogue.
    """
    path = Path(folder) / "teacher.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no teacher.json; train a teacher with `delrec teach`")
    record = read_json(path)
    if record["catalogue"] != _catalogue_print(prepared):
        raise InputError(
            f"the teacher in {folder} was trained on another catalogue than these "
            f"{len(prepared.items)} items; train it again with `delrec teach`"
        )
    if record["type"] == "random":
        return Random.fit(prepared, **record["settings"])
    if record["type"] == "popularity":
        return Popularity.fit(prepared)
    if record["type"] == "markov":
        return Markov.fit(prepared)
    with _no_file_bars():
        model = SASRecModel.from_pretrained(folder)
    teacher: Teacher = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return teacher


class TeacherTrainer(Trainer):
    """A `Trainer` that validates by the rank of the next item in the whole catalogue."""

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        prediction_loss_only: bool,  # noqa: ARG002 - Trainer's signature
        ignore_keys: list[str] | None = None,  # noqa: ARG002
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Return no loss, each target's rank among the unseen items from 0 on, and the target.

        An item that scores the same as the target, or not a number, ranks before it.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.inference_mode():
            scores = model(input_ids=inputs["input_ids"]).scores
            allowed = scores.new_zeros(len(scores), scores.shape[1] + 1)
            allowed.scatter_(1, inputs["seen"], -torch.inf)
            scores = scores + allowed[:, 1:]
            target = scores.gather(1, inputs["labels"][:, None])
            ranks = (~(scores < target)).sum(dim=1) - 1
        return None, ranks, inputs["labels"]


class _Report(TrainerCallback):
    """Puts a line per validation into the log, in place of the Trainer's dictionaries."""

    def on_evaluate(self, args, state, control, metrics, **kwargs):  # type: ignore[no-untyped-def] # noqa: ARG002
        logger.info("epoch %d: validation NDCG@10 %.4f", state.epoch, metrics["eval_ndcg@10"])


class _Bar(ProgressCallback):
    """The Trainer's progress bar without its dictionaries."""

    def on_log(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        pass


def _train_sasrec(prepared: PreparedData, config: TeacherConfig) -> Trainer:
    windows = TrainingWindows(prepared, config.max_length)
    validation = ValidationHistories(prepared, config.max_length)
    if not len(windows) or not len(validation):
        raise InputError(
            f"the data holds {len(windows)} training windows and {len(validation)} validation "
            "items; a SASRec needs both: use longer sequences or another data.split"
        )
    set_seed(config.seed)
    model = SASRecModel(
        SASRecConfig(
            num_items=len(prepared.items),
            max_length=config.max_length,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            dropout=config.dropout,
        )
    )
    trainer = TeacherTrainer(
        model=model,
        args=config,
        train_dataset=windows,
        eval_dataset=validation,
        data_collator=_as_it_is,
        compute_metrics=_ndcg,
        callbacks=[EarlyStoppingCallback(config.patience), _Report()],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_Bar())
    print_ = fingerprint({**config.settings(), "data": _sequences_print(prepared)})
    with _no_file_bars():
        trainer.train(resume_from_checkpoint=last_checkpoint(config.output_dir, print_))
    return trainer


@contextmanager
def _no_file_bars() -> Iterator[None]:
    """Hide the bar that transformers shows for each file; a teacher is one small file."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _ndcg(predictions: EvalPrediction) -> dict[str, float]:
    ranks = predictions.predictions
    return {"ndcg@10": float(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean())}


def _sequences_print(prepared: PreparedData) -> str:
    sequences = Histories.of(prepared)
    parts = (sequences.items, sequences.bounds, sequences.train_ends)
    return fingerprint([part.tolist() for part in parts])


def _catalogue_print(prepared: PreparedData) -> str:
    return fingerprint(column(prepared.items, "item_id").tolist())
