"""The page of a report: rendered whole, with everything in it, and written with its pictures."""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from delrec_hf import __version__
from delrec_hf.errors import InputError
from delrec_hf.files import replace_folder, write_bytes, write_text
from delrec_hf.logging import get_logger
from delrec_hf.reporting.reading import PICTURE_FILE, FinishedRun, read_runs
from delrec_hf.reporting.sections import Section, of_runs
from delrec_hf.reporting.wording import printable

_HERE = Path(__file__).parent

logger = get_logger(__name__)


def write_report(paths: Sequence[Path], output: Path | None = None) -> Path:
    """Write the report of finished runs: a page that needs no other file, and its pictures.

    Args:
        paths: Folders of runs, or files of results.
        output: The page; None: `report.html` in the run's folder, or in the folder that several
            runs lie in. Pictures go to a folder beside it, of the same name without `.html`, and
            the first one to the run's model, for its card, if the page stays in the run's folder.

    Returns:
        Where the page is.

    Raises:
        InputError: If a run cannot be read, or the page or its pictures would replace something
            else.
    """
    runs = read_runs(paths)
    page = _default(paths) if output is None else output
    folder = page.with_suffix("")
    _check(page, folder)
    sections = of_runs(runs)
    pictures = [one for section in sections for one in section.pictures if one is not None]
    with replace_folder(folder) as aside:
        for one in pictures:
            (aside / f"{one.name}.png").write_bytes(one.png)
    write_text(page, render(runs, sections))
    model = page.parent / "model"
    if len(runs) == 1 and output is None and model.is_dir():
        for one in pictures:
            if one.name == "results-1":
                write_bytes(model / PICTURE_FILE, one.png)
    logger.info("report: %s, and %d pictures in %s", page, len(pictures), folder)
    return page


def render(runs: Sequence[FinishedRun], sections: Sequence[Section]) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"marked": _marked, "breakable": _breakable}
    names = ", ".join(printable(run.name, 60) for run in runs)
    return environment.get_template("page.html.jinja").render(
        title=f"DELRec report: {names}",
        names=names,
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        sections=sections,
        svg=Markup,  # drawn by ourselves, its texts escaped
        written=f"{datetime.now(UTC):%Y-%m-%d}",
        version=__version__,
    )


def _marked(text: str) -> Markup:
    """Return a text as HTML, with what stands between backticks as code.

    >>> _marked("run `a<b`")
    Markup('run <code>a&lt;b</code>')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _breakable(name: str) -> Markup:
    """Return a name as HTML that a narrow column may break after its signs."""
    return Markup(re.sub(r"([/+._])(?=\w)", r"\1<wbr>", str(escape(name))))


def _default(paths: Sequence[Path]) -> Path:
    folders = [path if path.is_dir() else path.parent for path in paths]
    if len(folders) == 1:
        return folders[0] / "report.html"
    parents = [folder.resolve().parent for folder in folders]
    return Path(os.path.commonpath(parents)) / "report.html"


def _check(page: Path, folder: Path) -> None:
    """Refuse to write over what no report is."""
    if page.suffix != ".html":
        raise InputError(f"--output is {page}; expected a file that ends in .html")
    if page.is_dir():
        raise InputError(f"--output is {page}, which is a folder; name a file that ends in .html")
    if folder.exists() and (
        not folder.is_dir() or any(one.suffix != ".png" for one in folder.iterdir())
    ):
        raise InputError(
            f"the pictures of {page} go to {folder}, which holds something else; give another name "
            "as --output"
        )
