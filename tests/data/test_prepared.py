"""The prepared dataset as a whole."""

import hashlib
import json
import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest

from delrec_hf.data.account import LEFT_OUT
from delrec_hf.data.config import DataConfig
from delrec_hf.data.prepared import PreparedData, prepare
from delrec_hf.data.toy_world import TOY_WORLDS, toy_world
from delrec_hf.errors import InputError

KEYS = {"num_candidates": 5, "history_length": 3, "train_prefixes": 2}


@pytest.fixture
def prepared(folder, tmp_path):
    return prepare(DataConfig(path=str(folder), **KEYS), tmp_path / "data")


def rows_by_user(prepared):
    return {
        (row["user_id"], part, row["position"]): row
        for part, rows in prepared.examples.items()
        for row in rows
    }


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_histories_end_where_the_target_begins(prepared):
    sequences = {row["user_id"]: row for row in prepared.sequences}
    assert {part: len(rows) for part, rows in prepared.examples.items()} == {
        "train": 10,
        "validation": 5,
        "test": 5,
    }
    for (user, part, position), row in rows_by_user(prepared).items():
        items, train_end = sequences[user]["items"], sequences[user]["train_end"]
        assert row["target"] == items[position]
        assert row["history"] == items[max(0, position - 3) : position]
        assert (position < train_end) == (part == "train")
        assert len(set(row["candidates"])) == 5
        assert set(row["candidates"]) & set(items) == {row["target"]}


def test_data_of_an_earlier_version_is_refused(prepared, tmp_path):
    prepared.items.save_to_disk(tmp_path / "items")
    prepared.sequences.remove_columns("moments").save_to_disk(tmp_path / "sequences")
    (tmp_path / "info.json").write_text("{}")
    with pytest.raises(InputError, match="no column moments: an earlier version"):
        PreparedData.load(tmp_path)


def test_titles_are_turned_and_ids_and_titles_are_texts(prepared):
    assert prepared.items[7] == {"item_id": "07", "title": "The Number 7"}
    assert {str(one.dtype) for one in prepared.items.features.values()} == {"string"}


def test_info_says_what_is_there_and_what_was_left_out(folder, tmp_path):
    with (folder / "interactions.csv").open("a") as file:
        file.write("u0,00,90\nnew,00,1\nnew,01,2\n")
    with (folder / "items.csv").open("a") as file:
        file.write("zz,Never met\n")
    config = DataConfig(path=str(folder), terms="for tests", **KEYS)
    info = prepare(config, tmp_path / "data").info
    assert info.pop("reading")[:2] == [
        "interactions: 33 rows of shop/interactions.csv: user from `user_id`, item from `item_id`, "
        "time from `timestamp`",
        "items: 13 rows of shop/items.csv: item from `item_id`, title from `title`",
    ]
    assert list(info["left_out"]) == list(LEFT_OUT)
    info["left_out"] = {name: number for name, number in info["left_out"].items() if number}
    assert info == {
        "dataset": "shop",
        "toy_world": None,
        "terms": "for tests",
        "domain": "movie",
        "split": "leave-one-out",
        "history_length": 3,
        "num_candidates": 5,
        "seed": 42,
        "users": 5,
        "items": 13,
        "interactions": 30,
        "examples": {"train": 10, "validation": 5, "test": 5},
        "items_without_interactions": 1,
        "left_out": {
            "repeated_interactions": 1,
            "users_with_short_histories": 1,
            "interactions_of_these_users": 2,
        },
    }


def test_loading_gives_what_was_prepared(prepared, tmp_path):
    loaded = PreparedData.load(tmp_path / "data")
    assert loaded.info == prepared.info
    assert rows_by_user(loaded) == rows_by_user(prepared)
    with pytest.raises(InputError, match="holds no prepared data; run `delrec prepare` first"):
        PreparedData.load(tmp_path)


def test_the_order_of_users_in_the_file_changes_nothing(prepared, folder, tmp_path):
    header, *lines = (folder / "interactions.csv").read_text().splitlines()
    random.Random(0).shuffle(lines)
    (folder / "interactions.csv").write_text("\n".join([header, *lines]))
    again = prepare(DataConfig(path=str(folder), **KEYS), tmp_path / "again")
    assert rows_by_user(again) == rows_by_user(prepared)
    assert again.sequences.to_dict() == prepared.sequences.to_dict()


def test_preparing_twice_writes_the_same_bytes(prepared, folder, tmp_path):
    prepare(DataConfig(path=str(folder), **KEYS), tmp_path / "again")
    first, second = files_of(tmp_path / "data"), files_of(tmp_path / "again")
    assert first == second
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_what_was_on_disk_stays_when_preparing_fails(prepared, folder, tmp_path):
    before = files_of(tmp_path / "data")
    (folder / "items.csv").write_text("item_id,title\n")
    with pytest.raises(InputError, match=r"items.csv holds no rows"):
        prepare(DataConfig(path=str(folder), **KEYS), tmp_path / "data")
    assert files_of(tmp_path / "data") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "shop"]


def test_what_was_on_disk_stays_when_writing_fails(prepared, folder, tmp_path, monkeypatch):
    before = files_of(tmp_path / "data")
    monkeypatch.setattr("delrec_hf.data.prepared.write_json", lambda *_: Path("/no/such").stat())
    with pytest.raises(FileNotFoundError):
        prepare(DataConfig(path=str(folder), seed=1, **KEYS), tmp_path / "data")
    assert files_of(tmp_path / "data") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "shop"]


def test_a_catalogue_smaller_than_the_candidates_is_refused(folder, tmp_path):
    with pytest.raises(
        InputError, match=r"13 candidates need 12 items that a user never met, .* of the 12 items"
    ):
        prepare(DataConfig(path=str(folder), num_candidates=13), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_split_by_time_prepares(folder, tmp_path):
    shares = {"validation_share": 0.2, "test_share": 0.2}
    config = DataConfig(path=str(folder), split="time", **shares, **KEYS)
    prepared = prepare(config, tmp_path / "data")
    assert prepared.info["split"] == "time"
    assert prepared.sequences["train_end"][:] == [3] * 5
    assert prepared.examples["train"]["position"][:] == [1, 2] * 5
    assert prepared.examples["validation"]["position"][:] == [3] * 5
    assert prepared.examples["test"]["position"][:] == [4] * 5


def test_the_examples_of_the_first_toy_world_are_what_they_were(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        prepared = prepare(DataConfig(path="toy"), tmp_path / "data")
    assert prepared.info["dataset"] == "toy"
    assert prepared.items.column_names == ["item_id", "title", "genre", "franchise", "part"]
    assert "prepared toy: 600 users, 192 items" in caplog.text
    rows = [prepared.examples[part].to_list() for part in ("train", "validation", "test")]
    found = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert found == "dab180d76244bb33d2db1863047112f7c8695fe19340f74e0615ae0b4268494d"


@pytest.mark.parametrize("name", TOY_WORLDS)
def test_a_toy_world_knows_each_candidates_chance(name, tmp_path):
    prepared = prepare(DataConfig(path=name, name="films", num_candidates=10), tmp_path / "data")
    sequences = dict(zip(prepared.sequences["user_id"], prepared.sequences["items"], strict=True))
    test = prepared.examples["test"]
    other = prepared.with_other_candidates(test, 5).shuffle(seed=1).select(range(50))
    for examples in (test, prepared.examples["validation"], other):
        last_two = [
            sequences[row["user_id"]][row["position"] - 2 : row["position"]] for row in examples
        ]
        expected = toy_world(name).chances(np.array(last_two), np.array(examples["candidates"][:]))
        np.testing.assert_array_equal(prepared.chances(examples), expected)
    assert 0.4 < prepared.chances(test).max(axis=1).mean() < 0.7


def test_a_toy_users_second_item_is_any(tmp_path):
    prepared = prepare(DataConfig(path="toy-hidden"), tmp_path / "data")
    train = prepared.examples["train"]
    second = np.array(train["position"]) == 1
    chances = prepared.chances(train)
    assert second.any()
    assert (chances[second] == 1 / 20).all()
    assert (chances[~second].max(axis=1) > 1 / 20).all()


def test_chances_are_known_of_toy_worlds_alone(folder, tmp_path):
    prepared = prepare(DataConfig(path=str(folder), **KEYS), tmp_path / "data")
    assert prepared.chances(prepared.examples["test"]) is None


def test_movielens_100k_prepares(tmp_path):
    root = os.environ.get("DELREC_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")
    source = Path(root) / "ml-100k"
    if not source.is_dir():
        pytest.skip("MovieLens-100K is not here; set DELREC_DATA to the folder that holds ml-100k")
    prepared = prepare(DataConfig(path=str(source)), tmp_path / "data")
    assert [prepared.info[key] for key in ("users", "items", "interactions")] == [943, 1682, 100000]
    titles = prepared.items["title"][:]
    assert len(set(titles)) == len(titles)
    assert "The Shawshank Redemption (1994)" in titles
    candidates = np.array(prepared.examples["test"]["candidates"][:])
    assert candidates.shape == (943, 20)
