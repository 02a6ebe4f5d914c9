"""A run that is killed time and again, at any moment of any stage, ends as one that never was.

`DELREC_KILLS` says how often recipes of all that there is are killed (`make test-kills`: 50); the
suite kills a small one three times.
"""

import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from delrec_hf.runs.order import STAGES
from delrec_hf.training.recommendation import CONTROLS
from tests.runs.films import command, environment, sections, write_recipe
from tests.runs.kills import kill_time_and_again

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("DELREC_KILLS", "0"))
OFTEN = {"save_steps": 1, "eval_steps": 1, "max_validation_users": 4}
STAGE_2 = {**OFTEN, "controls": list(CONTROLS), "lora_dropout": 0.1}
RECIPES: dict[str, dict[str, Any]] = {
    "listwise": {
        "teacher": {"folds": 2, "max_steps": 8, "patience": 2, "dropout": 0.1},
        "instructions": {"candidates": "unlisted"},
        "distil": {**OFTEN, "loss": "listwise", "load_best_model_at_end": False},
        "finetune": {
            **STAGE_2,
            "loss": "listwise",
            "load_best_model_at_end": False,
            "save_total_limit": 1,
        },
        "evaluate": {"scoring": "calibrated", "max_users": 8},
    },
    "title": {
        "teacher": {"type": "gru4rec", "folds": 2},
        "distil": OFTEN,
        "finetune": STAGE_2,
        "evaluate": {"max_users": 8},
    },
}
"""With folds and every control; the last weights, or the best ones."""


def test_a_small_run_that_is_killed_ends_with_the_same_bytes(
    finished: Path, films: Path, tmp_path: Path
) -> None:
    struck = kill_time_and_again(sections(films), finished, tmp_path, 3, random.Random(11))
    assert struck.total() == 3


@pytest.mark.skipif(not KILLS, reason="takes many minutes: `make test-kills`")
@pytest.mark.parametrize("name", RECIPES)
def test_a_run_of_everything_that_is_killed_ends_with_the_same_bytes(
    films: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    given = sections(films, **RECIPES[name])
    straight, killed = (tmp_path_factory.mktemp(one) for one in ("straight", "killed"))
    words = command("run", "--config", str(write_recipe(straight, straight / "run", given)))
    # An interpreter of its own, whose sets have another order than those of copied processes.
    subprocess.run(words, env=environment() | {"PYTHONHASHSEED": "1"}, check=True)
    # Exact: one thread, and a killed batch of scores is read again whole.
    struck = kill_time_and_again(
        given, straight / "run", killed, -(-KILLS // len(RECIPES)), random.Random(name)
    )
    print(f"{name}: {struck.total()} kills, {dict(struck)}")
    stages = {step.partition("/")[0] for step in struck}
    assert stages >= {stage.name for stage in STAGES}
