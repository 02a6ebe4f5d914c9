"""Both stages in the trackers themselves: each training a run of its own, with every curve."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.processes import run_in
from tests.runs.films import sections, write_recipe
from tests.runs.followed_processes import follow

TASKS = ("ta", "rps")
DISTIL = {
    *(f"train/{task}_{what}" for task in TASKS for what in ("loss", "weight")),
    *(f"eval/{task}_{what}" for task in TASKS for what in ("loss", "hr@1", "ndcg@10")),
    "eval/rps_agreement",
}
FINETUNE = {"train/loss", "eval/loss", "eval/hr@1", "eval/ndcg@10"}
EXPECTED = {
    "distil": DISTIL,
    "distil-no-ta": {name for name in DISTIL if "/ta_" not in name},
    "lora-only": FINETUNE,
    "no-ta": FINETUNE,
    "delrec": FINETUNE,
}
Curve = list[tuple[int, float]]


def _of_log(path: Path, tag: str) -> Curve:
    key = tag.replace("eval/", "eval_").removeprefix("train/")
    log = json.loads(path.read_text(encoding="utf-8"))
    return [(entry["step"], pytest.approx(entry[key])) for entry in log if key in entry]


def _of_trackio(logs: list[dict[str, Any]], tag: str) -> Curve:
    return [(entry["train/global_step"], entry[tag]) for entry in logs if tag in entry]


@pytest.mark.slow
def test_both_trackers_hold_every_curve_of_every_training_and_nothing_leaves_the_machine(
    finished: Path, films: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    both = {"report_to": ["tensorboard", "trackio"]}
    few = {**both, "max_steps": 2, "eval_steps": 1, "max_validation_users": 4, "loss": "listwise"}
    given = sections(films, distil=few, finetune=few | {"controls": ["lora-only", "no-ta"]})
    config, out = write_recipe(tmp_path, run, given), tmp_path / "curves.json"
    run_in(1, follow, config, tmp_path / "trackio", out)
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert kept["project"] == "recipe"
    assert kept["runs"].keys() == {f"run/{name}" for name in EXPECTED}
    boards = run / "logs" / "tensorboard"
    assert {path.name for path in boards.iterdir()} == EXPECTED.keys()
    for name, tags in EXPECTED.items():
        log = run / "logs" / f"{'model' if name == 'delrec' else name}.json"
        events = EventAccumulator(str(boards / name)).Reload()
        for tag in tags:
            expected = _of_log(log, tag)
            steps = [step for step, _ in expected]
            assert steps == ([1, 2] if tag.startswith("train/") else [0, 1, 2]), (name, tag)
            assert [(one.step, one.value) for one in events.Scalars(tag)] == expected, (name, tag)
            assert _of_trackio(kept["runs"][f"run/{name}"], tag) == expected, (name, tag)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"run", "recipe.yaml", "curves.json", "trackio"}, "files in the current folder"
