"""Teachers that were trained before: what a folder gives back, and what does not fit the data."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModel

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.teachers.config import NEURAL, TeacherConfig
from delrec_hf.teachers.histories import Histories
from delrec_hf.teachers.learning.training import train_teacher
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import predict
from tests.teachers.weights import assert_same_weights

Configure = Callable[..., TeacherConfig]


@pytest.mark.parametrize("kind", [*NEURAL, "popularity", "markov", "co-occurrence", "random"])
def test_a_teacher_scores_the_same_each_time_it_is_loaded(
    prepared: PreparedData, configure: Configure, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "teacher"
    train_teacher(prepared, configure(type=kind, seed=7), folder)
    row = prepared.examples["test"][0]
    before = Histories.of(prepared).before([row["user_id"]], np.array([row["position"]]))
    ask = ([row["user_id"]], np.array([row["position"]]), before)
    first, second = (load_teacher(folder, prepared).score(*ask) for _ in range(2))
    np.testing.assert_array_equal(first, second)  # one file, laid out alike each time
    assert first.shape == (1, 30)
    record = json.loads((folder / "teacher.json").read_text())
    assert record["type"] == kind
    assert str(tmp_path) not in (folder / "teacher.json").read_text()


def test_a_folder_without_a_teacher_is_refused(prepared: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no teacher\.json"):
        load_teacher(tmp_path, prepared)


def test_a_teacher_of_another_catalogue_is_refused(
    prepared: PreparedData, cycle: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    train_teacher(prepared, configure(type="popularity"), tmp_path / "teacher")
    with pytest.raises(InputError, match="another catalogue"):
        load_teacher(tmp_path / "teacher", cycle)


@pytest.mark.parametrize("kind", NEURAL)
def test_a_teacher_trained_before_is_taken_by_its_path(
    prepared: PreparedData, configure: Configure, tmp_path: Path, kind: str
) -> None:
    train_teacher(prepared, configure(type=kind), tmp_path / "one")
    # What push_to_hub puts up and the Hub gives back: config and weights.
    AutoModel.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "hub")
    config = configure(type=kind, path=str(tmp_path / "hub"), hidden_size=64)
    train_teacher(prepared, config, tmp_path / "two")
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    first, second = (
        predict(load_teacher(tmp_path / name, prepared), prepared, prepared.examples["test"], 5)
        for name in ("one", "two")
    )
    assert first["items"][:] == second["items"][:]
    record = (tmp_path / "two" / "teacher.json").read_text()
    assert json.loads(record)["settings"]["hidden_size"] == 16
    assert str(tmp_path) not in record


def test_a_path_that_holds_no_fitting_teacher_is_refused_in_one_line(
    prepared: PreparedData, cycle: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    train_teacher(prepared, configure(), tmp_path / "teacher")
    path = str(tmp_path / "teacher")
    cases = [
        (prepared, configure(type="caser", path=path), "of type `delrec_sasrec`; expected"),
        (cycle, configure(path=path), "another catalogue"),
        (prepared, configure(path=str(tmp_path / "none")), "holds no teacher"),
        (prepared, configure(path="someone/not-there"), "holds no teacher"),
    ]
    for data, config, message in cases:
        with pytest.raises(InputError, match=message) as refused:
            train_teacher(data, config, tmp_path / "two")
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "two").exists()


def test_a_teacher_of_other_interactions_is_taken_with_a_warning(
    prepared: PreparedData,
    configure: Configure,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    longer = prepared.sequences.map(lambda row: {"train_end": len(row["items"])})
    train_teacher(
        dataclasses.replace(prepared, sequences=longer), configure(), tmp_path / "teacher"
    )
    train_teacher(prepared, configure(path=str(tmp_path / "teacher")), tmp_path / "two")
    assert "may know validation and test items" in caplog.text
