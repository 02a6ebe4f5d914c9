"""Data and finished runs that the tests of the pipeline share."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from tests.runs.films import sections, stages_run, write_films


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("own") / "films")


@pytest.fixture(scope="session")
def finished(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all stages; copies of its folder are finished runs, too."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_recipe(Recipe(folder, sections(films)))
    return folder


@pytest.fixture
def again(
    finished: Path, films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[..., list[str]]:
    """A function that repeats a finished run with changed keys and returns what ran again."""

    def repeat(**changes: dict[str, Any]) -> list[str]:
        folder = tmp_path / "run"
        if not folder.is_dir():
            shutil.copytree(finished, folder)
        return stages_run(Recipe(folder, sections(films, **changes)), caplog)

    return repeat
