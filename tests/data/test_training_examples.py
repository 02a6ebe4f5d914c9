"""Examples drawn at all training positions: each once a turn, candidates of their own each time."""

from collections import Counter

import numpy as np
import pytest

from delrec_hf.data.config import DataConfig
from delrec_hf.data.prepared import PreparedData, prepare


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    config = DataConfig(path="toy", history_length=4, num_candidates=6, train_prefixes=1)
    return prepare(config, tmp_path_factory.mktemp("toy") / "data")


def positions_of(prepared: PreparedData) -> set[tuple[str, int]]:
    users, ends = prepared.sequences["user_id"][:], prepared.sequences["train_end"][:]
    return {(user, place) for user, end in zip(users, ends, strict=True) for place in range(1, end)}


def test_every_training_position_comes_once_before_one_comes_again(world: PreparedData) -> None:
    everything = positions_of(world)
    number = len(everything) + 100
    rows = world.training_examples(number, seed=1)
    assert len(rows) == number
    keys = list(zip(rows["user_id"][:], rows["position"][:], strict=True))
    assert set(keys[: len(everything)]) == everything
    assert max(Counter(keys).values()) == 2


def test_rows_are_examples_of_their_position(world: PreparedData) -> None:
    items = dict(zip(world.sequences["user_id"], world.sequences["items"], strict=True))
    rows = world.training_examples(500, seed=2)
    assert rows.features == world.examples["train"].features
    for row in rows:
        sequence, place = items[row["user_id"]], row["position"]
        assert row["target"] == sequence[place]
        assert row["history"] == sequence[max(0, place - 4) : place]
        assert row["candidates"].count(row["target"]) == 1
        assert len(set(row["candidates"])) == 6
        assert set(row["candidates"]) & set(sequence) == {row["target"]}


def test_candidates_are_new_each_time(world: PreparedData) -> None:
    whole = len(positions_of(world))
    rows = world.training_examples(2 * whole, seed=3)
    keys = np.array([f"{row['user_id']}/{row['position']}" for row in rows])
    offered = np.array(rows["candidates"][:])
    first, second = (np.argsort(part) for part in (keys[:whole], keys[whole:]))
    same = (offered[:whole][first] == offered[whole:][second]).all(axis=1)
    assert (keys[:whole][first] == keys[whole:][second]).all()
    assert same.mean() < 0.01


def test_windows_show_each_training_item_once(world: PreparedData) -> None:
    some = world.sequences["user_id"][:50]
    rows = world.training_windows(some)
    assert rows.features == world.examples["train"].features
    shown: dict[str, list[int]] = {user: [] for user in some}
    for row in rows.sort(["user_id", "position"]):
        assert 1 <= len(row["history"]) <= 4
        shown[row["user_id"]] += [*row["history"], row["target"]]
    ends = dict(zip(world.sequences["user_id"], world.sequences["train_end"], strict=True))
    for user, items in zip(some, world.sequences["items"], strict=False):
        train = items[: ends[user]]
        assert shown[user] == train[1:] if len(train) % 5 == 1 else shown[user] == train


def test_the_seed_decides_all(world: PreparedData) -> None:
    one, again, other = (world.training_examples(50, seed)[:] for seed in (4, 4, 5))
    assert one == again
    assert one != other
