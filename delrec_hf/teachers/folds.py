"""Labels from teachers that have not seen their user: one teacher per fold of the users."""

import copy
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accelerate import PartialState
from datasets import Dataset, DatasetDict

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.files import write_json
from delrec_hf.logging import get_logger
from delrec_hf.teachers.config import TeacherConfig
from delrec_hf.teachers.histories import IntArray, column
from delrec_hf.teachers.learning.training import train_teacher
from delrec_hf.teachers.loading import fingerprints, load_teacher, read_record
from delrec_hf.teachers.teacher import FloatArray, NeuralTeacher, Teacher

logger = get_logger(__name__)

IN_SAMPLE, OUT_OF_FOLD = "in-sample", "out-of-fold"
"""How `labels` in a run's `teacher.json` tells whether the label teacher had seen the user."""

_ABOUT_LABELS = ("labels", "folds", "hr@1", "examples")


@dataclass(frozen=True)
class FoldedTeacher:
    """Asks for each user the teacher that has not seen the user.

    Attributes:
        teachers: One per fold, that of fold k having learned from the users of all other folds.
        seed: Decides who is in which fold.
    """

    teachers: tuple[Teacher, ...]
    seed: int

    def score(
        self, user_ids: Sequence[str], positions: IntArray, histories: Sequence[IntArray]
    ) -> FloatArray:
        """Score every item as the next one of each history; see `Teacher.score`."""
        folds = folds_of(user_ids, len(self.teachers), self.seed)
        scores: FloatArray | None = None
        for fold, teacher in enumerate(self.teachers):
            rows = np.flatnonzero(folds == fold)
            if not len(rows):
                continue
            users = [user_ids[row] for row in rows.tolist()]
            before = [histories[row] for row in rows.tolist()]
            found = teacher.score(users, positions[rows], before)
            if scores is None:
                scores = np.empty((len(folds), found.shape[1]), found.dtype)
            scores[rows] = found
        return self.teachers[0].score([], positions, []) if scores is None else scores


def folds_of(user_ids: Sequence[str], folds: int, seed: int) -> IntArray:
    """Return each user's fold, `(users,)` from 0 on.

    It follows from user id, number of folds and seed alone, whoever else is there.
    """
    digests = (hashlib.blake2b(f"fold/{seed}/{user}".encode(), digest_size=8) for user in user_ids)
    keys = np.frombuffer(b"".join(digest.digest() for digest in digests), dtype="<u8")
    return (keys % np.uint64(folds)).astype(np.int64)


def without_fold(prepared: PreparedData, fold: int, folds: int, seed: int) -> PreparedData:
    """Return the same catalogue without sequences and examples of the users of a fold."""

    def others(rows: Dataset) -> Dataset:
        users = column(rows, "user_id").tolist()
        return rows.select(np.flatnonzero(folds_of(users, folds, seed) != fold))

    examples = DatasetDict({part: others(rows) for part, rows in prepared.examples.items()})
    return replace(prepared, sequences=others(prepared.sequences), examples=examples)


def train_teachers(prepared: PreparedData, config: TeacherConfig, folder: Path) -> None:
    """Train the teacher, and with `config.folds` one more without the users of each fold.

    Those of the folds are ordinary teachers in `folds/00000` and so on. Each is kept if it is there
    already, or goes on from its own checkpoints, as the teacher itself does; see `train_teacher`.
    `teacher.json` tells with `labels` whether the teacher that labels training positions, which is
    `load_label_teacher`'s, has seen their users.

    Raises:
        InputError: If there are too few users for the folds, or as `train_teacher` does.
    """
    state = PartialState()
    _refuse_few_users(prepared, config)
    train_teacher(prepared, config, folder)
    if state.is_main_process:
        _start_anew(folder, config.folds)
    for fold in range(config.folds):
        learned = without_fold(prepared, fold, config.folds, config.seed)
        logger.info(
            "fold %d of %d: its teacher learns from %d of %d users",
            fold + 1,
            config.folds,
            len(learned.sequences),
            len(prepared.sequences),
        )
        own = copy.copy(config)
        own.output_dir = str(_folder_of(Path(str(config.output_dir)), fold))
        own.push_to_hub = False  # one repository holds one teacher
        own.report_to = []  # and one run of a tracker follows one
        try:
            train_teacher(learned, own, _folder_of(folder, fold))
        except InputError as error:
            raise InputError(
                f"teacher.folds is {config.folds}, and without the users of fold {fold} {error}; "
                "or set teacher.folds: 0"
            ) from error
    if state.is_main_process:
        _tell_labels(folder, config)
    state.wait_for_everyone()


def load_label_teacher(folder: Path, prepared: PreparedData) -> Teacher:
    """Return the teacher whose choices are the labels of stage 1 at training positions.

    Args:
        folder: A run's `teacher` folder.
        prepared: The data that it was trained on.

    Returns:
        With folds, a teacher that asks for each user the one that has not seen the user; else the
        plain one. Both score any item at any position; ranked lists know their own positions alone.

    Raises:
        InputError: If a teacher is missing, or was trained on other users than its fold's.
    """
    folded = read_record(folder).get("folds")
    if folded is None:
        return load_teacher(folder, prepared)
    number, seed = folded["number"], folded["seed"]
    teachers = []
    for fold in range(number):
        learned = without_fold(prepared, fold, number, seed)
        teacher = load_teacher(_folder_of(Path(folder), fold), learned)
        if isinstance(teacher, NeuralTeacher):  # the others were fitted to these users just now
            _refuse_other_users(teacher, learned, _folder_of(Path(folder), fold))
        teachers.append(teacher)
    return FoldedTeacher(tuple(teachers), seed)


def labels_are_out_of_fold(folder: Path) -> bool:
    """Say whether no label at a training position is from a teacher that has seen the user.

    Args:
        folder: A run's `teacher` folder.

    Raises:
        InputError: If it holds no teacher.
    """
    return bool(read_record(folder).get("labels") == OUT_OF_FOLD)


def refuse_in_sample(folder: Path, key: str) -> None:
    """Refuse to show what a teacher says of users whom it has learned from.

    Args:
        folder: A run's `teacher` folder.
        key: The recipe key that would show it.

    Raises:
        InputError: If its labels at training positions are in-sample, or there is no teacher yet.
    """
    if not labels_are_out_of_fold(folder):
        raise InputError(
            f"`{key}` shows what the teacher says at training positions, and this teacher has "
            "learned from them: the language model would learn to copy it; set `teacher.folds: 5` "
            "(or `teacher.out_of_fold` for ranked lists that are)"
        )


def _folder_of(folder: Path, fold: int) -> Path:
    return folder / "folds" / f"{fold:05d}"


def _refuse_few_users(prepared: PreparedData, config: TeacherConfig) -> None:
    """Refuse folds of which one would be empty, or hold everyone, before anything is trained."""
    users = column(prepared.sequences, "user_id").tolist()
    if config.folds > len(users):
        raise InputError(
            f"teacher.folds is {config.folds}, and the data holds {len(users)} users; expected at "
            "most as many folds as users"
        )
    if config.folds:
        sizes = np.bincount(folds_of(users, config.folds, config.seed), minlength=config.folds)
        if not sizes.all():
            raise InputError(
                f"teacher.folds is {config.folds}, and chance leaves fold {int(sizes.argmin())} "
                f"without any of the {len(users)} users; choose fewer folds or another teacher.seed"
            )


def _refuse_other_users(teacher: NeuralTeacher, learned: PreparedData, folder: Path) -> None:
    if teacher.model.config.training_items != fingerprints(learned)["training_items"]:
        raise InputError(
            f"the teacher in {folder} was trained on other users or items than those outside its "
            "fold; train it again with `delrec teach`"
        )


def _start_anew(folder: Path, folds: int) -> None:
    """Take what was told of labels off the record, and remove the folds that are too many."""
    record = read_record(folder)
    kept = {name: value for name, value in record.items() if name not in _ABOUT_LABELS}
    write_json(folder / "teacher.json", kept)
    wanted = {_folder_of(folder, fold) for fold in range(folds)}
    for place in (folder / "folds").glob("[0-9]*"):
        if place not in wanted:
            shutil.rmtree(place)


def _tell_labels(folder: Path, config: TeacherConfig) -> None:
    record = read_record(folder)
    # A random teacher has seen nobody.
    honest = config.folds or config.out_of_fold or config.type == "random"
    record["labels"] = OUT_OF_FOLD if honest else IN_SAMPLE
    if config.folds:
        record["folds"] = {"number": config.folds, "seed": config.seed}
    else:
        shutil.rmtree(folder / "folds", ignore_errors=True)
    write_json(folder / "teacher.json", record)
