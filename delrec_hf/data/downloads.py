"""Files from the web: whole and checked under their name, or not there at all."""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Retry

from delrec_hf import __version__
from delrec_hf.errors import InputError
from delrec_hf.files import write_text
from delrec_hf.logging import byte_progress, get_logger

logger = get_logger(__name__)

# pooch 1.8 and `datasets` 5.2 start anew when a connection breaks. huggingface_hub's `http_get`,
# which is not public, goes on without If-Range, so that halves of two versions can be joined, and
# gives up at a 5xx. requests brings connections, proxies, certificates and redirects, urllib3 the
# pauses between tries; what is left to do is here.
RETRIES = Retry(total=5, backoff_factor=0.5)
"""How often in a row a try may bring nothing new, and the pauses: 0, 1, 2, 4, 8 seconds."""

_LONGEST_PAUSE = 120  # seconds that a server may ask for before a person is asked instead
_TIMEOUTS = (10, 60)  # seconds to connect, and without a byte
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 1 << 20
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads them
_HEADERS = {
    "User-Agent": f"delrec_hf/{__version__}",
    "Accept-Encoding": "identity",  # a file's own bytes: ranges and checksums are those of it
}


class _MayPassError(Exception):
    """A failure that may pass; `pause` is what the server asks for before the next try."""

    def __init__(self, reason: str, pause: float = 0) -> None:
        super().__init__(reason)
        self.pause = pause


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    by_hand: str | None = None,
) -> None:
    """See that a file from the web lies at `path`, and is the right one.

    A file that is there already is checked and used without a request. What arrives is kept in
    `path` + `.part` until it is whole: a later try or process asks for the rest alone, if the
    server still has the same file. Of two processes at once one downloads and the other waits.

    Args:
        url: Where the file is.
        path: Where it shall lie.
        size: Its bytes, where known.
        checksum: `sha256:...`, `md5:...` or another of hashlib's, where known.
        by_hand: What messages tell a user to do instead; by default to put the file at `path`.

    Raises:
        InputError: If it cannot be had, or is not the right one; a wrong download is removed.
    """
    by_hand = by_hand or f"download {url} elsewhere and put it at {path}"
    with locked(path):
        if path.exists():
            cure = f"remove it to download it again, or {by_hand}"
            _check(path, size, checksum, f"{path} is not {url}", cure)
            return
        refuse_offline(path.name, by_hand)
        part = path.with_name(f"{path.name}.part")
        _fetch(url, part, size, by_hand)
        try:
            cure = f"try again; if it stays so, the file has changed at its source: {by_hand}"
            _check(part, size, checksum, f"{url} is not the expected file", cure)
        except InputError:
            _drop(part)
            raise
        os.replace(part, path)
        _drop(part)


def refuse_offline(name: str, by_hand: str) -> None:
    """Raise `InputError` if the environment forbids the network."""
    for variable in _OFFLINE:
        if os.environ.get(variable, "").upper() in _TRUE:
            raise InputError(
                f"{name} is not here and {variable} is set; {by_hand}, or unset {variable}"
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process, and the only thread, that writes `path`.

    Raises:
        InputError: If its folder cannot be written, now or in the block.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            logger.info("waiting for another process that writes %s", path)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written ({error}); make room, or name another folder by "
            "DELREC_HOME"
        ) from error


def file_digest(path: Path, kind: str) -> str:
    """Return a file's sha256, md5, ... as hexadecimal digits."""
    digest = hashlib.new(kind, usedforsecurity=False)
    total = path.stat().st_size
    with path.open("rb") as stream, byte_progress(desc=f"checking {path.name}", total=total) as bar:
        while block := stream.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _check(path: Path, size: int | None, checksum: str | None, problem: str, cure: str) -> None:
    found = path.stat().st_size
    if size is not None and found != size:
        raise InputError(f"{problem}: it has {found} bytes, expected {size}; {cure}")
    if checksum is not None:
        kind, _, expected = checksum.partition(":")
        got = file_digest(path, kind)
        if got != expected.lower():
            raise InputError(f"{problem}: its {kind} is {got}, expected {expected}; {cure}")


def _fetch(url: str, part: Path, size: int | None, by_hand: str) -> None:
    """Ask until a part is whole, or nothing more comes."""
    retries = RETRIES
    while True:
        before = _length(part)
        try:
            _continue(url, part, size, by_hand)
            return
        except _MayPassError as failure:
            retries = RETRIES if _length(part) > before else retries
            try:
                retries = retries.increment("GET", url, error=failure)
            except MaxRetryError:
                raise InputError(f"{url} cannot be had ({failure}); {by_hand}") from failure
            if failure.pause > _LONGEST_PAUSE:
                raise InputError(
                    f"{url} cannot be had ({failure}, and the server asks for a pause of "
                    f"{failure.pause:.0f} s); start again later, or {by_hand}"
                ) from failure
            pause = max(failure.pause, retries.get_backoff_time())
            logger.warning("%s: %s; trying again in %d s", url, failure, pause)
            time.sleep(pause)


def _continue(url: str, part: Path, size: int | None, by_hand: str) -> None:
    """Ask once for what a part lacks of a file, and add what comes."""
    have, version = _length(part), _version(part)
    if not version:  # whose half this is, nobody can say
        have = 0
    if have and have == size:
        return
    ranged = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    try:
        with requests.get(
            url, headers=_HEADERS | ranged, stream=True, timeout=_TIMEOUTS
        ) as response:
            if response.status_code == 416 and _total(response) == have:
                return
            _refuse(response, part, by_hand)
            start = have if response.status_code == 206 else 0
            total = _total(response)
            if size is not None and total not in (None, size):
                raise InputError(
                    f"{url} has {total} bytes, expected {size}: it has changed at its source; "
                    f"{by_hand}"
                )
            _add(response, part, start, total)
    except (requests.RequestException, HTTPError) as error:
        cause = _innermost(error)
        reason = " ".join(str(cause).split()) or type(cause).__name__
        if isinstance(cause, ValueError):  # a bad address, or a certificate that is not right
            raise InputError(f"{url} cannot be had ({reason}); {by_hand}") from error
        raise _MayPassError(reason) from error
    if total is not None and _length(part) != total:
        raise _MayPassError(f"{_length(part)} of {total} bytes came")


def _refuse(response: requests.Response, part: Path, by_hand: str) -> None:
    """Raise for an answer that is neither the file nor the asked part of the same file."""
    status, have = response.status_code, _length(part)
    if status == 206:
        begins = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if begins and _version_of(response) in ("", _version(part)):
            return
    elif status == 200:
        if not response.headers.get("Content-Type", "").startswith("text/html"):
            return
        raise InputError(
            f"{response.url} is a web page, not the file (does the network ask for a login?); "
            f"{by_hand}"
        )
    if status in (206, 416):
        _drop(part)
        raise _MayPassError("the file has changed at its source, starting anew")
    if status in _MAY_PASS:
        asked = RETRIES.get_retry_after(response.raw)
        raise _MayPassError(f"status {status} {response.reason}", asked or 0)
    raise InputError(f"{response.url} cannot be had (status {status} {response.reason}); {by_hand}")


def _add(response: requests.Response, part: Path, start: int, total: int | None) -> None:
    """Write an answer's bytes to a part, from `start` on."""
    if not start:
        _drop(part)
        write_text(_version_path(part), _version_of(response))
        amount = "a file of unknown size" if total is None else f"{total:,} bytes"
        logger.info("downloading %s (%s)", response.url, amount)
    else:
        logger.info("going on with %s from byte %d of %s", response.url, start, total)
    bar = byte_progress(desc=part.stem, total=total, initial=start)
    with part.open("ab") as stream, bar:
        for block in response.raw.stream(_BLOCK, decode_content=False):
            stream.write(block)
            bar.update(len(block))


def _total(response: requests.Response) -> int | None:
    """Return the bytes of the whole file, where an answer names them."""
    whole = re.fullmatch(r"bytes .*/(\d+)", response.headers.get("Content-Range", ""))
    if whole:
        return int(whole[1])
    length = response.headers.get("Content-Length", "")
    return int(length) if response.status_code == 200 and length.isdigit() else None


def _version_of(response: requests.Response) -> str:
    """Return what tells a version of a file from others: a strong ETag, else its date."""
    tag = response.headers.get("ETag", "")
    strong = tag and not tag.startswith("W/")
    return tag if strong else response.headers.get("Last-Modified", "")


def _version_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _version(part: Path) -> str:
    path = _version_path(part)
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_path(part).unlink(missing_ok=True)


def _innermost(error: BaseException) -> BaseException:
    """Return what is at the bottom of an error of requests and urllib3."""
    for inner in (getattr(error, "reason", None), *error.args):
        if isinstance(inner, Exception):
            return _innermost(inner)
    return error
