"""Evaluation ranks with what is there, and says what is not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.evaluation.systems import NAMES, SYSTEMS
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from tests.runs.films import sections, stages_run, write_films

SIMPLE = ["random", "popularity", "markov", "co-occurrence"]


@pytest.fixture
def prepared_run(tmp_path: Path) -> Path:
    """The folder of a run whose data are prepared, beside the data."""
    films = write_films(tmp_path / "films", users=12)
    run_recipe(Recipe(tmp_path / "run", sections(films)), "prepare")
    return tmp_path / "run"


def recipe(run: Path, **changes: dict[str, Any]) -> Recipe:
    """The recipe of a popular teacher and no backbone."""
    given = sections(run.parent / "films", teacher={"type": "popularity"}, **changes)
    kept = {"data": given["data"], "teacher": {"type": "popularity"}}
    return Recipe(run, {**kept, "evaluate": given["evaluate"]})


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def test_baselines_and_teacher_are_ranked_before_the_later_stages_ran(
    prepared_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert stages_run(recipe(prepared_run), caplog, "evaluate") == ["evaluate"]
    assert list(results(prepared_run)["systems"]) == SIMPLE
    assert any("without teacher, which needs a finished stage" in one for one in caplog.messages)
    assert any("without zero-shot, which needs `backbone." in one for one in caplog.messages)
    run_recipe(recipe(prepared_run), "teach")
    assert stages_run(recipe(prepared_run), caplog, "evaluate") == ["evaluate"]
    assert list(results(prepared_run)["systems"]) == [*SIMPLE, "teacher/popularity"]
    assert stages_run(recipe(prepared_run), caplog, "evaluate") == []
    assert not (prepared_run / "model").exists()


def test_a_recipe_with_a_backbone_is_ranked_without_training(prepared_run: Path) -> None:
    given = sections(prepared_run.parent / "films", evaluate={"max_users": 3})
    run_recipe(Recipe(prepared_run, given), "evaluate")
    assert list(results(prepared_run)["systems"]) == [*SIMPLE, "zero-shot"]


def test_a_named_system_that_cannot_rank_is_refused(prepared_run: Path) -> None:
    wanted = recipe(prepared_run, evaluate={"systems": ["random", "teacher"]})
    with pytest.raises(InputError, match="`teacher`, which needs a finished stage `teach`"):
        run_recipe(wanted, "evaluate")
    assert not (prepared_run / "results.json").exists()


def test_evaluation_needs_prepared_data(tmp_path: Path) -> None:
    write_films(tmp_path / "films", users=12)
    with pytest.raises(InputError, match="run `delrec prepare` first"):
        run_recipe(recipe(tmp_path / "run"), "evaluate")


def test_other_test_candidates_repeat_the_evaluation_alone(
    prepared_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_recipe(recipe(prepared_run), "evaluate")
    before = results(prepared_run)
    other = recipe(prepared_run, evaluate={"candidates_seed": 7})
    assert stages_run(other, caplog, "evaluate") == ["evaluate"]
    after = results(prepared_run)
    assert after["protocol"]["candidates_seed"] == 7
    assert after["systems"]["popularity"]["mrr"] != before["systems"]["popularity"]["mrr"]


def test_the_toy_worlds_rule_gives_expected_hr_at_1_on_whatever_is_ranked(tmp_path: Path) -> None:
    data = {"path": "toy-hidden", "num_candidates": 10}
    given = {"data": data, "teacher": {"type": "popularity"}}
    for changes in ({}, {"candidates_seed": 7, "max_users": 200}):
        toy = Recipe(tmp_path, {**given, "evaluate": changes})
        if not changes:
            run_recipe(toy, "prepare")
        run_recipe(toy, "evaluate")
        found = results(tmp_path)
        limit = found["protocol"]["best_hr_at_1"]
        for system in found["systems"].values():
            low, high = system["ci95"]["expected_hr@1"]
            assert low < system["expected_hr@1"] < high < limit + 0.05
            assert high - low < system["ci95"]["hr@1"][1] - system["ci95"]["hr@1"][0]
        assert abs(found["systems"]["random"]["expected_hr@1"] - 0.1) < 0.03


def test_other_data_have_no_expected_hr_at_1(prepared_run: Path) -> None:
    run_recipe(recipe(prepared_run), "evaluate")
    found = results(prepared_run)
    assert "best_hr_at_1" not in found["protocol"]
    assert "expected_hr@1" not in found["systems"]["random"]


def test_candidates_of_the_same_seed_are_those_that_are_stored(prepared_run: Path) -> None:
    prepared = PreparedData.load(prepared_run / "data")
    for examples in prepared.examples.values():
        again = prepared.with_other_candidates(examples, prepared.info["seed"])
        assert again.to_list() == examples.to_list()
        other = prepared.with_other_candidates(examples, prepared.info["seed"] + 1)
        for row, stored in zip(other, examples, strict=True):
            assert row["candidates"].count(row["target"]) == 1
            assert len(set(row["candidates"])) == len(stored["candidates"])
        assert other["candidates"][:] != examples["candidates"][:]
        some = examples.select(np.arange(0, len(examples), 2))
        assert (
            prepared.with_other_candidates(some, 5)["candidates"][:]
            == (prepared.with_other_candidates(examples, 5)["candidates"][::2])
        )


def test_each_system_has_one_name_and_stands_in_one_list() -> None:
    assert len(set(NAMES)) == len(SYSTEMS)
    assert NAMES[-1] == "delrec"
