"""Several processes speak with one voice: two processes on a CPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from delrec_hf.cli import main
from delrec_hf.data.toy_world import toy_world
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from tests.launched import accelerate_launch, delrec, write_recipe
from tests.runs.films import sections as small_sections

pytestmark = pytest.mark.slow


def sections(films: Path, batch: int) -> dict[str, Any]:
    """A recipe without dropout, whose batches the processes share evenly."""
    trainer = {
        "max_steps": 3,
        "eval_steps": 3,
        "save_steps": 3,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": 4,
    }
    return small_sections(
        films,
        teacher={"per_device_train_batch_size": batch * 5},
        backbone={"model_name_or_path": "toy"},
        distil=trainer,
        finetune=trainer,
        evaluate={"max_users": 25},
    )


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    world = toy_world(num_users=40)
    world.items.to_csv(folder / "items.csv", index=False)
    world.interactions.to_csv(folder / "interactions.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def alone(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process as far as what stage 1 needs."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    for stage in ("prepare", "teach", "calibrate"):
        run_recipe(Recipe(folder, sections(films, batch=4)), stage)
    return folder


def mistake(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a command ended with, having checked that there is no other."""
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("delrec: error: ")
    return lines[0]


@pytest.fixture
def one_process(tmp_path: Path) -> str:
    """An accelerate config of a single process."""
    path = tmp_path / "one.yaml"
    content = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "NO",
        "num_machines": 1,
        "num_processes": 1,
        "mixed_precision": "no",
        "use_cpu": True,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_mistake_in_the_recipe_is_one_line_whatever_the_processes(
    films: Path, tmp_path: Path, one_process: str, processes: int
) -> None:
    given = sections(films, batch=4)
    given["distil"]["learning_rat"] = 1
    recipe = write_recipe(tmp_path / "run", given)
    config = one_process if processes == 1 else "cpu"
    told = mistake(delrec("run", "--config", recipe, config=config))
    assert "did you mean `learning_rate`?" in told


def test_a_mistake_that_the_first_process_meets_alone_is_one_line(
    films: Path, tmp_path: Path
) -> None:
    given = sections(films, batch=4)
    given["data"]["user_column"] = "customer"  # only the first process reads the data
    recipe = write_recipe(tmp_path / "run", given)
    assert "customer" in mistake(delrec("prepare", "--config", recipe))


def test_a_mistake_that_another_process_meets_alone_is_one_line(
    films: Path, tmp_path: Path
) -> None:
    write_recipe(tmp_path / "run", sections(films, batch=4))
    # As on a machine that does not share the first one's disk.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    os.chdir('/')\n"
        f"elif os.environ.get('RANK') == '0':\n"
        f"    os.chdir({str(tmp_path)!r})\n"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = delrec("prepare", "--config", "run.yaml", PYTHONPATH=paths)
    assert "recipe run.yaml does not exist" in mistake(done)


def test_a_launch_that_shards_the_prompt_is_refused_in_one_line(
    films: Path, alone: Path, tmp_path: Path
) -> None:
    shutil.copytree(alone, tmp_path / "run")
    recipe = write_recipe(tmp_path / "run", sections(films, batch=4))
    # On a CPU accelerate would leave FSDP out without a word; what it tells its processes is real.
    told = mistake(delrec("distill", "--config", recipe, "--max_steps", "2", config="fsdp2"))
    assert "FSDP shards the soft prompt" in told


def test_a_loss_that_is_not_finite_ends_every_process_with_one_line(
    films: Path, alone: Path, tmp_path: Path
) -> None:
    shutil.copytree(alone, tmp_path / "run")
    given = sections(films, batch=4)
    given["distil"] |= {"learning_rate": 1e30, "max_steps": 10, "eval_steps": 10, "save_steps": 10}
    done = delrec("distill", "--config", write_recipe(tmp_path / "run", given))
    # torch warns on its own that DistributedDataParallel looks for parameters without a gradient.
    kept = [line for line in done.stderr.splitlines() if "reducer.cpp" not in line]
    done.stderr = "\n".join(kept)
    assert "training of `distil` ended at step" in mistake(done)


def test_a_process_of_a_launch_ends_without_the_interpreters_own_end(tmp_path: Path) -> None:
    script = f"""
import atexit
from torch import distributed
from delrec_hf.launch import part
part(7)
print("one process alone goes on")
place = "file://{tmp_path}/group"
distributed.init_process_group("gloo", init_method=place, rank=0, world_size=1)
atexit.register(print, "registered")
part(7)
print("never")
"""
    words = [sys.executable, "-c", script]
    environment = {**os.environ, "RANK": "0"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 7
    assert done.stdout == "one process alone goes on\nregistered\n"


def test_an_unknown_accelerate_config_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "run", {})
    code = main(["run", "--config", recipe, "--accelerate_config", "dpp"])
    told = mistake(subprocess.CompletedProcess([], code, *capsys.readouterr()))
    assert "none of cpu, ddp, fsdp2" in told
    assert told.endswith("did you mean `ddp`?")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fault_keeps_its_exit_code_and_its_traceback(
    films: Path, alone: Path, tmp_path: Path, one_process: str, processes: int
) -> None:
    shutil.copytree(alone, tmp_path / "run")
    for table in (tmp_path / "run" / "data").rglob("*.arrow"):
        table.write_bytes(b"")
    recipe = write_recipe(tmp_path / "run", sections(films, batch=4))
    config = one_process if processes == 1 else "cpu"
    done = delrec("teach", "--config", recipe, "--type", "popularity", config=config)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ArrowInvalid" in done.stderr


def test_accelerate_launch_adds_its_own_lines_to_the_one_of_a_mistake(
    films: Path, tmp_path: Path
) -> None:
    given = sections(films, batch=4)
    given["data"]["user_column"] = "customer"
    done = accelerate_launch("prepare", "--config", write_recipe(tmp_path / "run", given))
    assert done.returncode == 1  # the launcher's
    assert sum(line.startswith("delrec: error: ") for line in done.stderr.splitlines()) == 1
    assert done.stderr.count("Traceback") == 1  # the launcher's own, and of no process
    root_cause = done.stderr[done.stderr.index("Root Cause") :]
    assert "has no column `customer`" in root_cause
