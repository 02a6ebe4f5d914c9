"""TA rows mask the item before the last one, behind an example from the user's start."""

import logging

import pytest

from delrec_hf.errors import InputError
from tests.instructions.world import (
    HISTORY,
    TITLES,
    by_key,
    listed,
    question,
    shown_history,
)


def test_ta_masks_the_item_before_the_last_one(world):
    examples = by_key(world.examples)
    for (user, position), row in by_key(world.ta()).items():
        walk = world.walks[user]
        start = max(0, position - HISTORY)
        before = [TITLES[item] for item in walk[start : position - 1]]
        assert shown_history(row) == [*before, "[masked]", TITLES[walk[position]]]
        assert row["target"] == f"i{walk[position - 1]}"
        example = examples[user, position]
        kept = {f"i{item}" for item in example["candidates"]} - {f"i{example['target']}"}
        assert set(row["candidates"]) == kept | {row["target"]}


def test_ta_shows_a_worked_example_from_the_start_where_it_ends_before_the_masked_item(world):
    solved = 0
    for (user, position), row in by_key(world.ta()).items():
        text, names = question(row), [TITLES[item] for item in world.walks[user]]
        if position - 1 <= 4:
            assert "Solved example" not in text
            continue
        shown = listed(text, "Solved example, movies this user watched at first:")
        assert shown == [*names[:3], "[masked]", names[4]]
        assert f"The masked movie was: {names[3]}\n" in text
        solved += 1
    assert 0 < solved < len(world.ta())


def test_ta_leaves_out_and_counts_positions_before_the_fourth(world, caplog):
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        rows = world.ta()
    late = [row for row in world.examples if row["position"] >= 3]
    assert by_key(rows).keys() == by_key(late).keys()
    missing = len(world.examples) - len(late)
    assert missing > 0
    assert f"TA: {missing} of {len(world.examples)} examples left out" in caplog.text


def test_ta_refuses_users_without_a_sequence(world):
    with pytest.raises(InputError, match="not in the sequences"):
        world.ta(sequences=world.sequences.select(range(3)))
