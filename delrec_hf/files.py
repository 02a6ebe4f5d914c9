"""Writing to disk so that a killed process leaves either the old content or the new."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from delrec_hf.errors import InputError

_ASIDE = re.compile(r"\.(.+)\.(?:\d+|\w{8})\.(writing|old)")
"""What is written, or was replaced just now, beside its place: `.NAME.PROCESS.KIND`."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how libraries written in Rust name one


def write_text(path: str | Path, text: str) -> None:
    """Write `text` beside `path`, then rename it into place."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` beside `path`, then rename it into place."""
    with replace_file(path) as aside:
        aside.write_bytes(content)


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
def replace_file(path: str | Path) -> Iterator[Path]:
    """Yield a place for a file that becomes `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        with naming(path):
            yield aside
            to_disk([aside])
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends without an error.

    What was at `path` stays untouched until the new content is complete, and is then removed. What
    a killed process left beside `path` is put back or removed first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path.parent, path.name)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".writing", dir=path.parent))
    aside.chmod(0o755)
    try:
        with naming(path):
            yield aside
            to_disk(one for one in aside.rglob("*") if one.is_file())
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            if path.exists():
                os.replace(path, old)
            os.replace(aside, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name what is written in the faults of the machine that come without a name.

    Raises:
        OSError: With `path`, in place of one that names no file, and of what libraries raise where
            they met one.
    """
    try:
        yield
    except OSError as fault:
        if fault.errno is None or fault.filename is not None:
            raise
        raise OSError(fault.errno, os.strerror(fault.errno), str(path)) from fault
    except Exception as fault:  # those of libraries in Rust are of no class that Python knows
        met = _OS_ERROR.search(str(fault))
        if met is None:
            raise
        raise OSError(int(met[1]), os.strerror(int(met[1])), str(path)) from fault


def to_disk(files: Iterable[Path]) -> None:
    """Wait until the content of files would outlive a power cut; a renamed file could be empty."""

    def sync(file: Path) -> None:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())

    with ThreadPoolExecutor(16) as pool:  # the disk takes many at once in the time of one
        list(pool.map(sync, files))


def clear_leftovers(folder: Path) -> None:
    """Put back or remove what killed processes left beside its place, in a folder and below it.

    Nobody else may be writing there. Folders of other runs, which have a `run.json` or a `.lock` of
    their own, are left alone.

    Args:
        folder: The folder of a run.
    """
    for place, inside, _ in os.walk(folder):
        inside[:] = [
            name
            for name in inside
            if not any((Path(place) / name / own).exists() for own in ("run.json", ".lock"))
        ]
        _clear(Path(place))


def _clear(folder: Path, only: str | None = None) -> None:
    for left in list(folder.iterdir()):
        found = _ASIDE.fullmatch(left.name)
        if found is None or only not in (None, found[1]):
            continue
        path = left.with_name(found[1])
        if found[2] == "old" and not path.exists():
            os.replace(left, path)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
