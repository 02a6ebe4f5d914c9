"""Lists from elsewhere as a teacher: what they score, how they are kept, and whose are missing."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.teachers.lists.ranked_lists import RankedLists
from delrec_hf.teachers.predictions import predict, score_candidates
from tests.teachers.lists.honest_lists import without

Write = Callable[[pd.DataFrame], Path]


def scores_of(found: RankedLists, user: str, position: int) -> dict[int, float]:
    scores = found.score([user], np.array([position]), [np.array([0])])[0]
    return {int(item): float(scores[item]) for item in np.flatnonzero(np.isfinite(scores))}


def rows_of(lists: pd.DataFrame, user: str, position: int) -> pd.DataFrame:
    return lists[(lists["user_id"] == user) & (lists["position"] == position)]


def test_an_item_scores_minus_its_rank_and_what_is_not_listed_minus_infinity(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    found = RankedLists.read(write(lists), prepared)
    for example in prepared.examples["test"]:
        listed = rows_of(lists, example["user_id"], example["position"])
        expected = {
            int(item[1:]): -rank
            for item, rank in zip(listed["item_id"], listed["rank"], strict=True)
        }
        assert scores_of(found, example["user_id"], example["position"]) == expected


def test_given_scores_are_the_scores(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    lists["score"] = 1 / lists["rank"]
    found = RankedLists.read(write(lists), prepared)
    example = prepared.examples["test"][0]
    scores = scores_of(found, example["user_id"], example["position"])
    assert sorted(scores.values(), reverse=True) == [1 / rank for rank in range(1, len(scores) + 1)]


def test_the_order_of_rows_users_and_requests_changes_nothing(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    straight = RankedLists.read(write(lists), prepared)
    mixed = dataclasses.replace(prepared, sequences=prepared.sequences.shuffle(seed=1))
    crossed = RankedLists.read(write(lists.sample(frac=1, random_state=0)), mixed)
    users, positions = lists["user_id"].tolist(), lists["position"].to_numpy()
    histories = [np.array([0])] * len(users)
    expected = straight.score(users, positions, histories)
    np.testing.assert_array_equal(crossed.score(users, positions, histories), expected)
    backwards = straight.score(users[::-1], positions[::-1], histories)
    np.testing.assert_array_equal(backwards[::-1], expected)


def test_who_has_no_list_gets_no_recommendation(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    found = RankedLists.read(write(lists), prepared)
    for user, position in (("u1", 0), ("u1", 99), ("u1", -1), ("nobody", 3)):
        assert scores_of(found, user, position) == {}
    assert found.score([], np.array([], dtype=np.int64), []).shape == (0, 30)


def test_predictions_are_the_lists(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    teacher = RankedLists.read(write(lists), prepared)
    examples = prepared.examples["test"]
    for row in predict(teacher, prepared, examples, 3):
        listed = rows_of(lists, row["user_id"], row["position"]).sort_values("rank")
        assert [f"i{item}" for item in row["items"]] == listed["item_id"].tolist()[:3]
    assert score_candidates(teacher, prepared, examples).shape == (40, 3)


def test_saved_lists_load_as_they_were(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    lists["score"] = 1 / lists["rank"]
    found = RankedLists.read(write(lists), prepared)
    folder = tmp_path / "teacher"
    folder.mkdir()
    found.save(folder)
    mixed = dataclasses.replace(prepared, sequences=prepared.sequences.shuffle(seed=1))
    users, positions = lists["user_id"].tolist(), lists["position"].to_numpy()
    histories = [np.array([0])] * len(users)
    np.testing.assert_array_equal(
        RankedLists.load(folder, mixed).score(users, positions, histories),
        found.score(users, positions, histories),
    )


def test_lists_of_other_data_do_not_load(
    prepared: PreparedData, cycle: PreparedData, lists: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    RankedLists.read(write(lists), prepared).save(tmp_path)
    with pytest.raises(InputError, match="made for other users or items"):
        RankedLists.load(tmp_path, cycle)
    with pytest.raises(InputError, match=r"holds no lists\.parquet"):
        RankedLists.load(tmp_path / "empty", prepared)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_missing_list_is_an_error_naming_the_user(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, part: str
) -> None:
    example = prepared.examples[part][7]
    message = f"1 of 40 {part} examples, first user `u7` position {example['position']}; score"
    with pytest.raises(InputError, match=message):
        RankedLists.read(write(without(lists, [example])), prepared)


def test_a_list_of_seen_items_alone_is_missing(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    example = prepared.examples["test"][7]
    seen = pd.DataFrame({"item_id": [f"i{row}" for row in example["history"]]})
    seen = seen.assign(user_id="u7", position=example["position"], rank=range(len(seen)))
    path = write(pd.concat([without(lists, [example]), seen]))
    with pytest.raises(InputError, match="1 of 40 test examples, first user `u7`"):
        RankedLists.read(path, prepared)


def test_seen_items_are_left_out_with_a_warning(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    example = prepared.examples["test"][7]
    row = {"user_id": "u7", "position": example["position"], "rank": 0}
    more = pd.concat([lists, pd.DataFrame([row | {"item_id": f"i{example['history'][0]}"}])])
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        found = RankedLists.read(write(more), prepared)
    assert "left out 1 of" in caplog.text
    assert example["history"][0] not in scores_of(found, "u7", example["position"])


def test_training_examples_without_a_list_are_a_warning_and_none_at_all_an_error(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    train = prepared.examples["train"].to_list()
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        RankedLists.read(write(without(lists, train[:10])), prepared)
    assert "no list for 10 of 40 training examples (25.0%)" in caplog.text
    with pytest.raises(InputError, match="40 of 40 train examples"):
        RankedLists.read(write(without(lists, train)), prepared)


def test_more_lists_than_examples_are_fine(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    extra = pd.DataFrame({"user_id": "u7", "position": 0, "item_id": ["i3", "i4"], "rank": [0, 1]})
    found = RankedLists.read(write(pd.concat([lists, extra])), prepared)
    assert scores_of(found, "u7", 0) == {3: 0.0, 4: -1.0}


@pytest.mark.parametrize(("shift", "message"), [(1, "is outside"), (-1, "40 of 40 test")])
def test_positions_that_are_off_by_one_are_caught(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, shift: int, message: str
) -> None:
    lists["position"] += shift
    with pytest.raises(InputError, match=message):
        RankedLists.read(write(lists), prepared)
