"""Several processes do what one does: `accelerate launch` on two CPU processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from delrec_hf.data.toy_world import toy_world
from delrec_hf.evaluation.evaluator import SYSTEMS
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe

CONFIG = Path(__file__).parents[1] / "recipes" / "accelerate_configs" / "cpu.yaml"

pytestmark = pytest.mark.slow


def sections(films: Path, batch: int) -> dict[str, Any]:
    """A recipe without dropout, whose batches the processes share evenly."""
    trainer = {
        "max_steps": 3,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": 4,
        "max_validation_users": 8,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 3,
        "save_steps": 3,
        "logging_steps": 1,
    }
    return {
        "data": {
            "path": str(films),
            "history_length": 4,
            "num_candidates": 6,
            "train_prefixes": 2,
        },
        "teacher": {
            "max_steps": 4,
            "hidden_size": 16,
            "num_layers": 1,
            "dropout": 0.0,
            "top_h": 3,
            "per_device_train_batch_size": batch * 5,
        },
        "backbone": {"model_name_or_path": "toy", "torch_dtype": "float32"},
        "distil": {**trainer, "num_virtual_tokens": 4, "learning_rate": 0.05},
        "finetune": {**trainer, "lora_dropout": 0.0, "learning_rate": 0.01},
        "evaluate": {"max_users": 25, "bootstrap_samples": 100},
    }


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    world = toy_world(num_users=40)
    world.items.to_csv(folder / "items.csv", index=False)
    world.interactions.to_csv(folder / "interactions.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def alone(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_recipe(Recipe(folder, sections(films, batch=4)))
    return folder


def launch(folder: Path, word: str, given: dict[str, Any]) -> str:
    """Run a command on two processes as the README says; return the log."""
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump({"output_dir": str(folder), **given}), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]
    command += ["--main_process_port", port, "-m", "delrec_hf", word, "--config", str(recipe)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        log = process.communicate(timeout=300)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the launcher's processes wait for each other
        raise AssertionError(f"never ended: {process.communicate()[1][-3000:]}") from None
    assert process.returncode == 0, log[-3000:]
    # accelerate may start one process without a word.
    assert "2 processes share the work" in log
    return log


def losses(folder: Path, name: str) -> list[float]:
    log = json.loads((folder / "logs" / f"{name}.json").read_text())
    return [
        value
        for entry in log
        for key, value in entry.items()
        if key.endswith(("loss", "_agreement", "hr@1"))
    ]


def test_two_processes_run_all_stages_from_an_empty_folder_as_one_does(
    films: Path, alone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    log = launch(folder, "run", sections(films, batch=2))
    assert log.count("finetune: wrote") == 1  # only the first process speaks
    assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}
    trained = [
        json.loads((one / "teacher" / "teacher.json").read_text())["validation"]["ndcg@10"]
        for one in (folder, alone)
    ]
    assert trained[0] == pytest.approx(trained[1], abs=1e-5)
    for name in ("distil", "lora-only", "model"):
        assert len(losses(alone, name)) >= 5
        assert losses(folder, name) == pytest.approx(losses(alone, name), rel=1e-4, abs=1e-5), name
    assert launch(folder, "run", sections(films, batch=2)).count("finished before, skipped") == 5


def test_two_processes_evaluate_as_one_to_the_last_digit(
    films: Path, alone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    (folder / "results.json").unlink()
    launch(folder, "evaluate", sections(films, batch=4))
    results = [json.loads((one / "results.json").read_text()) for one in (folder, alone)]
    for found in results:
        for system in found["systems"].values():
            del system["seconds"]
    # Exact: all processes have one thread, read the same files and score the batches of one.
    assert results[0] == results[1]
    assert set(results[0]["systems"]) == {*SYSTEMS} - {"teacher"} | {"teacher/sasrec"}
