"""Writing to disk so that a killed process leaves either the old content or the new."""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from delrec_hf.errors import InputError


def write_text(path: str | Path, text: str) -> None:
    """Write `text` beside `path`, then rename it into place."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` beside `path`, then rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.writing")
    aside.write_bytes(content)
    os.replace(aside, path)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON beside `path`, then rename it into place.

    Raises:
        ValueError: If a number in it is not finite: JSON has none such. What was there stays.
    """
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path} is not written, a number in it is not finite: {error}") from error
    write_text(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: If something else than this toolkit wrote it, or wrote half of it, or a number
            in it is not finite.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); restore it, or remove it and run again"
        ) from error


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads and JSON has not."""
    raise ValueError(f"it holds {name}, and JSON has finite numbers alone")


@contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends without an error.

    What was at `path` stays untouched until the new content is complete, and is then removed. What
    a killed process left beside `path` is put back or removed first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        kind = left.name.removeprefix(f".{path.name}.").split(".")[1:]
        if kind == ["old"] and not path.exists():
            os.replace(left, path)
        elif kind in (["old"], ["writing"]):
            shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".writing", dir=path.parent))
    aside.chmod(0o755)
    try:
        yield aside
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            os.replace(path, old)
        os.replace(aside, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
