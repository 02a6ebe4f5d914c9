"""Rows of a stage are worded and encoded once, whoever asks for them."""

import json
import shutil
from pathlib import Path

import pytest

from tests.processes import run_in
from tests.runs.films import sections
from tests.runs.wording_processes import word


@pytest.mark.slow
def test_rows_are_made_once_for_all_processes_and_for_those_that_go_on_later(
    finished: Path, films: Path, tmp_path: Path
) -> None:
    given = sections(films, distil={"loss": "listwise"}, finetune={"loss": "listwise"})
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    run_in(2, word, folder, given, tmp_path / "first")
    (made, got), (made_by_other, got_by_other) = (
        json.loads((tmp_path / f"first.{rank}").read_text()) for rank in (0, 1)
    )
    assert (made, made_by_other) == (got, 0)
    assert got_by_other == got > 0
    run_in(1, word, folder, given, tmp_path / "later")  # as after a kill
    assert json.loads((tmp_path / "later.0").read_text()) == [0, got]
