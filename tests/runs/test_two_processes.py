"""Two processes that `accelerate` starts do what one does, stage by stage, with either loss.

The two of a machine without GPUs, which pass their gradients by gloo; the batch of one process is
shared out over both.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import load_from_disk
from safetensors.torch import load_file

from delrec_hf.cli import main
from delrec_hf.teachers.predictions import read_predictions
from tests.launched import CONFIGS, accelerate_launch, delrec, write_recipe
from tests.runs.films import STAGES, sections

PREDICTIONS = "teacher/predictions"
BATCH = 6  # rows: an epoch of 40 ends in a batch that its processes share unevenly

pytestmark = pytest.mark.slow


def recipe(films: Path, loss: str, processes: int) -> dict[str, dict[str, Any]]:
    """All stages with the loss, a step's rows alike for any number of processes.

    Plain gradient descent: an optimizer that divides by the gradient's size would hide a wrong one.
    """
    trainer = {
        "loss": loss,
        "per_device_train_batch_size": BATCH // processes,
        "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "optim": "sgd",
        "max_grad_norm": 0,
        "lr_scheduler_type": "constant",
    }
    # The one prompt lists the candidates, the other does not: each is ranked in ways of its own.
    listed = loss == "title"
    whole = {"permutations": 1} if listed else {"whole_catalogue": 3, "scoring": "calibrated"}
    return sections(
        films,
        data={"train_prefixes": 1},
        teacher={"per_device_train_batch_size": 24 // processes},
        backbone={"model_name_or_path": "toy"},
        instructions={"candidates": "listed" if listed else "unlisted"},
        distil={**trainer, "learning_rate": 1.0},
        # Of 37 rows one is left, and the second process has none in the epoch's last batch.
        finetune={**trainer, "learning_rate": 0.2, "max_train_users": 37},
        evaluate={"max_users": 21, "fit_users": 15, "retrieve": 5, **whole},
    )


@dataclass(frozen=True)
class Pair:
    """A run of one process and one of two."""

    one: Path
    two: Path
    loss: str

    @property
    def folders(self) -> tuple[Path, Path]:
        return self.one, self.two


def processes_of(folder: Path) -> int:
    """Return how many processes took part, which accelerate may have started without a word."""
    found: int = json.loads((folder / "run.json").read_text())["machine"]["processes"]
    return found


def in_bfloat16(folder: Path) -> Path:
    """Write the config `ddp` as `accelerate config` makes it where one agrees to bfloat16."""
    content = yaml.safe_load((CONFIGS / "ddp.yaml").read_text())
    path = folder / "ddp.yaml"
    path.write_text(yaml.safe_dump({**content, "mixed_precision": "bf16"}))
    return path


@pytest.fixture(scope="module", params=["title", "listwise"])
def pair(
    request: pytest.FixtureRequest, films: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    folder = tmp_path_factory.mktemp(request.param)
    one, two = folder / "one", folder / "two"
    assert main(["run", "--config", write_recipe(one, recipe(films, request.param, 1))]) == 0
    given = recipe(films, request.param, 2)
    given["data"]["seed"] = 3  # which the flag changes back
    words = ["run", "--config", write_recipe(two, given), "--data.seed", "42"]
    config = "ddp" if request.param == "listwise" else str(in_bfloat16(folder))
    done = delrec(*words, config=config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (processes_of(one), processes_of(two)) == (1, 2)
    assert "2 processes share the work" in done.stderr
    assert ("`mixed_precision: bf16` is left out" in done.stderr) == (config != "ddp")
    for stage in STAGES:
        assert done.stderr.count(f"{stage}: wrote") == 1  # only the first process speaks
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    return Pair(one, two, request.param)


def steps(folder: Path, log: str) -> list[dict[str, float]]:
    """Return what a training logged, but for its times, and the work that padding makes."""
    history = json.loads((folder / "logs" / f"{log}.json").read_text())
    other = ("_runtime", "_per_second", "total_flos")
    return [{key: one[key] for key in one if not key.endswith(other)} for one in history]


def assert_same_curve(pair: Pair, log: str, parts: tuple[str, ...]) -> None:
    """Assert that each step's losses, weights, gradient norms and validation are the same."""
    one, two = (steps(folder, log) for folder in pair.folders)
    for expected, found in zip(one, two, strict=True):
        assert found.keys() >= expected.keys()  # TRL's own loss, which shards take, logs more
        shared = {name: found[name] for name in expected}
        assert shared == pytest.approx(expected, rel=1e-4, abs=1e-6), log
    trained = [entry for entry in one if "loss" in entry]
    assert [entry["step"] for entry in trained] == [1, 2, 3, 4]
    assert trained[-1]["epoch"] == 1.0
    assert all(set(parts) < set(entry) for entry in trained)


def assert_same_weights(pair: Pair, file: str) -> None:
    one, two = (load_file(folder / file) for folder in pair.folders)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=f"{file} {name}")


def test_two_processes_prepare_the_data_of_one(pair: Pair) -> None:
    for table in ("items", "sequences", "examples/train", "examples/validation", "examples/test"):
        one, two = (load_from_disk(folder / "data" / table)[:] for folder in pair.folders)
        assert one == two, table


def test_two_processes_train_the_teacher_of_one(pair: Pair) -> None:
    assert_same_weights(pair, "teacher/model.safetensors")
    for part in ("train", "validation", "test"):
        one, two = (read_predictions(folder / PREDICTIONS, part)[:] for folder in pair.folders)
        assert one["items"] == two["items"], part


def test_two_processes_calibrate_as_one_to_the_last_digit(pair: Pair) -> None:
    for name in ("calibration.json", "log_priors.parquet"):
        one, two = ((folder / "calibration" / name).read_bytes() for folder in pair.folders)
        assert one == two


def test_two_processes_distil_as_one(pair: Pair) -> None:
    parts = ("ta_loss", "rps_loss", "ta_weight", "rps_weight", "grad_norm")
    assert_same_curve(pair, "distil", parts)
    assert_same_weights(pair, "distil/adapter_model.safetensors")


def test_two_processes_finetune_as_one(pair: Pair) -> None:
    for name in ("lora-only", "model"):
        assert_same_curve(pair, name, ("grad_norm",))
        assert_same_weights(pair, f"{name}/adapter_model.safetensors")


def test_two_processes_that_hold_half_of_the_weights_finetune_as_one(
    pair: Pair, films: Path, tmp_path: Path
) -> None:
    """With FSDP2, by the shipped config; see `tests.sharding`."""
    folder = tmp_path / "run"
    shutil.copytree(pair.two, folder)
    for made in ("model", "lora-only", "logs"):
        shutil.rmtree(folder / made)
    words = ("finetune", "--config", write_recipe(folder, recipe(films, pair.loss, 2)))
    done = accelerate_launch(*words, config="fsdp2", module="tests.sharding")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("FSDP cuts the weights up for 2 processes") == 2
    sharded = Pair(pair.one, folder, pair.loss)
    for name in ("lora-only", "model"):
        assert_same_curve(sharded, name, ("grad_norm",))
        assert_same_weights(sharded, f"{name}/adapter_model.safetensors")


def results(folder: Path) -> Any:
    """Return all that was measured, but for the seconds that it took."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(one) for key, one in value.items() if key != "seconds"}
        return value

    return timeless(json.loads((folder / "results.json").read_text()))


def test_two_processes_evaluate_a_model_as_one_to_the_last_digit(
    pair: Pair, films: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    recipes = []
    for folder in (one, two):
        shutil.copytree(pair.one, folder)
        (folder / "results.json").unlink()
        shutil.rmtree(folder / "scores")  # what the models said is asked anew
        recipes.append(write_recipe(folder, recipe(films, pair.loss, 1)))
    assert main(["run", "--config", recipes[0]]) == 0
    done = accelerate_launch("run", "--config", recipes[1], config="ddp")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (processes_of(one), processes_of(two)) == (1, 2)
    assert done.stderr.count("finished before, skipped") == len(STAGES) - 1
    # Exact: all processes have one thread, read the same files and score the batches of one.
    found = results(two)
    assert found == results(one)
    assert {"zero-shot", "prompt-only", "lora-only", "delrec", "delrec+teacher"} < set(
        found["systems"]
    )
    assert {"retrieved", "distillation"} < set(found)
    assert ("whole_catalogue" in found) == (pair.loss == "listwise")
    for name in ("scores.parquet", "users.parquet"):
        assert (two / "logs" / name).read_bytes() == (one / "logs" / name).read_bytes()
