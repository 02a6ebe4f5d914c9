"""The stage `teach` with folds: who says what, and what is left of an earlier choice."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from delrec_hf.runs.stages import PARTS, teach
from delrec_hf.teachers.folds import labels_are_out_of_fold, load_label_teacher
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import all_positions, predict, read_predictions
from tests.processes import run_in
from tests.teachers.folding_processes import teach_with_folds

Save = Callable[[PreparedData], Path]

SMALL: dict[str, Any] = {
    "max_length": 6,
    "hidden_size": 16,
    "num_layers": 1,
    "per_device_train_batch_size": 16,
    "num_train_epochs": 2,
    "warmup_steps": 0,
    "disable_tqdm": True,
}


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "teacher.json").read_text())
    return found


@pytest.fixture
def taught(
    prepared: PreparedData, save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[..., Path]:
    """A function that runs the stage on a teacher of given settings and returns its folder."""
    save(prepared)

    def run(**settings: Any) -> Path:
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="delrec_hf"):
            teach(Run(Recipe(tmp_path, {"teacher": {**SMALL, **settings}})))
        return tmp_path / "teacher"

    return run


@pytest.mark.parametrize("kind", ["co-occurrence", "sasrec"])
def test_training_examples_are_predicted_out_of_fold_and_the_others_by_the_full_teacher(
    taught: Callable[..., Path], prepared: PreparedData, kind: str
) -> None:
    folder = taught(type=kind, folds=3, top_h=5)
    full, folded = load_teacher(folder, prepared), load_label_teacher(folder, prepared)
    for part in PARTS:
        found = read_predictions(folder / "predictions", part)
        by = {
            one: predict(teacher, prepared, prepared.examples[part], 5)
            for one, teacher in (("full", full), ("folded", folded))
        }
        assert found[:] == by["folded" if part == "train" else "full"][:]
        assert by["full"][:] != by["folded"][:]


def test_any_candidates_at_any_position_are_scored(
    taught: Callable[..., Path], prepared: PreparedData
) -> None:
    teacher = load_label_teacher(taught(folds=3), prepared)
    places = all_positions(prepared)
    assert len(places) > 2 * sum(len(prepared.examples[part]) for part in PARTS)
    found = predict(teacher, prepared, places, 30)
    assert [len(items) for items in found["items"]] == [30 - p for p in places["position"]]


def test_fewer_folds_or_none_leave_no_teacher_of_the_old_ones(
    taught: Callable[..., Path], prepared: PreparedData
) -> None:
    folder = taught(folds=4)
    full = (folder / "model.safetensors").stat()
    assert record_of(folder)["folds"] == {"number": 4, "seed": 42}
    taught(folds=2)
    assert sorted(path.name for path in (folder / "folds").iterdir()) == ["00000", "00001"]
    assert record_of(folder)["folds"] == {"number": 2, "seed": 42}
    load_label_teacher(folder, prepared)
    taught()
    assert not (folder / "folds").exists()
    assert "folds" not in record_of(folder)
    assert not labels_are_out_of_fold(folder)
    kept = (folder / "model.safetensors").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (full.st_ino, full.st_mtime_ns)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(
    prepared: PreparedData,
    save: Save,
    tmp_path: Path,
) -> None:
    data, folds = save(prepared), {**SMALL, "folds": 3, "use_cpu": True}
    teachers = {"counting": {**folds, "type": "co-occurrence"}, "kept": folds}
    for name in (*teachers, "trained"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(data)
    found = {}
    for processes in (1, 2):  # of the neural one, two processes keep what one has trained
        asked = teachers if processes == 1 else {**teachers, "trained": folds}
        run_in(processes, teach_with_folds, tmp_path, asked)
        assert json.loads((tmp_path / "processes.json").read_text()) == processes
        found[processes] = {
            name: (
                record_of(tmp_path / name / "teacher"),
                *(read_predictions(tmp_path / name / "teacher/predictions", p)[:] for p in PARTS),
            )
            for name in teachers
        }
    assert found[1] == found[2]
    folder = tmp_path / "trained" / "teacher"
    assert labels_are_out_of_fold(folder)
    teacher = load_label_teacher(folder, prepared)
    alone = predict(teacher, prepared, prepared.examples["train"], 10)
    assert read_predictions(folder / "predictions", "train")["items"][:] == alone["items"][:]


def test_lists_say_themselves_whether_they_are_out_of_fold(
    taught: Callable[..., Path], prepared: PreparedData, tmp_path: Path
) -> None:
    def write(target_first: bool) -> str:
        rows = [
            (row["user_id"], row["position"], f"i{item}", rank)
            for part in PARTS
            for row in prepared.examples[part]
            for rank, item in enumerate(listed(row, part == "train" and target_first))
        ]
        names = ("user_id", "position", "item_id", "rank")
        table = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        Dataset.from_dict(table).to_csv(str(tmp_path / "lists.csv"))
        return str(tmp_path / "lists.csv")

    def listed(row: dict[str, Any], target_first: bool) -> list[int]:
        others = [item for item in row["candidates"] if item != row["target"]]
        return [row["target"], *others] if target_first else others

    given = {"type": "ranked_lists", "path": write(target_first=False)}
    assert not labels_are_out_of_fold(taught(**given))
    assert labels_are_out_of_fold(taught(**given, out_of_fold=True))
    given["path"] = write(target_first=True)
    assert not labels_are_out_of_fold(taught(**given))
    with pytest.raises(InputError, match="knows the item to come in the lists of train examples"):
        taught(**given, out_of_fold=True)


def test_a_random_teacher_has_seen_nobody(taught: Callable[..., Path]) -> None:
    assert labels_are_out_of_fold(taught(type="random"))
