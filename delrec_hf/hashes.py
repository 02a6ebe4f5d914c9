"""Hashes that stand for files and for plain values; those of files are kept while they stay."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from delrec_hf.files import write_json
from delrec_hf.home import home
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

_SETTLED = 2_000_000_000  # ns; what was written just now may change again under the same time
_known: dict[str, list[str]] = {}  # where files are: their state, and their hash in that state


def content_hash(*paths: Path) -> str:
    """Return the sha256 of files and of all files of folders, with their names."""
    digest = hashlib.sha256()
    for one in _files(paths):
        digest.update(one.name.encode())
        with one.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def content_hash_of(name: str, sha256: str) -> str:
    """Return the `content_hash` of a file with this name and this sha256, without reading it."""
    return hashlib.sha256(name.encode() + bytes.fromhex(sha256)).hexdigest()


def cached_content_hash(*paths: Path) -> str:
    """Return `content_hash`; files are read once for as long as they stay as they are.

    A file stays as it is while its place, size, inode, and times of change do. What was found is
    kept for other processes in `home()/content_hashes.json`. Where that cannot be written, each
    process reads for itself.
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
    return home() / "content_hashes.json"


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
