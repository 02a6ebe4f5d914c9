"""Writing to disk so that a killed process leaves either the old content or the new; hashes."""

import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

_SETTLED = 2_000_000_000  # ns; what was written just now may change again under the same time
_known: dict[str, list[str]] = {}  # where files are: their state, and their hash in that state


def write_text(path: str | Path, text: str) -> None:
    """Write `text` beside `path`, then rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.writing")
    aside.write_text(text, encoding="utf-8")
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
        InputError: If something else than this toolkit wrote it, or wrote half of it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); restore it, or remove it and run again"
        ) from error


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


def content_hash(*paths: Path) -> str:
    """Return the sha256 of files and of all files of folders, with their names."""
    digest = hashlib.sha256()
    for one in _files(paths):
        digest.update(one.name.encode())
        with one.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def cached_content_hash(*paths: Path) -> str:
    """Return `content_hash`; files are read once for as long as they stay as they are.

    A file stays as it is while its place, size, inode, and times of change do. What was found is
    kept for other processes in `content_hashes.json`, in the folder that `DELREC_HOME` names, by
    default `delrec_hf` in the user's cache folder. Where that cannot be written, each process reads
    for itself.
    """
    place = "\n".join(str(path.resolve()) for path in paths)
    state, newest = _state(paths)
    if place not in _known:
        _known.update(_kept_hashes())
    if _known.get(place, [""])[0] == state:
        return _known[place][1]
    digest = content_hash(*paths)
    if time.time_ns() - newest > _SETTLED and _state(paths) == (state, newest):
        _known[place] = [state, digest]
        _keep_hash(place)
    return digest


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        inside = sorted(one for one in path.rglob("*") if one.is_file())
        yield from inside if path.is_dir() else [path]


def _state(paths: Iterable[Path]) -> tuple[str, int]:
    """Return what stands for the state of files, and the time of their last change in ns."""
    facts, newest = [], 0
    for one in _files(paths):
        found = one.stat()
        changed = (found.st_mtime_ns, found.st_ctime_ns)
        facts.append((one.name, found.st_size, found.st_ino, *changed))
        newest = max(newest, *changed)
    return fingerprint(facts), newest


def _hashes_file() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("DELREC_HOME") or Path(caches) / "delrec_hf"
    return Path(home) / "content_hashes.json"


def _kept_hashes() -> dict[str, list[str]]:
    try:
        kept = json.loads(_hashes_file().read_text(encoding="utf-8"))
        return {str(place): [str(state), str(digest)] for place, (state, digest) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        logger.debug("no kept hashes: %s", error)
        return {}


def _keep_hash(place: str) -> None:
    """Write a hash beside those that other processes keep; of two at once, one may be lost."""
    kept = _kept_hashes() | {place: _known[place]}
    there = {name: one for name, one in kept.items() if Path(name.split("\n")[0]).exists()}
    try:
        write_json(_hashes_file(), there)
    except (OSError, RuntimeError) as error:
        logger.debug("hashes are not kept: %s", error)


def fingerprint(*parts: Any) -> str:
    """Return a short hash of plain values.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
