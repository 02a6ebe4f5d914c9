"""Trackers: none unless asked for, named before any training where they are not installed."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from delrec_hf.cli import main
from delrec_hf.errors import InputError
from delrec_hf.runs.recipe import Recipe, load_recipe
from delrec_hf.runs.run import Run

TRAININGS = ("teacher", "distil", "finetune")


def _settings(
    section: str, training: str = "", given: dict[str, Any] | None = None, **where: Any
) -> Any:
    recipe = Recipe(Path("runs/mine"), {section: given or {}}, **where)
    return Run(recipe).trainer_settings(section, section, training)


@pytest.mark.parametrize("section", TRAININGS)
def test_nothing_is_reported_unless_asked_for_whatever_is_installed(section: str) -> None:
    assert importlib.util.find_spec("tensorboard")
    assert importlib.util.find_spec("trackio")
    assert _settings(section).report_to == []
    assert _settings(section, given={"report_to": "none"}).report_to == []


@pytest.mark.parametrize("section", TRAININGS)
def test_a_tracker_that_is_not_installed_is_one_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str
) -> None:
    installed = get_available_reporting_integrations()
    missing = next(one for one in ("wandb", *INTEGRATION_TO_CALLBACK) if one not in installed)
    recipe = tmp_path / "recipe.yaml"
    run = tmp_path / "run"
    needed = "data: {path: toy}\nbackbone: {model_name_or_path: toy}\n"
    recipe.write_text(f"output_dir: {run}\n{needed}", encoding="utf-8")
    assert main(["run", "--config", str(recipe), f"--{section}.report_to", missing]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"`{section}.report_to` names {missing}, which is not installed" in line
    assert f"`pip install {missing}`" in line
    assert not run.exists()


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        ("tensorbord", "did you mean `tensorboard`"),
        (["tensorboard", "none"], "expected one of none, all, "),
        (None, "expected one of none, all, "),
    ],
)
def test_a_tracker_that_nobody_knows_is_named(given: Any, cure: str) -> None:
    with pytest.raises(InputError, match=cure):
        _settings("distil", given={"report_to": given})


def test_every_training_has_a_name_and_a_folder_of_its_own(tmp_path: Path) -> None:
    where = {"shared_dir": Path("runs"), "name": "quick"}
    config = _settings("finetune", "lora-only", **where)
    assert config.project == "quick"
    assert config.run_name == "runs/mine/lora-only"
    assert config.logging_dir == "runs/mine/logs/tensorboard/lora-only"
    assert _settings("distil").run_name == "mine/distil"
    given = {"run_name": "first", "logging_dir": str(tmp_path), "project": "films"}
    config = _settings("finetune", "lora-only", given, **where)
    assert config.project == "films"
    assert config.run_name == "first/mine/lora-only"
    assert Path(config.logging_dir) == tmp_path / "mine" / "lora-only"
    recipe = tmp_path / "quick.yaml"
    recipe.write_text("output_dir: a\n", encoding="utf-8")
    assert load_recipe(recipe).name == "quick"


def test_nothing_is_published_along_with_checkpoints_unless_asked_for() -> None:
    assert _settings("distil").trackio_static_space_id is False
    given = {"trackio_static_space_id": "me/curves"}
    assert _settings("distil", given=given).trackio_static_space_id == "me/curves"
