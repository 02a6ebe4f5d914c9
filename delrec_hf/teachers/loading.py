"""Getting a teacher back from a folder or the Hub, and knowing whether it fits the data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.files import read_json
from delrec_hf.hashes import fingerprint
from delrec_hf.logging import get_logger
from delrec_hf.teachers.baselines import CoOccurrence, Markov, Popularity, Random
from delrec_hf.teachers.config import TeacherConfig
from delrec_hf.teachers.histories import Histories, column
from delrec_hf.teachers.lists.ranked_lists import RankedLists
from delrec_hf.teachers.models import caser, gru4rec, sasrec  # noqa: F401 - known to AutoModel then
from delrec_hf.teachers.models.sequential import SequentialConfig, SequentialModel
from delrec_hf.teachers.teacher import NeuralTeacher, Teacher

logger = get_logger(__name__)


def load_teacher(folder: Path, prepared: PreparedData) -> Teacher:
    """Return the teacher that `train_teacher` wrote.

    Args:
        folder: Its folder.
        prepared: The data it was trained on; the simple ones are fitted to it again.

    Raises:
        InputError: If the folder holds no teacher, or one of another catalogue.
    """
    record = read_record(folder)
    if record["catalogue"] != fingerprints(prepared)["catalogue"]:
        raise InputError(_other_catalogue(folder, len(prepared.items)))
    if record["type"] == "random":
        return Random.fit(prepared, **record["settings"])
    if record["type"] == "popularity":
        return Popularity.fit(prepared)
    if record["type"] == "markov":
        return Markov.fit(prepared)
    if record["type"] == "co-occurrence":
        return CoOccurrence.fit(prepared)
    if record["type"] == "ranked_lists":
        return RankedLists.load(folder, prepared)
    users = column(prepared.sequences, "user_id").tolist()
    return load_neural_teacher(folder, column(prepared.items, "item_id").tolist(), users)


def load_neural_teacher(
    folder: Path, item_ids: Sequence[str], user_ids: Sequence[str] = (), device: str | None = None
) -> NeuralTeacher:
    """Return a SASRec, GRU4Rec or Caser without the data that it was trained on.

    Args:
        folder: Its folder.
        item_ids: The catalogue in the teacher's order.
        user_ids: All users in the teacher's order; if they are others, every user is a new one.
        device: Where to compute; by default the GPU if there is one.

    Raises:
        InputError: If the folder holds no neural teacher, or one of another catalogue.
    """
    try:
        with no_file_bars():
            model = AutoModel.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{folder} holds no teacher with weights: {reason}") from error
    if model.config.catalogue != fingerprint(list(item_ids)):
        raise InputError(_other_catalogue(folder, len(item_ids)))
    known = model.config.users == fingerprint(list(user_ids))
    users = pd.Index(list(user_ids)) if known else pd.Index([])
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return NeuralTeacher(model.to(device), users)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what the `teacher.json` of a teacher's folder tells.

    Raises:
        InputError: If the folder holds none.
    """
    path = Path(folder) / "teacher.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no teacher.json; train a teacher with `delrec teach`")
    record: dict[str, Any] = read_json(path)
    return record


def trained_before(prepared: PreparedData, config: TeacherConfig) -> SequentialModel:
    """Load a teacher from a folder or the Hub for this catalogue."""
    try:
        found = AutoConfig.from_pretrained(config.path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"teacher.path {config.path!r} holds no teacher: {reason} Give a folder or Hub id "
            "that a teacher trained here was saved to"
        ) from error
    if found.model_type != f"delrec_{config.type}":
        raise InputError(
            f"teacher.path {config.path!r} holds a model of type `{found.model_type}`; expected "
            f"`delrec_{config.type}`, as teacher.type is `{config.type}`"
        )
    if found.catalogue != fingerprints(prepared)["catalogue"]:
        raise InputError(_other_catalogue(config.path, len(prepared.items)))
    if found.training_items != fingerprints(prepared)["training_items"]:
        logger.warning(
            "the teacher in %s was trained on other interactions than these training items; it "
            "may know validation and test items",
            config.path,
        )
    with no_file_bars():
        model: SequentialModel = AutoModel.from_pretrained(config.path)
    return model


def shape(config: SequentialConfig) -> dict[str, Any]:
    """Return what a record tells of a teacher that was trained before."""
    names = ("max_length", "hidden_size", "num_hidden_layers", "num_attention_heads", "dropout")
    known = {name: getattr(config, name) for name in names if hasattr(config, name)}
    return {"trained": "before", **known}


def _other_catalogue(place: object, num_items: int) -> str:
    return (
        f"the teacher in {place} was trained on another catalogue than these "
        f"{num_items} items; train it again with `delrec teach`"
    )


@contextmanager
def no_file_bars() -> Iterator[None]:
    """Hide the bar that transformers shows for each file; a teacher is one small file."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def fingerprints(prepared: PreparedData) -> dict[str, str]:
    """Return what a teacher's config remembers of its data: see `SequentialConfig`."""
    training = Histories.of(prepared).training()
    return {
        "catalogue": fingerprint(column(prepared.items, "item_id").tolist()),
        "users": fingerprint(column(prepared.sequences, "user_id").tolist()),
        "training_items": fingerprint([part.tolist() for part in training]),
    }
