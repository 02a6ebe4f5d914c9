"""What TA, RPS and LSR rows show, ask and want to hear."""

import logging

import numpy as np
import pytest
from datasets import Dataset, disable_progress_bars

from delrec_hf.errors import InputError
from delrec_hf.instructions.builders import ROW_FEATURES, lsr_rows, rps_rows, ta_rows
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.templates import DOMAINS

MOVIE, NUM_ITEMS, NUM_CANDIDATES, HISTORY, TOP_H, SEED = DOMAINS["movie"], 80, 8, 5, 4, 3
SHOWN = InstructionsConfig(candidates="listed")
TITLES = [f"Film {row} ({1900 + row})" for row in range(NUM_ITEMS)]

disable_progress_bars()


class World:
    """Users with sequences of 3 to 14 items, three examples each, and a teacher's top-h."""

    def __init__(self, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.items = Dataset.from_dict(
            {"item_id": [f"i{row}" for row in range(NUM_ITEMS)], "title": TITLES}
        )
        self.walks = {
            f"u{user}": generator.permutation(NUM_ITEMS)[: generator.integers(3, 15)].tolist()
            for user in range(40)
        }
        self.sequences = Dataset.from_dict(
            {"user_id": list(self.walks), "items": list(self.walks.values())}
        )
        rows, predicted = [], []
        for user, walk in self.walks.items():
            unseen = [item for item in range(NUM_ITEMS) if item not in walk]
            for position in range(max(1, len(walk) - 3), len(walk)):
                target = walk[position]
                negatives = generator.choice(unseen, NUM_CANDIDATES - 1, replace=False).tolist()
                candidates = generator.permutation([target, *negatives]).tolist()
                history = walk[max(0, position - HISTORY) : position]
                row = {"user_id": user, "position": position, "history": history}
                rows.append({**row, "target": target, "candidates": candidates})
                rest = [item for item in range(NUM_ITEMS) if item not in walk[:position]]
                best = generator.choice(rest, TOP_H, replace=False).tolist()
                predicted.append({"user_id": user, "position": position, "items": best})
        self.examples = Dataset.from_list(rows)
        self.predictions = Dataset.from_list(predicted)

    def lsr(self, **changed):
        given = {"examples": self.examples, **changed}
        return lsr_rows(given["examples"], self.items, TITLES, MOVIE, SHOWN)

    def rps(self, **changed):
        given = {"examples": self.examples, "predictions": self.predictions, **changed}
        return rps_rows(
            given["examples"],
            given["predictions"],
            self.items,
            TITLES,
            MOVIE,
            SHOWN,
            SEED,
        )

    def ta(self, **changed):
        given = {"examples": self.examples, "sequences": self.sequences, **changed}
        return ta_rows(
            given["examples"],
            given["sequences"],
            self.items,
            TITLES,
            MOVIE,
            SHOWN,
            SEED,
        )


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module", params=["lsr", "rps", "ta"])
def task(request) -> str:
    return request.param


def by_key(rows):
    return {(row["user_id"], row["position"]): row for row in rows}


def question(row):
    return row["prompt"][0]["content"]


def listed(text, heading):
    """The titles of the last list below a heading."""
    lines = text[text.rindex(heading) :].splitlines()[1:]
    end = next(n for n, line in enumerate(lines) if not line.startswith("- "))
    return [line.removeprefix("- ") for line in lines[:end]]


def shown_history(row):
    return listed(question(row), "Movies this user watched, oldest first:")


def shown_candidates(row):
    return listed(question(row), "Candidates:")


def titled(ids):
    return [TITLES[int(item.removeprefix("i"))] for item in ids]


def test_rows_are_conversational_prompts_and_completions(world, task):
    rows = getattr(world, task)()
    assert rows.features == ROW_FEATURES
    assert set(rows["task"]) == {task}
    for row in rows:
        assert [turn["role"] for turn in row["prompt"]] == ["user"]
        assert row["completion"] == [{"role": "assistant", "content": titled([row["target"]])[0]}]


def test_candidates_hold_the_target_once_and_nothing_twice(world, task):
    for row in getattr(world, task)():
        assert len(set(row["candidates"])) == len(row["candidates"]) == NUM_CANDIDATES
        assert row["candidates"].count(row["target"]) == 1
        assert shown_candidates(row) == titled(row["candidates"])


def test_no_candidate_is_shown_as_history(world, task):
    for row in getattr(world, task)():
        assert not set(shown_history(row)) & set(shown_candidates(row))


def test_the_answer_stands_nowhere_but_among_the_candidates(world, task):
    for row in getattr(world, task)():
        answer = f"- {row['completion'][0]['content']}"
        solved, _, asked = question(row).rpartition("Movies this user watched, oldest first:")
        assert asked.splitlines().count(answer) == 1
        if task != "ta":
            assert solved == ""


def test_the_order_of_users_and_of_tables_changes_no_row(world, task):
    shuffled = {
        "examples": world.examples.shuffle(seed=1),
        "predictions": world.predictions.shuffle(seed=2),
        "sequences": world.sequences.shuffle(seed=3),
    }
    rows, again = getattr(world, task)(), getattr(world, task)(**shuffled)
    assert list(rows["user_id"]) != list(again["user_id"])
    assert by_key(rows) == by_key(again)


def test_a_row_depends_on_its_own_example_alone(world, task):
    few = world.examples.select(range(7, 20))
    rows, all_rows = by_key(getattr(world, task)(examples=few)), by_key(getattr(world, task)())
    assert rows
    assert rows == {key: all_rows[key] for key in rows}


def test_lsr_asks_for_the_true_next_item_as_the_example_has_it(world):
    for row, example in zip(world.lsr(), world.examples, strict=True):
        assert shown_history(row) == [TITLES[item] for item in example["history"]]
        assert row["candidates"] == [f"i{item}" for item in example["candidates"]]
        assert row["target"] == f"i{world.walks[row['user_id']][row['position']]}"


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


def test_titles_of_another_catalogue_are_refused(world):
    with pytest.raises(InputError, match="one title per item"):
        lsr_rows(world.examples, world.items, TITLES[:-1], MOVIE, SHOWN)


def test_two_processes_make_the_rows_of_one(world):
    one = world.rps()
    two = rps_rows(
        world.examples,
        world.predictions,
        world.items,
        TITLES,
        MOVIE,
        SHOWN,
        SEED,
        num_proc=2,
    )
    assert two[:] == one[:]


def test_the_same_inputs_come_from_the_cache(world, task, tmp_path):
    world.examples.save_to_disk(tmp_path / "examples")
    stored = Dataset.load_from_disk(tmp_path / "examples")
    rows = [getattr(world, task)(examples=stored) for _ in range(2)]
    assert rows[0]._fingerprint == rows[1]._fingerprint
    assert rows[0].cache_files == rows[1].cache_files != []


def test_no_row_is_left_beside_the_examples(world, task, tmp_path):
    world.examples.save_to_disk(tmp_path / "examples")
    before = sorted(tmp_path.rglob("*"))
    stored = Dataset.load_from_disk(tmp_path / "examples")
    rows = getattr(world, task)(examples=stored.select([*range(0, len(stored), 2)]))
    assert len(rows.map(lambda row: {"characters": len(question(row))})) == len(rows) > 0
    assert sorted(tmp_path.rglob("*")) == before


def test_no_example_at_all_gives_no_row(world, task):
    assert len(getattr(world, task)(examples=world.examples.select([]))) == 0


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


def test_unlisted_candidates_stand_in_the_row_and_not_in_the_prompt(world, task, monkeypatch):
    listed_rows = by_key(getattr(world, task)())
    monkeypatch.setitem(globals(), "SHOWN", InstructionsConfig(candidates="unlisted"))
    rows = by_key(getattr(world, task)())
    assert rows.keys() == listed_rows.keys()
    for key, row in rows.items():
        other = listed_rows[key]
        assert row["candidates"] == other["candidates"]
        assert row["target"] == other["target"]
        assert "andidate" not in question(row)
        names = set(question(row).splitlines())
        for item in row["candidates"]:
            if f"- {TITLES[int(item[1:])]}" in names:  # TA shows what came after, and an example
                assert task == "ta"
        assert question(row).endswith("Answer with its title only.")
        assert len(question(row)) < len(question(other))
