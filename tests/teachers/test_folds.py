"""Labels from teachers that have not seen their user: who is asked, how they are kept."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.runs.stages import PARTS
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
from delrec_hf.teachers.predictions import all_positions
from delrec_hf.teachers.teacher import Teacher
from tests.teachers.prepared_data import prepared_from

Configure = Callable[..., TeacherConfig]

COUNTING = ("popularity", "markov", "co-occurrence")


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
