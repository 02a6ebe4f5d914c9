"""Folders are replaced whole, whatever happens meanwhile."""

import subprocess
import sys
from pathlib import Path

import pytest

from delrec_hf.errors import InputError
from delrec_hf.files import read_json, replace_folder

UNWRITABLE = "\ud800"


def make(path: Path, text: str) -> None:
    with replace_folder(path) as aside:
        (aside / "a.txt").write_text(text, encoding="utf-8")


def test_an_error_leaves_the_old_content(tmp_path: Path) -> None:
    make(tmp_path / "one", "old")
    with pytest.raises(UnicodeEncodeError):
        make(tmp_path / "one", UNWRITABLE)
    assert (tmp_path / "one" / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    make(tmp_path / "one", "old")
    script = (
        "import os, signal, sys; from delrec_hf.files import replace_folder\n"
        "with replace_folder(sys.argv[1]) as aside:\n"
        "    (aside / 'a.txt').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "one")], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    for other in (".one.more.1.writing", ".another.1.writing", ".one.txt"):
        (tmp_path / other).mkdir()
    make(tmp_path / "one", "new")
    assert (tmp_path / "one" / "a.txt").read_text() == "new"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"one", ".one.more.1.writing", ".another.1.writing", ".one.txt"}


def test_content_that_a_killed_process_had_moved_away_is_put_back(tmp_path: Path) -> None:
    make(tmp_path / "one", "old")
    (tmp_path / "one").rename(tmp_path / ".one.1.old")
    with pytest.raises(UnicodeEncodeError):
        make(tmp_path / "one", UNWRITABLE)
    assert (tmp_path / "one" / "a.txt").read_text() == "old"
    (tmp_path / "one").rename(tmp_path / ".one.1.old")
    make(tmp_path / "one", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_json_with_a_number_that_is_not_finite_is_refused(tmp_path: Path, number: str) -> None:
    (tmp_path / "results.json").write_text(f'{{"hr@1": {number}}}')
    with pytest.raises(InputError, match=f"holds {number}") as refused:
        read_json(tmp_path / "results.json")
    assert "\n" not in str(refused.value)
