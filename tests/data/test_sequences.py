"""Interactions become sequences, and sequences are split."""

import logging

import numpy as np
import pytest
from datasets import Dataset

from delrec_hf.data.config import DataConfig
from delrec_hf.data.sequences import build_sequences, split_sequences
from delrec_hf.errors import InputError


def sequences_of(rows, num_items=20, num_candidates=2):
    users, items, times = zip(*rows, strict=True)
    interactions = {"user_id": users, "item_id": [str(item) for item in items], "timestamp": times}
    catalogue = {"item_id": [str(item) for item in range(num_items)]}
    events, items = Dataset.from_dict(interactions), Dataset.from_dict(catalogue)
    return build_sequences(events, items, num_candidates)


def by_user(sequences):
    parts = np.split(sequences.items, sequences.starts[1:-1])
    return {user: part.tolist() for user, part in zip(sequences.user_ids, parts, strict=True)}


def test_items_are_in_order_of_time_and_ties_in_order_of_the_file():
    rows = [("a", 9, 5), ("a", 1, 5), ("b", 2, 2), ("a", 4, 1), ("b", 3, 2), ("b", 5, 1)]
    assert by_user(sequences_of(rows)) == {"a": [4, 9, 1], "b": [5, 2, 3]}


def test_moments_number_the_different_times_of_each_user():
    rows = [("a", 1, 5), ("a", 2, 5), ("a", 3, 1), ("b", 1, 5), ("b", 2, 6.5), ("b", 3, 6.5)]
    assert sequences_of(rows).moments().tolist() == [0, 1, 1, 0, 1, 1]


def test_times_that_differ_only_beyond_float_precision_keep_their_order():
    base = 2**53
    rows = [("a", 1, base + 2), ("a", 2, base + 1), ("a", 3, base)]
    assert by_user(sequences_of(rows)) == {"a": [3, 2, 1]}


def test_users_with_short_histories_are_left_out_counted_and_logged(caplog):
    rows = [("a", item, item) for item in range(3)] + [("b", 1, 1), ("b", 2, 2)]
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        sequences = sequences_of(rows)
    assert list(by_user(sequences)) == ["a"]
    assert sequences.left_out == {
        "users_with_short_histories": 1,
        "interactions_of_these_users": 2,
        "users_without_candidates": 0,
        "interactions_without_candidates": 0,
    }
    assert "left out: users with fewer than 3 different items: 1" in caplog.text


def test_a_user_who_has_met_all_but_too_few_items_is_left_out_and_counted(caplog):
    rows = [("all", item, item) for item in range(7)] + [("b", item, item) for item in range(6)]
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        sequences = sequences_of(rows, num_items=10, num_candidates=5)
    assert list(by_user(sequences)) == ["b"]
    assert sequences.left_out["users_without_candidates"] == 1
    assert sequences.left_out["interactions_without_candidates"] == 7
    assert "left out: users who have met too many items to draw candidates for: 1" in caplog.text


def test_data_in_which_every_user_has_met_too_many_items_is_refused_with_what_would_do():
    rows = [(user, item, item) for user in "ab" for item in range(7)]
    with pytest.raises(InputError, match=r"set data.num_candidates to 4 or less"):
        sequences_of(rows, num_items=10, num_candidates=5)
    assert len(sequences_of(rows, num_items=10, num_candidates=4).user_ids) == 2


def test_data_in_which_every_history_is_too_short_is_refused():
    with pytest.raises(InputError, match="none of the 2 users has 3 different items or more"):
        sequences_of([("a", 1, 1), ("a", 2, 1), ("b", 1, 1)])


def targets(split, part):
    return list(zip(*(column.tolist() for column in split.targets[part]), strict=True))


def test_leave_one_out_holds_back_the_last_two_items():
    rows = [("a", item, item) for item in range(8)] + [("b", item, item) for item in range(3)]
    config = DataConfig(path="toy", train_prefixes=3)
    split = split_sequences(sequences_of(rows), config)
    assert split.train_end.tolist() == [6, 1]
    assert targets(split, "validation") == [(0, 6), (1, 1)]
    assert targets(split, "test") == [(0, 7), (1, 2)]
    assert targets(split, "train") == [(0, 3), (0, 4), (0, 5)]


def test_split_by_time_parts_all_users_at_the_same_moments():
    rows = [("a", item, item) for item in range(10)]  # times 0 to 9
    rows += [("b", item, item + 7) for item in range(3)]  # times 7, 8, 9
    rows += [("c", item, item) for item in range(7)]  # times 0 to 6
    config = DataConfig(path="toy", split="time", validation_share=0.1, test_share=0.1)
    sequences = sequences_of(rows)
    split = split_sequences(sequences, config)
    users = np.repeat(np.arange(3), sequences.lengths)
    place = np.arange(len(users)) - sequences.starts[users]
    trained = sequences.timestamps[place < split.train_end[users]]
    held_out = sequences.timestamps[place >= split.train_end[users]]
    assert trained.max() < held_out.min()
    assert split.train_end.tolist() == [8, 1, 7]
    assert targets(split, "validation") == [(0, 8), (1, 1)]
    assert targets(split, "test") == [(0, 9), (1, 2)]


def test_split_by_time_without_anything_in_a_part_is_refused():
    rows = [("a", item, min(item, 1)) for item in range(10)]
    config = DataConfig(path="toy", split="time")
    with pytest.raises(InputError, match=r"leaves no train target; .* validation_share"):
        split_sequences(sequences_of(rows), config)
