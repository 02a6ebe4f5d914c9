"""Several processes do what one does, and speak with one voice: two processes on a CPU."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from delrec_hf.cli import main
from delrec_hf.data.toy_world import toy_world
from delrec_hf.evaluation.systems import SYSTEMS
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from delrec_hf.training.recommendation import CONTROLS
from tests.runs.films import STAGES
from tests.runs.films import sections as small_sections

CONFIG = Path(__file__).parents[1] / "recipes" / "accelerate_configs" / "cpu.yaml"

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
    """A run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_recipe(Recipe(folder, sections(films, batch=4)))
    return folder


def run(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; return its exit code, output and log."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, log = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the launcher's processes wait for each other
        raise AssertionError(f"never ended: {process.communicate()[1][-3000:]}") from None
    return subprocess.CompletedProcess(words, process.returncode, out, log)


def write_recipe(folder: Path, given: dict[str, Any]) -> str:
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump({"output_dir": str(folder), **given}), encoding="utf-8")
    return str(recipe)


def launch(folder: Path, word: str, given: dict[str, Any]) -> str:
    """Run a command on two processes under `accelerate launch`; return the log."""
    words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]
    done = run([*words, "-m", "delrec_hf", word, "--config", write_recipe(folder, given)])
    assert done.returncode == 0, done.stderr[-3000:]
    # accelerate may start one process without a word.
    assert "2 processes share the work" in done.stderr
    return done.stderr


def delrec(*words: str, config: str = "cpu", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the short form."""
    return run(
        [sys.executable, "-m", "delrec_hf", *words, "--accelerate_config", config], **variables
    )


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
    folder, given = tmp_path / "run", sections(films, batch=2)
    given["data"]["seed"] = 3  # which the flag changes back
    done = delrec("run", "--config", write_recipe(folder, given), "--data.seed", "42")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes share the work" in done.stderr
    for stage in STAGES:
        assert done.stderr.count(f"{stage}: wrote") == 1  # only the first process speaks
    assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}
    trained = [
        json.loads((one / "teacher" / "teacher.json").read_text())["validation"]["ndcg@10"]
        for one in (folder, alone)
    ]
    assert trained[0] == pytest.approx(trained[1], abs=1e-5)
    for name in ("distil", "lora-only", "model"):
        assert len(losses(alone, name)) >= 5
        assert losses(folder, name) == pytest.approx(losses(alone, name), rel=1e-4, abs=1e-5), name


def test_two_processes_skip_what_is_finished_and_evaluate_as_one_to_the_last_digit(
    films: Path, alone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    (folder / "results.json").unlink()
    shutil.rmtree(folder / "scores")
    log = launch(folder, "run", sections(films, batch=4))
    assert log.count("finished before, skipped") == len(STAGES) - 1
    results = [json.loads((one / "results.json").read_text()) for one in (folder, alone)]
    for found in results:
        for system in found["systems"].values():
            system.pop("seconds", None)  # a fusion has none
    # Exact: all processes have one thread, read the same files and score the batches of one.
    assert results[0] == results[1]
    untrained = {f"delrec/{control}" for control in CONTROLS}  # but for lora-only, the default
    ranked = {system.name for system in SYSTEMS if not system.on_request}
    needs_lists = "delrec+co-occurrence"  # in the place of a teacher that is foreign lists
    others = ranked - {"teacher", needs_lists} - untrained
    assert set(results[0]["systems"]) == others | {"teacher/sasrec"}


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
    words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]
    words += ["-m", "delrec_hf", "prepare", "--config", write_recipe(tmp_path / "run", given)]
    done = run(words)
    assert done.returncode == 1  # the launcher's
    assert sum(line.startswith("delrec: error: ") for line in done.stderr.splitlines()) == 1
    assert done.stderr.count("Traceback") == 1  # the launcher's own, and of no process
    root_cause = done.stderr[done.stderr.index("Root Cause") :]
    assert "has no column `customer`" in root_cause
