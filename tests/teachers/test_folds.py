"""Labels from teachers that have not seen their user: who is asked, how they are kept."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from delrec_hf.runs.stages import PARTS, teach
from delrec_hf.teachers.config import NEURAL, TeacherConfig
from delrec_hf.teachers.folds import (
    folds_of,
    labels_are_out_of_fold,
    load_label_teacher,
    train_teachers,
    without_fold,
)
from delrec_hf.teachers.histories import Histories
from delrec_hf.teachers.learning.windows import LengthGroups
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import all_positions, predict, read_predictions
from delrec_hf.teachers.teacher import Teacher
from tests.teachers.prepared_data import prepared_from

Configure = Callable[..., TeacherConfig]
Save = Callable[[PreparedData], Path]

COUNTING = ("popularity", "markov", "co-occurrence")
SMALL: dict[str, Any] = {
    "max_length": 6,
    "hidden_size": 16,
    "num_layers": 1,
    "per_device_train_batch_size": 16,
    "num_train_epochs": 2,
    "warmup_steps": 0,
    "disable_tqdm": True,
}


def users_of(prepared: PreparedData) -> list[str]:
    return list(prepared.sequences["user_id"][:])


def with_other_items(prepared: PreparedData, user: str) -> PreparedData:
    """Give a user other items at all places, and one fewer of them."""
    walks = dict(zip(users_of(prepared), prepared.sequences["items"][:], strict=True))
    walks[user] = [29 - item for item in walks[user][::-1]][1:]
    return prepared_from(walks, 30, at_once=2)


def scores_for(teacher: Teacher, user: str) -> np.ndarray:
    """Ask, as this user, about a history that never changes."""
    return teacher.score([user], np.array([4]), [np.array([3, 1, 4, 15])])


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "teacher.json").read_text())
    return found


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_every_user_is_held_out_once_and_seen_by_all_others(
    prepared: PreparedData, folds: int
) -> None:
    users, held_out = users_of(prepared), []
    for fold in range(folds):
        learned = without_fold(prepared, fold, folds, seed=1)
        held_out += sorted(set(users) - set(users_of(learned)))
        for part in PARTS:
            assert set(learned.examples[part]["user_id"]) == set(users_of(learned))
        assert learned.items["item_id"][:] == prepared.items["item_id"][:]
    assert sorted(held_out) == sorted(users)


def test_a_fold_follows_from_the_user_alone() -> None:
    users = [f"u{number}" for number in range(5000)]
    folds = folds_of(users, 5, seed=42)
    assert folds_of(users[::-1], 5, seed=42).tolist() == folds[::-1].tolist()
    assert [folds_of([user], 5, seed=42)[0] for user in users[:50]] == folds[:50].tolist()
    sizes = np.bincount(folds)
    assert len(sizes) == 5
    assert np.abs(sizes - 1000).max() < 115  # four standard deviations
    other = folds_of(users, 5, seed=43)
    assert 0.15 < (other == folds).mean() < 0.25


@pytest.mark.parametrize("kind", [*COUNTING, *NEURAL])
def test_no_label_is_from_a_teacher_that_has_seen_the_user(
    prepared: PreparedData, configure: Configure, tmp_path: Path, kind: str
) -> None:
    for user in ("u0", "u17") if kind in COUNTING else ("u17",):
        found: dict[str, list[np.ndarray]] = {}
        for name, data in (("as", prepared), ("other", with_other_items(prepared, user))):
            folder = tmp_path / user / name
            settings = {"type": kind, "folds": 2, "output_dir": str(folder / "checkpoints")}
            train_teachers(data, configure(num_train_epochs=1, **settings), folder / "teacher")
            found[name] = [
                scores_for(load(folder / "teacher", data), user)
                for load in (load_label_teacher, load_teacher)
            ]
        # Bit for bit: the same teacher is trained on the same rows, and asked the same.
        np.testing.assert_array_equal(found["as"][0], found["other"][0])
        assert (found["as"][1] != found["other"][1]).any()  # the full one has seen the user


def test_an_unseen_users_row_of_caser_is_anyones(
    prepared: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    train_teachers(prepared, configure(type="caser", folds=3), tmp_path / "teacher")
    teacher = load_label_teacher(tmp_path / "teacher", prepared)
    users, folds = users_of(prepared), folds_of(users_of(prepared), 3, seed=42)
    asked = [user for user, fold in zip(users, folds, strict=True) if fold == 1]
    for user in [*asked, *(f"n{n}" for n in range(20) if folds_of([f"n{n}"], 3, 42)[0] == 1)]:
        np.testing.assert_array_equal(scores_for(teacher, user), scores_for(teacher, asked[0]))


@pytest.mark.parametrize("kind", ["markov", "gru4rec"])
def test_each_row_is_scored_by_the_teacher_of_its_users_fold(
    prepared: PreparedData, configure: Configure, tmp_path: Path, kind: str
) -> None:
    train_teachers(prepared, configure(type=kind, folds=4), tmp_path / "teacher")
    places = all_positions(prepared).shuffle(seed=0)
    users, positions = places["user_id"][:], np.array(places["position"][:])
    histories = Histories.of(prepared).before(users, positions)
    scores = load_label_teacher(tmp_path / "teacher", prepared).score(users, positions, histories)
    assert scores.shape == (len(places), 30)
    folds = folds_of(users, 4, seed=42)
    for fold in range(4):
        learned = without_fold(prepared, fold, 4, seed=42)
        alone = load_teacher(tmp_path / "teacher" / "folds" / f"{fold:05d}", learned)
        rows = np.flatnonzero(folds == fold)
        expected = alone.score(
            [users[row] for row in rows], positions[rows], [histories[row] for row in rows]
        )
        np.testing.assert_array_equal(scores[rows], expected)
        one = rows[0]
        np.testing.assert_allclose(
            alone.score([users[one]], positions[[one]], [histories[one]])[0], scores[one], atol=1e-5
        )


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


def test_a_killed_folds_training_goes_on_and_the_finished_ones_are_kept(
    prepared: PreparedData,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = {"num_train_epochs": 4, "dropout": 0.2, "folds": 3}
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_teachers(prepared, configure(output_dir=str(tmp_path / "a"), **settings), straight)
    config = configure(output_dir=str(tmp_path / "b"), **settings)
    trainings: list[LengthGroups] = []

    def die(self: LengthGroups, epoch: int) -> None:
        if not any(self is one for one in trainings):
            trainings.append(self)
        if len(trainings) == 3 and epoch == 2:  # after the full teacher's and fold 0's
            raise KeyboardInterrupt
        set_epoch(self, epoch)

    set_epoch = LengthGroups.set_epoch
    with monkeypatch.context() as patch:
        patch.setattr(LengthGroups, "set_epoch", die)
        with pytest.raises(KeyboardInterrupt):
            train_teachers(prepared, config, resumed)
    assert [path.name for path in (resumed / "folds").iterdir()] == ["00000"]
    assert not labels_are_out_of_fold(resumed)
    finished = {place: place.stat() for place in resumed.rglob("model.safetensors")}
    assert len(finished) == 2
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        train_teachers(prepared, config, resumed)
    going_on = [text for text in caplog.messages if text.startswith("continues from")]
    assert len(going_on) == 1
    assert "/folds/00001/checkpoint-" in going_on[0]
    for place, before in finished.items():
        assert (place.stat().st_ino, place.stat().st_mtime_ns) == (
            before.st_ino,
            before.st_mtime_ns,
        )
    assert labels_are_out_of_fold(resumed)
    names = sorted(path.relative_to(straight) for path in straight.rglob("model.safetensors"))
    assert len(names) == 4
    for name in names:
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()


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


def test_a_teacher_of_another_fold_is_refused(
    prepared: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    train_teachers(prepared, configure(folds=2), tmp_path / "teacher")
    folds = tmp_path / "teacher" / "folds"
    (folds / "00000").rename(folds / "first")
    with pytest.raises(InputError, match=r"00000 holds no teacher\.json"):
        load_label_teacher(tmp_path / "teacher", prepared)
    (folds / "00001").rename(folds / "00000")
    (folds / "first").rename(folds / "00001")
    with pytest.raises(InputError, match=r"00000 was trained on other users"):
        load_label_teacher(tmp_path / "teacher", prepared)


def test_a_folder_without_a_teacher_has_no_labels(prepared: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no teacher\.json"):
        labels_are_out_of_fold(tmp_path)
    with pytest.raises(InputError, match=r"holds no teacher\.json"):
        load_label_teacher(tmp_path, prepared)


def test_too_few_users_are_refused_in_one_line_before_anything_is_trained(
    prepared: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    def of(*users: int) -> PreparedData:
        sequences = prepared.sequences.select(users)
        return dataclasses.replace(prepared, sequences=sequences)

    cases = [
        (of(0, 1, 2), 4, "and the data holds 3 users"),
        (of(0), 2, "and the data holds 1 users"),
        (of(0, 1, 2, 3, 4, 5), 6, r"leaves fold \d without any of the 6 users"),
    ]
    for kind in ("sasrec", "markov"):
        for data, folds, message in cases:
            with pytest.raises(InputError, match=message) as refused:
                train_teachers(data, configure(type=kind, folds=folds), tmp_path / "teacher")
            assert "\n" not in str(refused.value)
            assert not (tmp_path / "teacher").exists()


def test_users_without_training_windows_outside_a_fold_are_named(
    configure: Configure, tmp_path: Path
) -> None:
    # One has a sequence to learn from, and is held out of his own fold.
    walks = {f"u{user}": [user, user + 1, user + 2] for user in range(9)}
    data = prepared_from({**walks, "u3": range(9)}, 30)
    with pytest.raises(InputError, match=r"without the users of fold \d the data holds 0 training"):
        train_teachers(data, configure(folds=2), tmp_path / "teacher")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "folds is 1; expected 2 or more"),
        ({"folds": -2}, "folds is -2; expected 2 or more"),
        ({"folds": 3, "type": "random"}, "a `random` teacher learns from no user"),
        ({"folds": 3, "type": "ranked_lists", "path": "x"}, "set teacher.out_of_fold: true"),
        ({"folds": 3, "path": "x"}, "taken as it is"),
        ({"out_of_fold": True}, "teacher.type is `sasrec`"),
        ({"out_of_fold": True, "type": "markov"}, "teacher.type is `markov`"),
    ],
)
def test_settings_that_cannot_be_are_named(
    configure: Configure, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        configure(**settings)
    assert "\n" not in str(refused.value)


def test_any_candidates_at_any_position_are_scored(
    taught: Callable[..., Path], prepared: PreparedData
) -> None:
    teacher = load_label_teacher(taught(folds=3), prepared)
    places = all_positions(prepared)
    assert len(places) > 2 * sum(len(prepared.examples[part]) for part in PARTS)
    found = predict(teacher, prepared, places, 30)
    assert [len(items) for items in found["items"]] == [30 - p for p in places["position"]]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(
    prepared: PreparedData,
    save: Save,
    tmp_path: Path,
    launch: Callable[[int, str, list[str]], None],
) -> None:
    data, folds = save(prepared), {**SMALL, "folds": 3, "use_cpu": True}
    teachers = {"counting": {**folds, "type": "co-occurrence"}, "kept": folds}
    for name in (*teachers, "trained"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(data)
    found = {}
    for processes in (1, 2):  # of the neural one, two processes keep what one has trained
        asked = teachers if processes == 1 else {**teachers, "trained": folds}
        launch(processes, "folding_processes.py", [str(tmp_path), json.dumps(asked)])
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
