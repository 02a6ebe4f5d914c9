"""One run at a time in a folder: a lock that goes with its process, however that ends."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from accelerate import PartialState

from delrec_hf.errors import InputError
from delrec_hf.files import clear_leftovers
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

_HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN)
_held: set[Path] = set()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder of a run, keep other runs out until the block ends, and clear up in it.

    Of several processes that share the work the first one holds the lock. A run within a run, of a
    study or of several seeds, may ask again. What a killed run left half-written is removed.

    The lock is a record lock of POSIX, on `.lock` in the folder: a dead process holds none, workers
    that outlive a killed run inherit none, and NFS knows it. Where there are no locks, there is
    none. Whoever only reads need not ask.

    Args:
        folder: The run's folder.

    Raises:
        InputError: If it cannot be a folder, or another run is at work there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output_dir {folder} cannot be a folder: {error.strerror}; give another one"
        ) from error
    place = folder.resolve()
    if place in _held or not PartialState().is_main_process:
        yield
        return
    file = _lock(place)
    _held.add(place)
    try:
        clear_leftovers(place)
        yield
    finally:
        _held.discard(place)
        if file is not None:
            Path(file.name).unlink(missing_ok=True)
            file.close()


def _lock(folder: Path) -> TextIO | None:
    """Return the lock's file, open; None where there are no locks."""
    while True:
        try:
            file = (folder / ".lock").open("a+", encoding="utf-8")
        except OSError as error:  # nothing can be written there: the stages will say so
            logger.debug("%s cannot be locked: %s", folder, error)
            return None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with file:
                file.seek(0)
                holder = file.read().strip()
            if error.errno in _HELD_ELSEWHERE:
                raise InputError(
                    f"another run, process {holder or 'unknown'}, is at work in {folder}; wait for "
                    "it or end it, or give another output_dir"
                ) from error
            logger.debug("%s cannot be locked: %s", folder, error)
            return None
        if _is_still_there(file):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()  # its holder has ended meanwhile, and taken the file away


def _is_still_there(file: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat())
    except FileNotFoundError:
        return False
