"""A run that is killed time and again, at any moment of any stage, ends as one that never was.

`DELREC_KILLS` says how often it is killed (`make test-kills`: 50).
"""

import json
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from delrec_hf.runs.order import STAGES
from delrec_hf.training.recommendation import CONTROLS
from tests.processes import LIMIT, start_command
from tests.runs.films import sections, write_recipe

KILLS = int(os.environ.get("DELREC_KILLS", "3"))
OFTEN = {"save_steps": 1, "eval_steps": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "listwise": {
        "teacher": {"folds": 2, "max_steps": 8, "patience": 2, "dropout": 0.1},
        "instructions": {"candidates": "unlisted"},
        "distil": {**OFTEN, "loss": "listwise", "positions": "all", "load_best_model_at_end": False},
        "finetune": {
            **OFTEN,
            "loss": "listwise",
            "controls": list(CONTROLS),
            "lora_dropout": 0.1,
            "load_best_model_at_end": False,
            "save_total_limit": 1,
        },
        "evaluate": {"scoring": "calibrated"},
    },
    "title": {
        "teacher": {"type": "gru4rec", "folds": 2},
        "distil": OFTEN,
        "finetune": {**OFTEN, "controls": list(CONTROLS), "lora_dropout": 0.1},
    },
}
"""With folds, every control, and the last weights or the best ones."""
OF_TIME = {"seconds", "cpu_seconds", "train_runtime", "epoch_seconds"}
BEGINS = re.compile(r"INFO ([\w/-]+): reads ")
ENDS = re.compile(r"INFO ([\w/-]+): wrote .* in \d+ s$", re.M)


def timeless(value: Any) -> Any:
    """What JSON holds, without how long things took."""
    if isinstance(value, dict):
        kept = {name: timeless(one) for name, one in value.items()}
        return {
            name: one
            for name, one in kept.items()
            if name not in OF_TIME and not name.endswith(("_runtime", "_per_second"))
        }
    return [timeless(one) for one in value] if isinstance(value, list) else value


def content(path: Path) -> Any:
    """What must be the same in a file: every byte, but for times and the order of kept scores."""
    if path.suffix == ".jsonl":
        rows: dict[str, Any] = {}
        for line in path.read_bytes().splitlines():
            if line.endswith(b"}}"):  # a killed process leaves half a line
                rows |= json.loads(line)["log_probabilities"]
        return rows
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text(encoding="utf-8")))
    return path.read_bytes()


def contents(run: Path) -> dict[str, Any]:
    files = (path for path in run.rglob("*") if path.is_file())
    return {path.relative_to(run).as_posix(): content(path) for path in files}


def at_work(log: Path) -> list[str]:
    """The steps that a log says are begun and not ended, the inner one last."""
    text = log.read_text(encoding="utf-8", errors="replace")
    ended = ENDS.findall(text)
    return [step for step in BEGINS.findall(text) if step not in ended]


def finish(config: Path, log: Path) -> None:
    process = start_command(["run", "--config", str(config)], log)
    process.join(LIMIT)
    assert process.exitcode == 0, log.read_text()[-3000:]


def strike(config: Path, log: Path, step: str, delay: float) -> str | None:
    """Start the command, kill it so long after a step has begun; return the step at work, if any.

    Returns:
        None if it ended before.
    """
    process = start_command(["run", "--config", str(config)], log)
    end = time.monotonic() + LIMIT
    while process.is_alive() and not (log.exists() and step in BEGINS.findall(log.read_text())):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.join(delay)
    if not process.is_alive():
        assert process.exitcode == 0, log.read_text()[-3000:]
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.join(LIMIT)
    assert process.exitcode == -signal.SIGKILL
    return (at_work(log) or ["between"])[-1]


def test_a_run_killed_again_and_again_ends_with_the_same_bytes() -> None:
    pass
