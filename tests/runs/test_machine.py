"""Faults of the machine: one line, nothing lost, and after the cure the same command goes on."""

import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from delrec_hf.checkpoints import last_checkpoint
from delrec_hf.cli import main
from delrec_hf.runs.record import RunRecord
from tests.runs.films import sections, write_films, write_recipe
from tests.runs.kills import contents

STAGES = ("prepare", "teach", "evaluate")
NOBODY = 65534


def recipe(folder: Path, run: Path) -> str:
    """Teachers alone: no backbone."""
    given = sections(folder / "films")
    kept = {name: given[name] for name in ("data", "teacher", "evaluate")}
    return str(write_recipe(folder, run, kept))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run beside its data."""
    folder = tmp_path_factory.mktemp("straight")
    write_films(folder / "films", users=20)
    config = recipe(folder, folder / "run")
    for stage in STAGES:
        assert main([stage, "--config", config]) == 0
    return folder


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failed command said, beside its log and its bars."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = re.findall(r"delrec: error: .*", said)
    return str(line)


def finished(run: Path) -> dict[str, dict[str, Any]]:
    """What the stages that are done have left, by stage."""
    places = {"prepare": "data", "teach": "teacher", "evaluate": "logs"}
    return {stage: contents(run / places[stage]) for stage in RunRecord(run).stages}


def kept(run: Path) -> dict[str, Any]:
    """What a stage that fails leaves as it was: all but the record and what it wrote on the way."""
    places = [path for path in run.iterdir() if path.name not in ("candidates", "checkpoints")]
    found = {path.name: contents(path) for path in places if path.is_dir()}
    return {**found, "results.json": (run / "results.json").read_bytes()}


def run_through(
    config: str, run: Path, more: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """Run the stages, each again with more room for as long as it fails; return what was said."""
    said = []
    for stage in STAGES:
        before = finished(run)
        capsys.readouterr()
        while (code := main([stage, "--config", config])) != 0:
            assert code == 2
            said.append(the_line(capsys))
            assert finished(run) == before
            more()
    return said


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], Path]]:
    """A function that makes a disk of so many bytes, or sets its size."""
    place = Path(tempfile.mkdtemp())

    def size(given: int) -> Path:
        kind = "remount,size" if os.path.ismount(place) else "size"
        words = ["mount", "-t", "tmpfs", "-o", f"{kind}={given}", "none", str(place)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs root")
        return place

    yield size
    if os.path.ismount(place):
        subprocess.run(["umount", "--lazy", str(place)], check=True)
    place.rmdir()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on_to_the_same_bytes(
    straight: Path, small_disk: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    room = 2**15
    disk = small_disk(room)
    (disk / "run").mkdir()
    (disk / "films").symlink_to(straight / "films")

    def more() -> None:
        nonlocal room
        room += 2**16
        small_disk(room)

    said = run_through(recipe(disk, disk / "run"), disk / "run", more, capsys)
    assert len(said) > 4
    for line in said:
        assert "No space left on device; make room on its disk and run the same command" in line
    assert any("/run/data" in line for line in said)
    assert any("/run/checkpoints/teach/checkpoint-" in line for line in said)
    assert contents(disk / "run") == contents(straight / "run")


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_grow_is_one_line_and_nothing_finished_is_lost(
    straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(straight, tmp_path, dirs_exist_ok=True)
    run, config = tmp_path / "run", recipe(tmp_path, tmp_path / "run")
    before = kept(run)
    for words in (("prepare", "--train_prefixes", "1"), ("teach", "--hidden_size", "32")):
        capsys.readouterr()
        with files_up_to(2000):
            assert main([*words, "--config", config]) == 2
        assert "File too large; raise the limit on the size of a file" in the_line(capsys)
        assert kept(run) == before
        assert main([words[0], "--config", config]) == 0


@pytest.fixture
def of_nobody(straight: Path) -> Iterator[Path]:
    """The run and its data, in a folder of a user whose rights are this process's."""
    folder = Path(tempfile.mkdtemp())
    shutil.copytree(straight, folder, dirs_exist_ok=True)
    is_root = os.geteuid() == 0
    if is_root:
        for place in (folder, *folder.rglob("*")):
            os.chown(place, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(folder)


@contextmanager
def without_right(place: Path, mode: int) -> Iterator[None]:
    before = place.stat().st_mode
    place.chmod(mode)
    try:
        yield
    finally:
        place.chmod(before)


@pytest.mark.parametrize(
    ("place", "mode", "words"),
    [
        ("recipe.yaml", 0o000, ["teach"]),
        ("films/interactions.csv", 0o000, ["prepare"]),
        ("run/run.json", 0o000, ["teach"]),
        ("run/teacher/teacher.json", 0o000, ["evaluate", "--max_users", "5"]),
        ("run", 0o555, ["teach", "--hidden_size", "32"]),
        ("run/logs", 0o555, ["evaluate", "--max_users", "5"]),
    ],
)
def test_a_lost_right_is_one_line_and_the_files_stay(
    of_nobody: Path, capsys: pytest.CaptureFixture[str], place: str, mode: int, words: list[str]
) -> None:
    run, config = of_nobody / "run", recipe(of_nobody, of_nobody / "run")
    before = kept(run)
    with without_right(of_nobody / place, mode):
        assert main([*words, "--config", config]) == 2
        line = the_line(capsys)
    assert place in line
    assert "ermission denied" in line
    assert kept(run) == before
    assert main([*words, "--config", config]) == 0


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_a_broken_one(of_nobody: Path) -> None:
    checkpoint = of_nobody / "checkpoint-1"
    last_checkpoint(of_nobody, "print")
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"best_global_step": null}')
    from delrec_hf.checkpoints import _seal

    _seal(checkpoint)
    with without_right(checkpoint / "trainer_state.json", 0), pytest.raises(PermissionError):
        last_checkpoint(of_nobody, "print")
    assert last_checkpoint(of_nobody, "print") == str(checkpoint)


@pytest.mark.parametrize("then", [0, 4_000_000_000])
def test_a_clock_set_back_or_ahead_makes_nothing_new_or_old(
    straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], then: int
) -> None:
    shutil.copytree(straight, tmp_path, dirs_exist_ok=True)
    run, config = tmp_path / "run", recipe(tmp_path, tmp_path / "run")
    for place in tmp_path.rglob("*"):
        os.utime(place, (then, then))
    for stage in STAGES:
        assert main([stage, "--config", config]) == 0
        assert f"{stage}: finished before, skipped" in capsys.readouterr().err
    file = tmp_path / "films" / "interactions.csv"
    file.write_text(file.read_text().replace("user", "xxxx"))  # of the same length
    os.utime(file, (then, then))
    assert main(["prepare", "--config", config]) in (0, 2)
    assert "finished before" not in capsys.readouterr().err
    assert run.exists()
