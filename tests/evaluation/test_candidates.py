"""Candidates drawn for the evaluation alone, and published in files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delrec_hf.data.config import DataConfig
from delrec_hf.data.prepared import PreparedData, prepare
from delrec_hf.errors import InputError
from delrec_hf.evaluation.candidates import (
    Drawing,
    check_as_many,
    read_candidates,
    sha256_of,
    write_candidates,
)
from delrec_hf.evaluation.evaluator import EvaluateConfig
from delrec_hf.evaluation.systems import SYSTEMS
from delrec_hf.teachers.baselines import Popularity
from tests.runs.films import write_films


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("candidates")
    films = write_films(folder / "films", users=80)
    return prepare(DataConfig(path=str(films), num_candidates=10), folder / "data")


def lists(examples: Any) -> np.ndarray:
    return np.array(examples["candidates"][:])


@pytest.mark.parametrize("kind", ["uniform", "popularity", "teacher"])
def test_whatever_is_drawn_holds_the_target_once_and_nothing_that_the_user_met(
    prepared: PreparedData, kind: str
) -> None:
    test = prepared.examples["test"]
    drawing = Drawing(kind, 30, Popularity.fit(prepared))
    drawn = drawing.draw(prepared, test, seed=1)
    met = dict(zip(prepared.sequences["user_id"][:], prepared.sequences["items"][:], strict=True))
    for row in drawn:
        assert len(set(row["candidates"])) == 30
        assert set(row["candidates"]) & set(met[row["user_id"]]) == {row["target"]}
    places = (lists(drawn) == np.array(test["target"][:])[:, None]).argmax(axis=1)
    assert len(set(places.tolist())) > 15  # the target's place tells nothing
    assert (lists(drawing.draw(prepared, test, seed=1)) == lists(drawn)).all()
    assert (lists(drawing.draw(prepared, test, seed=2)) != lists(drawn)).any()
    some = test.select(range(0, len(test), 3))
    assert (lists(drawing.draw(prepared, some, seed=1)) == lists(drawn)[::3]).all()


def test_draws_by_popularity_take_items_as_often_as_they_were_met(prepared: PreparedData) -> None:
    counts = Popularity.fit(prepared).counts
    test = prepared.examples["test"]
    targets = np.array(test["target"][:])[:, None]
    draws = 20
    pairs = [lists(Drawing("popularity", 2).draw(prepared, test, seed)) for seed in range(draws)]
    first = np.concatenate([both[both != targets] for both in pairs])
    # One draw of each user among the items that the user has not met.
    expected = np.zeros(len(counts))
    for items in prepared.sequences["items"][:]:
        chances = counts.copy()
        chances[items] = 0
        expected += chances / chances.sum() * draws
    drawn = np.bincount(first, minlength=len(counts))
    often = expected > 10
    spread = (drawn[often] - expected[often]) / np.sqrt(expected[often])
    assert 0.7 < spread.std() < 1.3
    assert not drawn[counts == 0].any()


def test_the_teachers_best_unmet_items_stand_beside_the_target(prepared: PreparedData) -> None:
    counts, test = Popularity.fit(prepared).counts, prepared.examples["test"]
    drawn = Drawing("teacher", 6, Popularity.fit(prepared)).draw(prepared, test, seed=1)
    met = dict(zip(prepared.sequences["user_id"][:], prepared.sequences["items"][:], strict=True))
    for row in drawn:
        scores = counts.copy()
        scores[met[row["user_id"]]] = -1
        best = np.argsort(-scores, kind="stable")[:5]
        assert set(row["candidates"]) == {row["target"], *best.tolist()}


def test_what_is_stored_is_not_drawn_again(prepared: PreparedData) -> None:
    test = prepared.examples["test"]
    assert Drawing("uniform", 10).draw(prepared, test, prepared.info["seed"]) is test


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("uniform", r"191 items that a user never met.*set evaluate.num_candidates to \d+ or less"),
        ("teacher", r"recommends only \d+ of them to some users; set evaluate.num_candidates"),
    ],
)
def test_more_candidates_than_there_are_are_refused(
    prepared: PreparedData, kind: str, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        Drawing(kind, 192, Popularity.fit(prepared)).draw(prepared, prepared.examples["test"], 1)
    few = np.arange(192) < 15.0
    with pytest.raises(
        InputError, match=r"19 items with a weight that a user never met, .* all but"
    ):
        prepared.with_other_candidates(prepared.examples["test"], 1, 20, few.astype(float))


def test_a_published_file_gives_the_same_candidates_to_the_same_users(
    prepared: PreparedData, tmp_path: Path
) -> None:
    some = {
        part: Drawing("uniform", 25).draw(prepared, prepared.examples[part].select(rows), 3)
        for part, rows in (("validation", range(5, 20)), ("test", range(40)))
    }
    path = tmp_path / "published" / "set.parquet"
    sha256 = write_candidates(path, prepared, some)
    assert sha256 == sha256_of(path)
    found = read_candidates(path, prepared)
    for part, examples in some.items():
        assert found[part].to_list() == examples.to_list()
    assert write_candidates(tmp_path / "again.parquet", prepared, found) == sha256


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ({"target": "i999"}, "1 of 20 targets are not those of this data, the first `i999`"),
        ({"user_id": "nobody"}, "1 of 20 targets are not those of this data"),
        ({"candidates": ["i001"]}, "lists go from 1 to 10 candidates"),
        ({"candidates": ["i999"] * 10}, "hold an item that the data have not, one twice"),
        ({"part": "tset"}, "19 test users"),
    ],
)
def test_a_file_that_does_not_fit_the_data_is_refused(
    prepared: PreparedData, tmp_path: Path, damage: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "set.parquet"
    write_candidates(path, prepared, {"test": prepared.examples["test"].select(range(20))})
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[3] |= damage
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    if "part" in damage:  # rows of other parts are left alone
        assert len(read_candidates(path, prepared)["test"]) == 19
        return
    with pytest.raises(InputError, match=expected):
        read_candidates(path, prepared)


def test_history_among_the_candidates_and_other_files_are_refused(
    prepared: PreparedData, tmp_path: Path
) -> None:
    path = tmp_path / "set.parquet"
    test = prepared.examples["test"].select([0])
    write_candidates(path, prepared, {"test": test})
    rows = pq.read_table(path).to_pylist()
    ids = prepared.items["item_id"][:]
    row = test[0]
    other = next(k for k, one in enumerate(row["candidates"]) if one != row["target"])
    rows[0]["candidates"][other] = ids[row["history"][0]]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
    with pytest.raises(InputError, match="one from the history"):
        read_candidates(path, prepared)
    path.write_text("nothing")
    with pytest.raises(InputError, match="is no file of candidates"):
        read_candidates(path, prepared)
    with pytest.raises(InputError, match="is no file of candidates"):
        read_candidates(tmp_path / "absent.parquet", prepared)


def test_prompts_list_no_more_candidates_than_training_did(prepared: PreparedData) -> None:
    more = Drawing("uniform", 11).draw(prepared, prepared.examples["test"], 1)
    simple = [one for one in SYSTEMS if one.name in ("popularity", "teacher")]
    check_as_many(simple, more, 10)
    with pytest.raises(InputError, match=r"`delrec` list 10 candidates in training, .* has 11"):
        check_as_many([one for one in SYSTEMS if one.name == "delrec"], more, 10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"candidates": "popularty"}, "did you mean `popularity`"),
        ({"num_candidates": 1}, "expected 2 or more"),
        ({"candidates": "set.parquet", "num_candidates": 5}, "leave the latter out"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        EvaluateConfig(**given)
