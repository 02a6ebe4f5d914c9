"""Evaluation ranks with what is there, reads nothing else, and says what is missing."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.evaluation.candidates import sha256_of
from delrec_hf.evaluation.kept import of_users, users_file
from delrec_hf.evaluation.slices import HISTORY, ITEMS, SEEN, by_kind
from delrec_hf.evaluation.systems import NAMES, SYSTEMS
from delrec_hf.instructions.rows import some_users
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from delrec_hf.teachers.baselines import Popularity
from tests.runs.films import SYSTEMS as MEASURED
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
    taught = [*SIMPLE, "teacher/popularity", "co-occurrence+teacher"]
    assert list(results(prepared_run)["systems"]) == taught
    assert stages_run(recipe(prepared_run), caplog, "evaluate") == []
    assert not (prepared_run / "model").exists()


def test_every_system_has_a_log_loss_from_weights_of_validation_users(prepared_run: Path) -> None:
    run_recipe(recipe(prepared_run, evaluate={"fit_users": 8}), "evaluate")
    found = results(prepared_run)
    assert found["protocol"]["fit_users"] == 8
    for name, system in found["systems"].items():
        low, high = system["ci95"]["log_loss"]
        assert 0 <= low <= system["log_loss"] <= high
        assert list(system["weights"]) == [name]
    run_recipe(recipe(prepared_run, evaluate={"fit_users": 0}), "evaluate")
    assert "log_loss" not in results(prepared_run)["systems"]["popularity"]


def test_what_the_teacher_retrieves_is_reranked_end_to_end(tmp_path: Path) -> None:
    write_films(tmp_path / "films", users=40)
    run = tmp_path / "run"
    wanted = recipe(run, evaluate={"retrieve": 10, "max_users": None})
    for stage in ("prepare", "teach", "evaluate"):
        run_recipe(wanted, stage)
    found = results(run)["retrieved"]
    prepared = PreparedData.load(run / "data")
    test = prepared.examples["test"]
    popular = Popularity.fit(prepared).counts
    gains, held = [], []
    for row, sequence in zip(test, prepared.sequences, strict=True):
        assert row["user_id"] == sequence["user_id"]
        scores = popular.copy()
        scores[sequence["items"][: row["position"]]] = -1
        best = np.argsort(-scores, kind="stable")[:10]
        held.append(row["target"] in best)
        above = (scores[best] > scores[row["target"]]).sum()
        level = (scores[best] == scores[row["target"]]).sum()
        places = np.arange(above + 1, above + level + 1)
        gains.append((1 / np.log2(places + 1)).mean() if held[-1] else 0.0)
    assert 0 < np.mean(held) < 1
    assert found["recall_ceiling"] == pytest.approx(np.mean(held))
    assert found["systems"]["teacher/popularity"]["ndcg@10"] == pytest.approx(np.mean(gains))
    assert found["protocol"]["users"] == len(test)
    assert list(found["systems"]) == list(results(run)["systems"])
    for system in found["systems"].values():
        assert system["hr@10"] == pytest.approx(np.mean(held))  # ten are all that were retrieved
        assert system["hr@1"] <= system["hr@10"]
        assert "log_loss" not in system
    assert len(found["systems"]["co-occurrence+teacher"]["weights"]) == 2
    table, kept = of_users([run], "retrieved")
    assert table["user_id"].to_pylist() == test["user_id"][:]
    assert kept["random"]["hr@10"][0].tolist() == held  # each user's own


def test_nothing_is_retrieved_without_a_teacher_or_beyond_its_list(prepared_run: Path) -> None:
    with pytest.raises(InputError, match=r"`evaluate\.retrieve` needs a finished stage `teach`"):
        run_recipe(recipe(prepared_run, evaluate={"retrieve": 10}), "evaluate")
    run_recipe(recipe(prepared_run), "teach")
    with pytest.raises(InputError, match=r"`evaluate\.retrieve` is 5000, .* set it to \d+ or less"):
        run_recipe(recipe(prepared_run, evaluate={"retrieve": 5000}), "evaluate")
    # One item holds no target of somebody, or of nobody at all.
    few = {"retrieve": 1, "max_users": 2, "fit_users": 0}
    run_recipe(recipe(prepared_run, evaluate=few), "evaluate")
    assert results(prepared_run)["retrieved"]["systems"]["random"]["hr@1"] in (0, 0.5, 1)


def test_the_whole_catalogue_is_ranked_but_for_what_was_seen(tmp_path: Path) -> None:
    write_films(tmp_path / "films", users=40)
    run = tmp_path / "run"
    wanted = recipe(run, evaluate={"whole_catalogue": 15, "max_users": None, "fit_users": 0})
    for stage in ("prepare", "teach", "evaluate"):
        run_recipe(wanted, stage)
    found = results(run)["whole_catalogue"]
    prepared = PreparedData.load(run / "data")
    test = some_users(prepared.examples["test"], 15, 0)
    popular = Popularity.fit(prepared).counts
    sequences = dict(
        zip(prepared.sequences["user_id"][:], prepared.sequences["items"][:], strict=True)
    )
    gains = []
    for row in test:
        scores = popular.copy()
        scores[sequences[row["user_id"]][: row["position"]]] = -1
        above = (scores > popular[row["target"]]).sum()
        level = (scores == popular[row["target"]]).sum()
        places = np.arange(above + 1, above + level + 1)
        gains.append(np.where(places <= 10, 1 / np.log2(places + 1), 0).mean())
    assert found["protocol"] == {"num_candidates": len(prepared.items), "users": 15}
    assert 0 < np.mean(gains) < 1
    assert found["systems"]["teacher/popularity"]["ndcg@10"] == pytest.approx(np.mean(gains))
    assert list(found["systems"]) == [*SIMPLE, "teacher/popularity"]
    assert {"hr@1", "hr@5", "hr@10", "ndcg@5", "mrr"} <= set(found["systems"]["random"])
    lists = found["lists"]["systems"]
    assert (found["lists"]["length"], found["lists"]["users"]) == (10, 15)
    assert list(lists) == list(found["systems"])
    assert lists["popularity"]["popularity"] > lists["random"]["popularity"]
    assert lists["popularity"]["novelty"] < lists["random"]["novelty"]
    assert lists["popularity"]["coverage"] < lists["random"]["coverage"]
    assert lists["popularity"]["gini"] > lists["random"]["gini"]
    with pytest.raises(InputError, match="diversity_column` is `gerne`; the items have item_id"):
        run_recipe(recipe(run, evaluate={"diversity_column": "gerne"}), "evaluate")


def test_users_are_grouped_by_their_history_and_by_what_their_target_is(
    prepared_run: Path,
) -> None:
    asked = {"slice_columns": ["genre", "part"], "max_users": None, "retrieve": 10}
    for stage in ("teach", "evaluate"):
        run_recipe(recipe(prepared_run, evaluate=asked), stage)
    kinds = by_kind(results(prepared_run)["slices"])
    assert list(kinds) == [SEEN, HISTORY, f"{ITEMS}genre", f"{ITEMS}part"]
    prepared = PreparedData.load(prepared_run / "data")
    genres = Counter(prepared.items["genre"][row["target"]] for row in prepared.examples["test"])
    assert {one["group"]: one["users"] for one in kinds[f"{ITEMS}genre"]} == genres
    assert [one["group"] for one in kinds[f"{ITEMS}part"]] == sorted(
        {prepared.items["part"][row["target"]] for row in prepared.examples["test"]}
    )
    # Twelve events each, none twice: the last item comes after some ten others.
    (longest,) = (one for one in kinds[HISTORY] if one["group"] == "10-19")
    lengths = [len(items) - 1 for items in prepared.sequences["items"]]
    assert longest["users"] == sum(one >= 10 for one in lengths) > 0
    (pair,) = {(one["a"], one["b"]) for one in longest["comparisons"]}
    assert pair == ("co-occurrence+teacher", "teacher/popularity")
    logs = prepared_run / "logs"
    assert (logs / users_file("retrieved")).is_file()
    with pytest.raises(InputError, match=r"`evaluate\.slice_columns` is `gerne`; .*`genre`"):
        run_recipe(recipe(prepared_run, evaluate={"slice_columns": ["gerne"]}), "evaluate")
    run_recipe(recipe(prepared_run), "evaluate")
    assert list(by_kind(results(prepared_run)["slices"])) == [SEEN, HISTORY]
    assert not (logs / users_file("retrieved")).exists()  # of what was measured before


def test_language_models_rank_the_whole_catalogue_where_prompts_list_none(
    prepared_run: Path,
) -> None:
    films = prepared_run.parent / "films"
    asked = {"max_users": 3, "fit_users": 0, "whole_catalogue": 2, "permutations": 0}
    listed = sections(films, evaluate=asked, instructions={"candidates": "listed"})
    with pytest.raises(InputError, match="`zero-shot` list their candidates; set `instructions"):
        run_recipe(Recipe(prepared_run, listed), "evaluate")
    given = sections(films, evaluate=asked, instructions={"candidates": "unlisted"})
    run_recipe(Recipe(prepared_run, given), "evaluate")
    found = results(prepared_run)["whole_catalogue"]
    assert list(found["systems"]) == [*SIMPLE, "zero-shot"]
    assert 0 < found["systems"]["zero-shot"]["mrr"] <= 1


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


def test_candidates_of_any_kind_and_size_need_no_other_preparation(
    prepared_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def evaluated(**changes: Any) -> dict[str, Any]:
        asked = {"systems": ["popularity", "teacher"], "fit_users": 6, **changes}
        other = recipe(prepared_run, evaluate=asked)
        assert stages_run(other, caplog, "evaluate") == ["evaluate"]
        return results(prepared_run)

    run_recipe(recipe(prepared_run), "teach")
    drawn = {kind: evaluated(candidates=kind, num_candidates=30) for kind in ("uniform", "teacher")}
    for kind, found in drawn.items():
        said = found["protocol"]["candidates"]
        assert (said["drawn"], found["protocol"]["num_candidates"]) == (kind, 30)
        assert sha256_of(prepared_run / said["file"]) == said["sha256"]
    # A popular teacher's negatives are the hardest for popularity.
    mrr = [found["systems"]["popularity"]["mrr"] for found in drawn.values()]
    assert mrr[0] > mrr[1]
    # What was published is ranked alike by whoever prepared the same data.
    published = prepared_run / said["file"]
    again = evaluated(candidates=str(published))
    assert again["protocol"]["candidates"] == {**said, "drawn": "file", "file": str(published)}
    for name, system in drawn["teacher"]["systems"].items():
        assert without_seconds(again["systems"][name]) == without_seconds(system)
    # Another file under the same name holds other candidates.
    shutil.copy(prepared_run / drawn["uniform"]["protocol"]["candidates"]["file"], published)
    assert evaluated(candidates=str(published))["systems"]["popularity"]["mrr"] == mrr[0]


def test_weights_are_fitted_without_the_test_targets(prepared_run: Path) -> None:
    asked = {"systems": ["popularity"], "fit_users": 8}
    run_recipe(recipe(prepared_run, evaluate=asked), "evaluate")
    before = results(prepared_run)["systems"]
    folder = prepared_run / "data" / "examples" / "test"
    test = Dataset.load_from_disk(str(folder))
    turned = [row["candidates"][row["candidates"][0] == row["target"]] for row in test]
    changed = test.remove_columns("target").add_column("target", turned).cast(test.features)
    shutil.rmtree(folder)
    Dataset(changed.data.table).save_to_disk(str(folder))
    run_recipe(recipe(prepared_run, evaluate={**asked, "permutations": 3}), "evaluate")
    after = results(prepared_run)["systems"]
    assert after["popularity"]["weights"] == before["popularity"]["weights"]
    assert after["popularity"]["mrr"] != before["popularity"]["mrr"]


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
    assert NAMES[-1] == "delrec+teacher"
    for place, one in enumerate(SYSTEMS):
        assert set(one.parts) <= set(NAMES[:place])  # measured before they are fused
        assert (one.load is None) == bool(one.parts)


@pytest.mark.slow
def test_delrec_can_be_evaluated_alone(again: Callable[..., list[str]], tmp_path: Path) -> None:
    ran = again(evaluate={"systems": ["delrec"], "max_users": 10})
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert ran == ["evaluate"]
    assert set(results["systems"]) == {"delrec"}
    assert results["protocol"]["users"] == 10
    assert results["comparisons"] == []
    assert "distillation" not in results


@pytest.mark.slow
def test_every_system_reranks_what_the_teacher_retrieves(
    again: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert again(evaluate={"retrieve": 40}) == ["evaluate"]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    found = results["retrieved"]
    assert set(found["systems"]) == MEASURED
    assert 0 < found["recall_ceiling"] < 1
    for name, system in found["systems"].items():
        assert system["hr@1"] <= system["hr@10"] <= found["recall_ceiling"] + 1e-9
        assert ("weights" in system) == (found["protocol"]["fit_users"] > 0), name
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "End to end: best 40 of the catalogue by teacher/sasrec, reranked" in card


@pytest.mark.slow
def test_evaluation_reads_only_what_it_ranks_with(
    again: Callable[..., list[str]], finished: Path, tmp_path: Path
) -> None:
    again()
    for weights in (tmp_path / "run").rglob("*.safetensors"):
        weights.unlink()
    assert again(evaluate={"systems": ["random", "popularity", "markov"]}) == ["evaluate"]
    found = json.loads((tmp_path / "run" / "results.json").read_text())["systems"]
    before = json.loads((finished / "results.json").read_text())["systems"]
    for name in ("random", "popularity", "markov"):
        # Exact: the same whole numbers and draws go through the same kernels.
        assert without_seconds(found[name]) == without_seconds(before[name])


def without_seconds(system: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in system.items() if name != "seconds"}
