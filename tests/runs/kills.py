"""Kills a run at random moments, starts it again, and compares what it leaves, byte by byte."""

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.processes import LIMIT, start_command
from tests.runs.films import write_recipe

OF_TIME = ("seconds", "_runtime", "_per_second", "train_loss", "num_tokens")
"""What tells how long things took, and what the Trainer counts from its last start on."""
BEGINS = re.compile(r"INFO ([\w/-]+): reads ")
ENDS = re.compile(r"INFO ([\w/-]+): wrote .* in \d+ s$", re.M)


def timeless(value: Any) -> Any:
    """What JSON holds, without what is about the last start alone."""
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if not name.endswith(OF_TIME)}
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
    if path.name == "README.md":  # seconds stand last in its table
        return re.sub(r" [\d.]+ \|$", "", path.read_text(encoding="utf-8"), flags=re.M)
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
    log.unlink(missing_ok=True)
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


def kill_time_and_again(
    given: dict[str, Any], straight: Path, folder: Path, kills: int, draw: random.Random
) -> Counter[str]:
    """Kill runs of a recipe so many times, a step at a time, and let each of them come to its end.

    Of more kills than there are steps none is left out: what was over too soon is aimed at again.

    Args:
        given: The sections of the recipe.
        straight: The folder of an undisturbed run of it.
        folder: Where to run; as deep as that of `straight`, so that relative paths are the same.
        kills: How often to kill.
        draw: Draws the steps to be killed, if not all are, and the moments.

    Returns:
        How often each step was at work when it was killed.
    """
    stages = json.loads((straight / "run.json").read_text())["stages"]
    seconds = {name: one["seconds"] for name, one in stages.items() if name != "finetune"}
    expected, log = contents(straight), folder / "log"
    struck: Counter[str] = Counter()
    order = list(seconds)
    while aims := _aims(order, struck, kills, draw):
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        config = write_recipe(folder, run, given)
        for step in aims:
            delay = draw.uniform(0, seconds[step] + (0.1 if step in struck else 0.0))
            where = strike(config, log, step, delay)
            print(f"kill {delay:.2f} s into {step}: {where or 'it had ended'}", flush=True)
            struck += Counter([where] if where else [])
        finish(config, log)
        found = contents(run)
        others = found.keys() ^ expected.keys()
        differ = [name for name in found.keys() & expected.keys() if found[name] != expected[name]]
        assert not others, f"after {dict(struck)}: files of one run alone: {others}"
        assert not differ, f"after {dict(struck)}: files that differ: {differ}"
    return struck


def _aims(order: list[str], struck: Counter[str], kills: int, draw: random.Random) -> list[str]:
    """Return the steps to be killed in the next run, in their order; none: it is enough."""
    left = kills - struck.total()
    if left > 0:
        return sorted(draw.sample(order, min(left, len(order))), key=order.index)
    return [step for step in order if step not in struck and kills > len(order)]
