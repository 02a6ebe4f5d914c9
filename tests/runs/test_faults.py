"""Runs that go wrong: mistakes are named, outputs stay whole, a killed training goes on."""

import errno
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from delrec_hf.errors import InputError
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.record import RunRecord
from tests.runs.films import command, environment, sections, stages_run, write_recipe
from tests.runs.kills import timeless


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("data", {"domain": "datacheese"}),
        ("teacher", {"type": "gru"}),
        ("distil", {"learning_rat": 1}),
        ("finetune", {"packing": True}),
        ("evaluate", {"systems": ["delrek"]}),
    ],
)
def test_a_mistake_in_a_later_section_is_found_before_the_first_stage(
    films: Path, tmp_path: Path, section: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=section):
        run_recipe(Recipe(tmp_path / "run", sections(films, **{section: changes})))
    assert not (tmp_path / "run" / "data").exists()


@pytest.mark.parametrize("broken", ['{"stages": {"pre', "[]", '{"stages": 3}'])
def test_a_broken_record_is_named_with_the_cure(films: Path, tmp_path: Path, broken: str) -> None:
    (tmp_path / "run.json").write_text(broken)
    with pytest.raises(InputError, match=r"run\.json .*remove it") as caught:
        run_recipe(Recipe(tmp_path, sections(films)), "prepare")
    assert "\n" not in str(caught.value)


def test_a_stage_says_which_one_must_run_before_it(films: Path, tmp_path: Path) -> None:
    for only, first in (("teach", "prepare"), ("finetune", "prepare"), ("evaluate", "prepare")):
        with pytest.raises(InputError, match=f"`{only}` reads .* run `delrec {first}` first"):
            run_recipe(Recipe(tmp_path / "run", sections(films)), only)
    run_recipe(Recipe(tmp_path / "run", sections(films)), "prepare")
    with pytest.raises(InputError, match="run `delrec calibrate` first"):
        run_recipe(Recipe(tmp_path / "run", sections(films)), "finetune")


def test_a_failing_stage_leaves_older_outputs_as_they_were(films: Path, tmp_path: Path) -> None:
    recipe = Recipe(tmp_path / "run", sections(films))
    run_recipe(recipe, "prepare")
    before = {p: p.read_bytes() for p in (tmp_path / "run" / "data").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="500 candidates need 499 items"):
        run_recipe(Recipe(tmp_path / "run", sections(films, data={"num_candidates": 500})))
    assert before == {
        p: p.read_bytes() for p in (tmp_path / "run" / "data").rglob("*") if p.is_file()
    }


def _fails(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "disk full")


@pytest.mark.slow
def test_outputs_of_a_stage_that_broke_off_are_not_taken_for_finished(
    finished: Path, films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    other = Recipe(folder, sections(films, distil={"num_virtual_tokens": 5}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecord, "finish", _fails)  # distil fails once its folder is replaced
        with pytest.raises(OSError, match="full"):
            run_recipe(other, "distil")
    assert stages_run(Recipe(folder, sections(films)), caplog, "distil") == ["distil"]
    weights = "distil/adapter_model.safetensors"
    # Exact: the same batches go through the same kernels on one thread.
    assert (folder / weights).read_bytes() == (finished / weights).read_bytes()


def kill_after(file: Path, words: list[str]) -> None:
    """Start a command and kill it as soon as a file is there."""
    process = subprocess.Popen(
        words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 240
    while not file.is_file():
        assert process.poll() is None, "it ended before there was anything to kill"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "word", "place", "output"),
    [
        ("distil", "distill", "distil", "distil"),
        ("finetune", "finetune", "finetune/delrec", "model"),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    finished: Path,
    films: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    stage: str,
    word: str,
    place: str,
    output: str,
) -> None:
    changes = {stage: {"max_steps": 12, "warmup_steps": 3, "save_steps": 2}}
    if stage == "finetune":
        changes[stage] |= {"controls": [], "lora_dropout": 0.1}
    given = sections(films, **changes)
    straight, killed = (tmp_path / name for name in ("straight", "killed"))
    for folder in (straight, killed):
        shutil.copytree(finished, folder)
    checkpoints = killed / "checkpoints" / place
    config = write_recipe(tmp_path, killed, given)
    kill_after(
        checkpoints / "checkpoint-4" / "trainer_state.json", command(word, "--config", str(config))
    )
    before = {p.name: p.read_bytes() for p in (killed / output).iterdir() if p.is_file()}
    assert before == {p.name: p.read_bytes() for p in (finished / output).iterdir() if p.is_file()}
    log = json.loads((killed / "logs" / f"{output}.json").read_text())
    steps = [entry["step"] for entry in log]
    assert steps[0] == 0
    assert steps == sorted(steps)
    half = checkpoints / "checkpoint-90"
    half.mkdir()
    (half / "adapter_config.json").write_text("{")

    assert stages_run(Recipe(killed, given), caplog, stage) == [stage]
    assert any(
        record.getMessage().startswith("continues from") and "checkpoint-90" not in record.message
        for record in caplog.records
    )
    stages_run(Recipe(straight, given), caplog, stage)
    weights = sorted(
        path.relative_to(straight) for path in (straight / output).rglob("*.safetensors")
    )
    assert len(weights) == (1 if stage == "distil" else 3)  # LoRA, the prompt and the teacher
    for path in weights:
        # Exact: both train on one thread, and a checkpoint is copied into weights laid out as ever.
        assert (killed / path).read_bytes() == (straight / path).read_bytes(), path
        if stage == "distil":
            assert (killed / path).read_bytes() != (finished / path).read_bytes()
    logs = [
        timeless(json.loads((run / "logs" / f"{output}.json").read_text()))
        for run in (killed, straight)
    ]
    assert logs[0] == logs[1]
    assert [entry["step"] for entry in logs[0] if "loss" in entry] == list(range(1, 13))
    assert not (killed / "checkpoints").exists()
