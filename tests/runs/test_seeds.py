"""A recipe with seeds: a folder for each, what no seed decides made once, one table of all."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delrec_hf.errors import InputError
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe, load_recipe
from delrec_hf.runs.record import RunRecord
from tests.runs.films import sections, write_films

SEEDS = (3, 5)


def recipe(tmp_path: Path, **changes: dict[str, Any]) -> Recipe:
    """Teachers alone: no backbone."""
    given = sections(tmp_path / "films", **changes)
    kept = {name: given[name] for name in ("data", "teacher", "evaluate")}
    return Recipe(tmp_path / "run", kept, SEEDS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_films(folder / "films", users=20)
    asked = {"retrieve": 10, "whole_catalogue": 5, "slice_columns": ["genre"]}
    for stage in ("prepare", "teach", "evaluate"):
        run_recipe(recipe(folder, evaluate=asked), stage)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A finished run beside its data, of the test's own."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_every_seed_has_its_folder_and_its_teacher(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {"seed-3", "seed-5", "results.json"}
    weights = [(run / f"seed-{seed}/teacher/model.safetensors").read_bytes() for seed in SEEDS]
    assert weights[0] != weights[1]
    for seed in SEEDS:
        settings = RunRecord(run / f"seed-{seed}").stages["teach"]["settings"]
        assert settings["teacher"]["seed"] == seed


def test_the_table_is_the_mean_of_the_seeds(run: Path) -> None:
    found = results(run)
    ones = [results(run / f"seed-{seed}") for seed in SEEDS]
    assert found["protocol"]["seeds"] == list(SEEDS)
    assert found["systems"].keys() == ones[0]["systems"].keys()
    for name, system in found["systems"].items():
        for metric in ("hr@1", "ndcg@10", "log_loss"):
            means = [one["systems"][name][metric] for one in ones]
            assert system[metric] == pytest.approx(np.mean(means))
            assert system["sd"][metric] == pytest.approx(np.std(means, ddof=1), abs=1e-12)
    assert found["systems"]["popularity"]["sd"]["hr@1"] == 0
    assert found["systems"]["teacher/sasrec"]["sd"]["ndcg@10"] > 0


def test_other_candidates_and_groups_are_summarised_over_the_seeds(run: Path) -> None:
    found = results(run)
    ones = [results(run / f"seed-{seed}") for seed in SEEDS]
    for block in ("retrieved", "whole_catalogue"):
        assert found[block].keys() - {"sd"} == ones[0][block].keys()
        for name, system in found[block]["systems"].items():
            means = [one[block]["systems"][name]["ndcg@10"] for one in ones]
            assert system["ndcg@10"] == pytest.approx(np.mean(means))
            assert system["sd"]["ndcg@10"] == pytest.approx(np.std(means, ddof=1), abs=1e-12)
            of_lists = [one[block]["lists"]["systems"][name]["gini"] for one in ones]
            shown = found[block]["lists"]["systems"][name]
            assert shown["gini"] == pytest.approx(np.mean(of_lists))
    assert found["whole_catalogue"]["protocol"] == ones[0]["whole_catalogue"]["protocol"]
    recalls = [one["retrieved"]["recall_ceiling"] for one in ones]
    assert found["retrieved"]["recall_ceiling"] == pytest.approx(np.mean(recalls))
    for place, group in enumerate(found["slices"]):
        alike = [one["slices"][place] for one in ones]
        assert {(one["by"], one["group"], one["users"]) for one in alike} == {
            (group["by"], group["group"], group["users"])
        }
        of_teacher = [one["systems"]["teacher/sasrec"]["hr@1"] for one in alike]
        assert group["systems"]["teacher/sasrec"]["hr@1"] == pytest.approx(np.mean(of_teacher))
    assert "items.genre" in {one["by"] for one in found["slices"]}


def test_what_no_seed_decides_is_made_once(tmp_path: Path, run: Path) -> None:
    shutil.rmtree(tmp_path / "films")  # the second seed's data cannot have been read
    first, second = (RunRecord(run / f"seed-{seed}") for seed in SEEDS)
    assert second.stages["prepare"] == {**first.stages["prepare"], "copied": True}
    assert second.seconds() < first.seconds() + second.stages["prepare"]["seconds"]
    made, copied = (run / f"seed-{seed}/data/sequences/data-00000-of-00001.arrow" for seed in SEEDS)
    assert made.read_bytes() == copied.read_bytes()


def test_a_finished_seed_is_not_run_again(
    tmp_path: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="delrec_hf"):
        run_recipe(recipe(tmp_path), "teach")
    said = [record.getMessage() for record in caplog.records]
    assert said.count("teach: finished before, skipped") == 2


@pytest.mark.parametrize("given", ["[1, 2.5]", "[-1]", "one"])
def test_seeds_that_are_none_are_refused(tmp_path: Path, given: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"output_dir: runs\nseeds: {given}\n")
    with pytest.raises(InputError, match="`seeds` is"):
        load_recipe(path)


def test_a_seed_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    write_films(tmp_path / "films", users=20)
    given = recipe(tmp_path)
    with pytest.raises(InputError, match="each seed once"):
        run_recipe(Recipe(given.output_dir, given.sections, (1, 1)), "prepare")


def test_flags_give_seeds(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("output_dir: runs\n")
    assert load_recipe(path, ["--seeds", "1", "2"]).seeds == (1, 2)
    assert load_recipe(path, ["--seeds", "7"]).seeds == (7,)
    assert load_recipe(path).seeds == ()
