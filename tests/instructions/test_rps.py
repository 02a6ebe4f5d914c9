"""RPS rows ask for the teacher's choice, and show the truth only where the teacher put it."""

import logging

import pytest
from datasets import Dataset

from delrec_hf.errors import InputError
from delrec_hf.instructions.rps import rps_rows
from tests.instructions.world import (
    MOVIE,
    NUM_CANDIDATES,
    NUM_ITEMS,
    SEED,
    SHOWN,
    TITLES,
    by_key,
    shown_candidates,
    shown_history,
)


def test_rps_asks_for_the_teachers_choice_among_its_top_h(world):
    predicted = by_key(world.predictions)
    for key, row in by_key(world.rps()).items():
        best = [f"i{item}" for item in predicted[key]["items"]]
        assert row["target"] == best[0]
        assert set(best) <= set(row["candidates"])


def test_rps_shows_the_truth_only_where_the_teacher_put_it(world):
    predicted, examples = by_key(world.predictions), by_key(world.examples)
    with_truth = 0
    for key, row in by_key(world.rps()).items():
        truth = examples[key]["target"]
        offered = f"i{truth}" in row["candidates"]
        assert offered == (truth in predicted[key]["items"])
        with_truth += offered
    assert 0 < with_truth < len(world.examples) / 4


def test_rps_fills_up_with_the_examples_negatives(world):
    predicted, examples = by_key(world.predictions), by_key(world.examples)
    for key, row in by_key(world.rps()).items():
        known = {*predicted[key]["items"], *examples[key]["candidates"]}
        assert {int(item[1:]) for item in row["candidates"]} <= known


def test_rps_keeps_its_number_of_candidates_where_the_teacher_names_a_negative(world):
    first_negatives = [
        [item for item in row["candidates"] if item != row["target"]][:1] for row in world.examples
    ]
    named = world.predictions.remove_columns("items").add_column("items", first_negatives)
    examples = by_key(world.examples)
    for key, row in by_key(world.rps(predictions=named)).items():
        assert len(set(row["candidates"])) == NUM_CANDIDATES
        assert f"i{examples[key]['target']}" not in row["candidates"]
        assert not set(shown_history(row)) & set(shown_candidates(row))


def test_rps_puts_the_teachers_choice_in_every_place(world):
    places = {row["candidates"].index(row["target"]) for row in world.rps()}
    assert places == set(range(NUM_CANDIDATES))


def test_rps_leaves_out_and_counts_what_the_teacher_does_not_predict(world, caplog):
    some = world.predictions.select(range(10, len(world.predictions)))
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        rows = world.rps(predictions=some)
    assert by_key(rows).keys() == by_key(some).keys()
    assert f"RPS: 10 of {len(world.examples)} examples left out" in caplog.text


def test_rps_refuses_two_predictions_for_one_example(world):
    twice = Dataset.from_list([*world.predictions, world.predictions[4]])
    with pytest.raises(InputError, match=r"twice.*one row per user_id and position"):
        world.rps(predictions=twice)


def test_rps_refuses_predictions_for_other_users(world):
    others = world.predictions.map(lambda row: {"user_id": f"x{row['user_id']}"})
    with pytest.raises(InputError, match=r"none of the .* examples"):
        world.rps(predictions=others)


def test_rps_goes_without_a_filler_where_the_catalogue_has_none():
    row = {"user_id": "u", "position": 2, "history": [0, 1], "target": 2, "candidates": [2, 3, 4]}
    titles = TITLES[:5]
    rows = rps_rows(
        Dataset.from_list([row]),
        Dataset.from_list([{"user_id": "u", "position": 2, "items": [4]}]),
        Dataset.from_dict({"item_id": list("abcde"), "title": titles}),
        titles,
        MOVIE,
        SHOWN,
        SEED,
    )
    assert sorted(rows[0]["candidates"]) == ["d", "e"]
    assert rows[0]["target"] == "e"


def test_rps_never_offers_an_item_of_the_shown_history(world):
    wrong = world.predictions.map(lambda row: {"items": [*range(NUM_ITEMS)]})
    examples = by_key(world.examples)
    for key, row in by_key(world.rps(predictions=wrong)).items():
        seen = examples[key]["history"]
        assert row["target"] == f"i{min(set(range(NUM_ITEMS)) - set(seen))}"
        assert not set(shown_history(row)) & set(shown_candidates(row))
