"""The command `delrec audit`, on recipes, runs and bare files."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from benchmarks.audit.worlds import FAULTS, clean_world
from delrec_hf.cli import main
from delrec_hf.data.prepared import PreparedData
from delrec_hf.instructions.audit import shown_in_prompts
from tests.runs.films import write_recipe

KEYS = {"code", "severity", "value", "expected", "explanation"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of interactions and items whose histories are sorted by id."""
    folder = tmp_path_factory.mktemp("sorted")
    made = FAULTS["sorted-by-id"](
        clean_world(6, users=200, items=120), 1.0, np.random.default_rng(0)
    )
    made.events.to_csv(folder / "interactions.csv", index=False)
    made.items.to_csv(folder / "items.csv", index=False)
    return folder


def findings(printed: str) -> list[dict[str, Any]]:
    told = json.loads(printed)
    assert set(told) == {"findings"}
    for one in told["findings"]:
        assert set(one) == KEYS
        assert one["severity"] in ("info", "warning", "error")
        assert isinstance(one["value"], float)
        assert isinstance(one["expected"], float)
        assert "\n" not in one["explanation"]
    return list(told["findings"])


def test_bare_files_are_audited_and_nothing_is_written(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(world.rglob("*"))
    files = ["--interactions", str(world / "interactions.csv"), "--items", str(world / "items.csv")]
    assert main(["audit", *files, "--json"]) == 0
    found = {one["code"]: one["severity"] for one in findings(capsys.readouterr().out)}
    assert found["sorted-by-id"] == "error"
    assert found["trivial-baseline"] == "info"
    assert main(["audit", *files, "--fail_on", "error"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("error    sorted-by-id")
    assert "checked and found clean: sorted-by-title" in told
    assert sorted(world.rglob("*")) == before


def test_prepare_warns_and_the_audit_of_the_run_sees_its_stages(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    recipe = write_recipe(
        tmp_path, run, {"data": {"path": str(world)}, "teacher": {"type": "markov"}}
    )
    assert main(["prepare", "--config", str(recipe)]) == 0
    assert "WARNING audit: error: sorted-by-id: 1 where 0.5 is expected" in capsys.readouterr().err
    by_prepare = json.loads((run / "audit.json").read_text())
    assert main(["teach", "--config", str(recipe)]) == 0
    capsys.readouterr()
    assert main(["audit", "--config", str(recipe), "--json"]) == 0
    printed = capsys.readouterr().out
    assert findings(printed) == by_prepare["findings"]
    assert json.loads(printed) == json.loads((run / "audit.json").read_text())
    predictions = run / "teacher" / "predictions"
    known = PreparedData.load(run / "data").examples["test"]
    lists = [[one] for one in known["target"][:]]
    knowing = Dataset.from_dict(
        {"user_id": known["user_id"][:], "position": known["position"][:], "items": lists}
    )
    knowing.to_parquet(str(predictions / "test-00000-of-00001.parquet"))
    assert main(["audit", "--config", str(recipe), "--json"]) == 0
    assert "teacher-saw-test" in [one["code"] for one in findings(capsys.readouterr().out)]


def test_what_cannot_be_audited_is_one_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        capsys.readouterr()
        assert main(["audit", "--log_level", "error", *words]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == 1
        return told.err

    assert "one of the arguments --config --interactions" in refused()
    assert "does not exist" in refused("--interactions", str(tmp_path / "absent.csv"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert "broken.parquet" in refused("--interactions", str(tmp_path / "broken.parquet"))
    recipe = write_recipe(tmp_path, tmp_path / "run", {"data": {"path": str(world)}})
    assert "--items goes with --interactions" in refused("--config", str(recipe), "--items", "x")
    assert main(["prepare", "--config", str(recipe)]) == 0
    other = tmp_path / "other"
    shutil.copytree(world, other)
    with (other / "items.csv").open("a") as items:
        items.write("one-more,Another Title\n")
    assert "was prepared from other items" in refused("--config", str(recipe), "--path", str(other))


def test_a_prompt_that_names_its_target_is_found_listed_or_not() -> None:
    titles = {str(number): f"Title {number:02d}" for number in range(20)}

    def rows(*, leak: bool, listed: bool) -> Dataset:
        made: dict[str, list[Any]] = {"prompt": [], "candidates": [], "target": []}
        for row in range(60):
            offered = [str((row + place) % 20) for place in range(6)]
            target = offered[row % 6]
            shown = [titles[str((row + 10) % 20)], *([titles[target]] if leak else [])]
            text = "; ".join([*shown, *(titles[one] for one in offered if listed)])
            made["prompt"].append([{"role": "user", "content": text}])
            made["candidates"].append(offered)
            made["target"].append(target)
        return Dataset.from_dict(made)

    for listed in (True, False):
        assert shown_in_prompts([rows(leak=False, listed=listed)], titles) is None
        found = shown_in_prompts([rows(leak=True, listed=listed)], titles)
        assert found is not None
        assert (found.code, found.severity, found.value) == ("leaked-target", "error", 1.0)
