"""Lists that know the item to come: what is caught, what is warned about, what is no leak."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.teachers.histories import Histories
from delrec_hf.teachers.lists.ranked_lists import RankedLists
from tests.teachers.lists.honest_lists import honest_lists, without

Write = Callable[[pd.DataFrame], Path]


def targets(prepared: PreparedData, *parts: str) -> pd.DataFrame:
    frame = pd.concat([prepared.examples[part].to_pandas() for part in parts])
    frame["item_id"] = [f"i{row}" for row in frame["target"]]
    return frame[["user_id", "position", "item_id"]]


def with_targets(lists: pd.DataFrame, prepared: PreparedData, *parts: str) -> pd.DataFrame:
    """Append each target to its list, where it is not there."""
    added = targets(prepared, *parts).assign(rank=1000)
    keys = ["user_id", "position", "item_id"]
    return pd.concat([lists, added]).drop_duplicates(keys, ignore_index=True)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_targets_added_to_the_lists_are_caught_unless_allowed(
    prepared: PreparedData,
    lists: pd.DataFrame,
    write: Write,
    part: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(with_targets(lists, prepared, part))
    with pytest.raises(InputError, match=f"lists of {part} examples.*allow_leaks: true"):
        RankedLists.read(path, prepared)
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        RankedLists.read(path, prepared, allow_leaks=True)
    assert "allowed by teacher.allow_leaks" in caplog.text


def test_training_targets_in_the_lists_are_a_warning(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    known = targets(prepared, "train").assign(rank=1)
    lists = pd.concat([without(lists, prepared.examples["train"].to_list()), known])
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        RankedLists.read(write(lists), prepared)
    assert "remembers what it was trained on" in caplog.text


def test_held_out_items_in_training_lists_are_caught(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    later = targets(prepared, "validation", "test")
    train = prepared.examples["train"].to_pandas().set_index("user_id")["position"]
    later["position"] = later["user_id"].map(train)
    later["rank"] = np.arange(len(later)) // 40 + 1000
    keys = ["user_id", "position", "item_id"]
    path = write(pd.concat([lists, later]).drop_duplicates(keys))
    with pytest.raises(InputError, match="held-out item in the lists of train examples"):
        RankedLists.read(path, prepared)


def test_lists_of_the_whole_catalogue_are_no_leak(prepared: PreparedData, write: Write) -> None:
    lists = honest_lists(prepared, length=30)
    assert len(RankedLists.read(write(lists), prepared).items) == len(lists)


def test_lists_as_good_as_the_rule_of_the_data_are_no_leak(
    cycle: PreparedData, write: Write
) -> None:
    sequences = Histories.of(cycle)
    frames = [
        part.to_pandas()[["user_id", "position", "target"]].assign(rank=1)
        for part in cycle.examples.values()
    ]
    lists = pd.concat(frames)  # the next item on the ring is always the target
    lists["item_id"] = [f"i{item}" for item in lists["target"]]
    found = RankedLists.read(write(lists.drop(columns="target")), cycle)
    assert len(found.targets) == 3 * len(sequences.users)
