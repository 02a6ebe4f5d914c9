import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from delrec_hf.cli import main
from tests.reporting.finished import results, write, write_run

pytest.importorskip("matplotlib")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs `delrec report`, which is refused, and returns its one line."""

    def run(*words: object) -> str:
        assert main(["report", *map(str, words)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


def test_mistakes_are_one_line_and_change_nothing(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    assert "is not there" in refused(tmp_path / "none")
    assert "run `delrec evaluate` first" in refused(tmp_path)
    assert "each run once" in refused(run, run / "results.json")
    assert "ends in .html" in refused(run, "--output", tmp_path / "page.pdf")
    # The pictures of run.html would lie in run/.
    assert "which holds something else" in refused(run, "--output", tmp_path / "run.html")
    assert sorted(tmp_path.rglob("*")) == before


def test_without_the_extra_the_command_says_how_to_install_it(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        one for one in sys.modules if one.startswith(("delrec_hf.reporting", "matplotlib"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "needs matplotlib: `pip install 'delrec-hf[report]'`" in refused(tmp_path)


def test_the_command_prints_where_the_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results.json", {**results(), "slices": []})
    page = tmp_path / "other" / "mine.html"
    assert main(["report", str(tmp_path), "--output", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.is_file()
    assert (tmp_path / "other" / "mine" / "results-1.png").is_file()
