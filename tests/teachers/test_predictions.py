"""A teacher's lists against the plain way of making them."""

import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, load_dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.teachers import predictions
from delrec_hf.teachers.baselines import Markov, Popularity
from delrec_hf.teachers.models.sasrec import SASRecConfig, SASRecModel
from delrec_hf.teachers.predictions import (
    FEATURES,
    all_positions,
    predict,
    read_predictions,
    score_batches,
    score_candidates,
    top_items,
    write_predictions,
)
from delrec_hf.teachers.teacher import NeuralTeacher, Teacher
from tests.processes import run_in
from tests.teachers.predicting_processes import predict_everywhere


class Coarse:
    """Five scores for thirty items, -inf and not a number among them: ties wherever one looks."""

    def score(self, user_ids: Any, positions: Any, histories: Any) -> Any:
        values = np.array([-np.inf, np.nan, 0.0, 1.0, 2.0], dtype=np.float32)
        places = zip(user_ids, positions, strict=True)
        seeds = [[zlib.crc32(user.encode()), position] for user, position in places]
        levels = [np.random.default_rng(seed).integers(5, size=30) for seed in seeds]
        return values[np.stack(levels)]


@pytest.fixture(params=["sasrec", "popularity", "markov", "coarse"])
def teacher(request: pytest.FixtureRequest, prepared: PreparedData) -> Teacher:
    if request.param == "coarse":
        return Coarse()
    if request.param == "sasrec":
        torch.manual_seed(0)
        model = SASRecModel(SASRecConfig(num_items=30, max_length=6, hidden_size=16))
        return NeuralTeacher(model, pd.Index([]))
    return {"popularity": Popularity, "markov": Markov}[request.param].fit(prepared)


def brute_force(
    teacher: Teacher,
    prepared: PreparedData,
    user: str,
    position: int,
    top_h: int,
    filter_seen: bool = True,
) -> list[int]:
    sequence = dict(zip(prepared.sequences["user_id"], prepared.sequences["items"], strict=True))
    before = sequence[user][:position]
    scores = teacher.score([user], np.array([position]), [np.array(before)])[0]
    # One row's product may round otherwise than a batch's: to five digits they are the same.
    order = np.argsort(-np.round(scores, 5), kind="stable").tolist()
    out = set(before) if filter_seen else set()
    return [item for item in order if item not in out and scores[item] > -np.inf][:top_h]


def by_user(found: Dataset) -> dict[tuple[str, int], list[int]]:
    return {(row["user_id"], row["position"]): row["items"] for row in found}


@pytest.mark.parametrize("filter_seen", [True, False])
def test_lists_equal_brute_force(
    teacher: Teacher, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch, filter_seen: bool
) -> None:
    monkeypatch.setattr(predictions, "SCORES_AT_ONCE", 30 * 7)  # batches of 7, the last one of 5
    for part in ("train", "validation", "test"):
        found = predict(teacher, prepared, prepared.examples[part], 5, filter_seen=filter_seen)
        expected = [
            brute_force(teacher, prepared, row["user_id"], row["position"], 5, filter_seen)
            for row in found
        ]
        assert found["items"][:] == expected
        assert found["user_id"][:] == prepared.examples[part]["user_id"][:]
        assert found["position"][:] == prepared.examples[part]["position"][:]


def test_lists_are_shorter_where_fewer_items_are_unseen(prepared: PreparedData) -> None:
    teacher = Popularity.fit(prepared)
    for top_h in (30, 1000):
        found = predict(teacher, prepared, prepared.examples["test"], top_h)
        assert [len(items) for items in found["items"]] == [30 - p for p in found["position"]]
        assert all(np.isfinite(np.concatenate(found["scores"][:])))


def test_without_the_filter_seen_items_stay(prepared: PreparedData) -> None:
    teacher = Popularity.fit(prepared)
    found = predict(teacher, prepared, prepared.examples["test"], 30, filter_seen=False)
    assert all(sorted(items) == list(range(30)) for items in found["items"])


def test_shuffling_the_users_changes_no_users_list(
    teacher: Teacher, prepared: PreparedData
) -> None:
    shuffled = dataclasses.replace(prepared, sequences=prepared.sequences.shuffle(seed=1))
    straight = by_user(predict(teacher, prepared, all_positions(prepared), 5))
    crossed = by_user(predict(teacher, shuffled, all_positions(shuffled).shuffle(seed=2), 5))
    assert crossed == straight


CASES = {
    "no ties": lambda generator: generator.normal(size=(50, 40)),
    "some ties": lambda generator: generator.integers(30, size=(50, 40)),
    "few levels": lambda generator: generator.integers(3, size=(50, 40)),
    "one level": lambda generator: np.zeros((50, 40)),
    "one item": lambda generator: generator.normal(size=(50, 1)),
    "no row": lambda generator: np.zeros((0, 40)),
    "two zeros": lambda generator: generator.choice([0.0, -0.0], size=(50, 40)),
    "infinities": lambda generator: generator.choice([-np.inf, 0, 1, np.inf], size=(50, 40)),
    "little left": lambda generator: np.where(np.arange(40) % 13, -np.inf, 1.0) + np.zeros((50, 1)),
    "nothing left": lambda generator: np.full((50, 40), -np.inf),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_top_items_are_the_start_of_a_stable_sort(case: str, dtype: type) -> None:
    for seed in range(5):
        scores = CASES[case](np.random.default_rng(seed)).astype(dtype)
        expected = np.argsort(-scores, axis=1, kind="stable")
        for top_h in (1, 2, 7, 39, 40, 1000):
            np.testing.assert_array_equal(top_items(scores, top_h), expected[:, :top_h])


def test_scores_that_float32_cannot_tell_apart_keep_their_order() -> None:
    scores = np.array([[1.0, 1.0 + 2**-40, 1.0 + 2**-39]])
    assert top_items(scores, 2).tolist() == [[2, 1]]


def test_items_that_are_not_numbers_rank_nowhere() -> None:
    class Broken:
        def score(self, user_ids: Any, positions: Any, histories: Any) -> Any:
            return np.tile([0.0, np.nan, 2.0, -np.inf, 1.0], (len(user_ids), 1))

    data = Dataset.from_dict({"user_id": ["a"], "items": [[0, 2]], "train_end": [1]})
    prepared = PreparedData(
        items=Dataset.from_dict({"item_id": list("abcde")}), sequences=data, examples={}, info={}
    )
    rows = Dataset.from_dict({"user_id": ["a"], "position": [1]})
    assert predict(Broken(), prepared, rows, 4)["items"][:] == [[2, 4]]


def test_a_teachers_own_table_stays_as_it_is(prepared: PreparedData) -> None:
    class Table:
        scores = np.arange(40.0 * 30).reshape(40, 30)

        def score(self, user_ids: Any, positions: Any, histories: Any) -> Any:
            return self.scores

    table = Table()
    table.scores.flags.writeable = False
    first, second = (predict(table, prepared, prepared.examples["test"], 5) for _ in range(2))
    assert first["items"][:] == second["items"][:]
    assert (table.scores == np.arange(40.0 * 30).reshape(40, 30)).all()


def test_candidate_scores_are_the_catalogues_in_the_candidates_order(
    teacher: Teacher, prepared: PreparedData
) -> None:
    examples = prepared.examples["test"].shuffle(seed=3)
    scores = score_candidates(teacher, prepared, examples)
    assert scores.shape == (40, 3)
    sequences = dict(zip(prepared.sequences["user_id"], prepared.sequences["items"], strict=True))
    for row, got in zip(examples, scores, strict=True):
        before = np.array(sequences[row["user_id"]][: row["position"]])
        alone = teacher.score([row["user_id"]], np.array([row["position"]]), [before])[0]
        np.testing.assert_allclose(got, alone[row["candidates"]], atol=1e-5)


def test_a_user_without_a_sequence_is_an_error(teacher: Teacher, prepared: PreparedData) -> None:
    strangers = Dataset.from_dict({"user_id": ["nobody"], "position": [3]})
    with pytest.raises(KeyError, match="nobody"):
        predict(teacher, prepared, strangers, 3)


def test_all_positions_are_those_with_an_item_before(prepared: PreparedData) -> None:
    found = all_positions(prepared)
    assert list(zip(found["user_id"], found["position"], strict=True)) == [
        (row["user_id"], position)
        for row in prepared.sequences
        for position in range(1, len(row["items"]))
    ]


def test_sequences_of_one_item_and_of_none_have_no_position(prepared: PreparedData) -> None:
    rows = {
        "user_id": ["a", "b", "c"],
        "items": [[], [4], [1, 2]],
        "moments": [[], [0], [0, 1]],
        "train_end": [0, 1, 2],
    }
    sequences = Dataset.from_dict(rows, features=prepared.sequences.features)
    found = all_positions(dataclasses.replace(prepared, sequences=sequences))
    assert found[:] == {"user_id": ["c"], "position": [1]}
    nobody = all_positions(dataclasses.replace(prepared, sequences=sequences.select([0, 1])))
    assert len(predict(Coarse(), prepared, nobody, 3)) == 0


def test_what_is_written_is_what_is_predicted(
    teacher: Teacher, prepared: PreparedData, tmp_path: Path
) -> None:
    places = {**prepared.examples, "all": all_positions(prepared)}
    write_predictions(teacher, prepared, places, 5, tmp_path / "lists")
    for part, rows in places.items():
        found = read_predictions(tmp_path / "lists", part)
        assert found.features == FEATURES
        # Scores too: the same batches go through the same kernels.
        assert found[:] == predict(teacher, prepared, rows, 5)[:]
    names = {path.name for path in (tmp_path / "lists").iterdir()}
    assert names == {f"{part}-00000-of-00001.parquet" for part in places}


def test_a_part_can_have_a_teacher_of_its_own(prepared: PreparedData, tmp_path: Path) -> None:
    teacher, other = Popularity.fit(prepared), Markov.fit(prepared)
    instead = {"train": other}
    write_predictions(teacher, prepared, prepared.examples, 5, tmp_path / "lists", instead=instead)
    for part, rows in prepared.examples.items():
        asked = other if part == "train" else teacher
        assert read_predictions(tmp_path / "lists", part)[:] == predict(asked, prepared, rows, 5)[:]


def test_written_lists_load_as_splits_of_a_dataset(prepared: PreparedData, tmp_path: Path) -> None:
    teacher = Popularity.fit(prepared)
    write_predictions(teacher, prepared, prepared.examples, 5, tmp_path / "lists")
    found = load_dataset(str(tmp_path / "lists"), cache_dir=str(tmp_path / "cache"))
    for part, rows in found.items():
        assert rows[:] == read_predictions(tmp_path / "lists", part)[:]
    assert set(found) == {"train", "validation", "test"}


def test_lists_are_written_while_later_ones_are_still_to_come(
    prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(Popularity):
        sizes: list[int] = []  # noqa: RUF012 - one list for the one teacher

        def score(self, user_ids: Any, positions: Any, histories: Any) -> Any:
            (path,) = tmp_path.glob(".lists.*/test-*")
            self.sizes.append(path.stat().st_size)
            return super().score(user_ids, positions, histories)

    monkeypatch.setattr(predictions, "SCORES_AT_ONCE", 30 * 7)
    monkeypatch.setattr(predictions, "BYTES_AT_ONCE", 1)
    places = {"test": prepared.examples["test"]}
    write_predictions(Watched.fit(prepared), prepared, places, 5, tmp_path / "lists")
    assert len(Watched.sizes) == 6
    assert Watched.sizes == sorted(set(Watched.sizes))
    (path,) = (tmp_path / "lists").iterdir()
    assert pq.ParquetFile(path).num_row_groups == 6


def test_small_batches_share_a_group_of_rows(
    prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "SCORES_AT_ONCE", 30 * 7)
    write_predictions(Coarse(), prepared, {"all": all_positions(prepared)}, 5, tmp_path / "lists")
    (path,) = (tmp_path / "lists").iterdir()
    assert pq.ParquetFile(path).num_row_groups == 1


def test_a_part_without_rows_is_a_file_without_rows(prepared: PreparedData, tmp_path: Path) -> None:
    places = {"test": prepared.examples["test"].select([])}
    write_predictions(Coarse(), prepared, places, 5, tmp_path / "lists")
    found = read_predictions(tmp_path / "lists", "test")
    assert len(found) == 0
    assert found.features == FEATURES


def test_a_writing_that_fails_leaves_the_old_lists_whole(
    prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(Popularity):
        def score(self, user_ids: Any, positions: Any, histories: Any) -> Any:
            if "u30" in user_ids:
                raise KeyboardInterrupt
            return super().score(user_ids, positions, histories)

    monkeypatch.setattr(predictions, "SCORES_AT_ONCE", 30 * 7)
    write_predictions(Coarse(), prepared, prepared.examples, 5, tmp_path / "lists")
    before = {path.name: path.read_bytes() for path in (tmp_path / "lists").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write_predictions(Dying.fit(prepared), prepared, prepared.examples, 5, tmp_path / "lists")
    after = {path.name: path.read_bytes() for path in (tmp_path / "lists").iterdir()}
    assert after == before
    assert [path.name for path in tmp_path.iterdir()] == ["lists"]


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 9])
def test_the_processes_shares_are_the_batches_of_one(
    prepared: PreparedData, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(predictions, "SCORES_AT_ONCE", 30 * 7)

    def batches(index: int, number: int) -> list[tuple[list[str], list[int]]]:
        examples, share = prepared.examples["test"], (index, number)
        found = score_batches(Coarse(), prepared, examples, "predict", True, share)
        return [(batch.users.to_pylist(), batch.positions.tolist()) for batch in found]

    shares = [batches(index, processes) for index in range(processes)]
    assert [batch for share in shares for batch in share] == batches(0, 1)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_missing_lists_are_named(prepared: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shard for `test`"):
        read_predictions(tmp_path / "lists", "test")
    write_predictions(Coarse(), prepared, prepared.examples, 5, tmp_path / "lists")
    with pytest.raises(InputError, match="no shard for `all`"):
        read_predictions(tmp_path / "lists", "all")
    whole = tmp_path / "lists" / "test-00000-of-00001.parquet"
    for name in ("test-00001-of-00002.parquet", "test-00000-of-00002.parquet"):
        whole = whole.rename(whole.with_name(name))
        with pytest.raises(InputError, match=f"holds {name} for `test`; expected"):
            read_predictions(tmp_path / "lists", "test")


@pytest.mark.slow
def test_two_processes_write_the_lists_of_one(
    prepared: PreparedData,
    save: Callable[[PreparedData], Path],
    tmp_path: Path,
) -> None:
    data = save(prepared)
    found = {}
    for processes in (1, 2):  # into one folder: what one process wrote must be gone after two
        run_in(processes, predict_everywhere, tmp_path, data)
        assert json.loads((tmp_path / "processes.json").read_text()) == processes
        names = sorted(path.name for path in (tmp_path / "lists").iterdir())
        assert names == sorted(
            f"{part}-{index:05d}-of-{processes:05d}.parquet"
            for part in ("all", "test")
            for index in range(processes)
        )
        found[processes] = {
            part: read_predictions(tmp_path / "lists", part)[:] for part in ("all", "test")
        }
    # Scores too: each process has one thread, the same weights and the batches of one process.
    assert found[1] == found[2]
    assert len(found[1]["all"]["user_id"]) == len(all_positions(prepared))
    shards = sorted((tmp_path / "lists").glob("all-*"))
    assert min(pq.ParquetFile(path).metadata.num_rows for path in shards) > 100
