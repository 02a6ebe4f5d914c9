"""What the rows of TA, RPS and LSR have in common, and what LSR asks."""

import pytest
from datasets import Dataset

from delrec_hf.errors import InputError
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.lsr import lsr_rows
from delrec_hf.instructions.mapping import ROW_FEATURES
from delrec_hf.instructions.rps import rps_rows
from tests.instructions.world import (
    MOVIE,
    NUM_CANDIDATES,
    SEED,
    SHOWN,
    TITLES,
    by_key,
    question,
    shown_candidates,
    shown_history,
    titled,
)


@pytest.fixture(scope="module", params=["lsr", "rps", "ta"])
def task(request) -> str:
    return request.param


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


def test_unlisted_candidates_stand_in_the_row_and_not_in_the_prompt(world, task, monkeypatch):
    listed_rows = by_key(getattr(world, task)())
    monkeypatch.setattr(world, "shown", InstructionsConfig(candidates="unlisted"))
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
