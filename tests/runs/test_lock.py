"""Two runs in one folder at once: the second is refused, the first never notices."""

import os
import signal
import time
from pathlib import Path

import pytest

from delrec_hf.cli import main
from delrec_hf.errors import InputError
from delrec_hf.runs.lock import alone_in
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.study import run_study
from tests.processes import LIMIT, start_command
from tests.runs.films import sections, write_recipe


@pytest.mark.slow
def test_a_second_run_in_a_folder_is_refused_and_the_first_is_unharmed(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    words = ["teach", "--config", str(write_recipe(tmp_path, run, sections(films)))]
    assert main(["prepare", *words[1:]]) == 0
    first = start_command(words, log)
    end = time.monotonic() + LIMIT
    while not (run / "checkpoints").exists():
        assert first.is_alive(), log.read_text()
        assert time.monotonic() < end
        time.sleep(0.001)
    os.kill(first.pid, signal.SIGSTOP)
    capsys.readouterr()
    try:
        for word in ("teach", "prepare", "run"):
            assert main([word, *words[1:]]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith("delrec: error: another run, ")
            assert f"process {first.pid}, is at work in {run}" in line
        assert main(["audit", *words[1:], "--json"]) == 0  # only reads
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.join(LIMIT)
    assert first.exitcode == 0
    assert main(words) == 0
    assert "teach: finished before, skipped" in capsys.readouterr().err
    assert not (run / ".lock").exists()


def test_a_dead_process_holds_no_folder_and_its_workers_neither(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    holder = os.fork()
    if not holder:
        with alone_in(tmp_path):
            if not os.fork():  # as a worker that loads data
                os.close(reader)
                time.sleep(60)
                os._exit(0)
            os.write(writer, b"held")
            time.sleep(60)
    assert os.read(reader, 4) == b"held"
    with pytest.raises(InputError, match=f"process {holder}, is at work"), alone_in(tmp_path):
        pass
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with alone_in(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_refused_where_one_of_its_folders_is_in_use(films: Path, tmp_path: Path) -> None:
    recipe = Recipe(tmp_path / "run", sections(films), study={"distil.num_virtual_tokens": [2]})
    reader, writer = os.pipe()
    holder = os.fork()
    if not holder:
        with alone_in(tmp_path / "run"):
            os.write(writer, b"held")
            time.sleep(60)
    try:
        assert os.read(reader, 4) == b"held"
        with pytest.raises(InputError, match=f"process {holder}, is at work"):
            run_study(recipe)
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


def test_what_a_killed_run_left_aside_is_cleared_but_not_that_of_runs_within(
    tmp_path: Path,
) -> None:
    for name in ("data/a.json", ".run.json.12.writing", "logs/.scores.parquet.12.writing"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    for name in (".data.abcd1234.writing", ".model.12.old", ".data.12.old"):
        (tmp_path / name / "deeper").mkdir(parents=True)
    (tmp_path / "seed-1").mkdir()
    for name in (".lock", ".run.json.13.writing"):
        (tmp_path / "seed-1" / name).touch()
    (tmp_path / ".mine.writing").touch()
    with alone_in(tmp_path):
        pass
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {
        "data",
        "data/a.json",
        "logs",
        "model",
        "model/deeper",
        "seed-1",
        "seed-1/.lock",
        "seed-1/.run.json.13.writing",
        ".mine.writing",
    }
