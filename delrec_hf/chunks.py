"""Rows made for many users, kept in files of so many users each, and shared out."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from accelerate.utils import gather_object
from filelock import FileLock, Timeout

from delrec_hf.errors import InputError
from delrec_hf.files import read_json, write_json
from delrec_hf.hashes import fingerprint
from delrec_hf.logging import get_logger, user_progress

logger = get_logger(__name__)

CHUNK = 64
"""Users of one file: what a kill costs each process at most."""

_SAY_EVERY = 60.0  # seconds between two lines of the log
_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Chunks:
    """Finished chunks of users, one file each, in a folder named by what decides their content.

    Attributes:
        folder: `OUTPUT.parts/FINGERPRINT`.
        users: How many there are.
    """

    folder: Path
    users: int

    @classmethod
    @contextmanager
    def open(
        cls, output: Path, settings: dict[str, Any], users: int, state: PartialState
    ) -> "Iterator[Chunks]":
        """Make the folder, or find what an earlier call left there; all processes do so together.

        Until the block ends no other launch may do so.

        Raises:
            InputError: If the processes do not work on the same, or do not share the folder, or
                another launch is at work there.
        """
        prints = gather_object([fingerprint(settings, users)])
        if len(set(prints)) > 1:
            raise InputError(
                "the processes have read different models or inputs; give all machines the same"
            )
        chunks = cls(output.with_name(f"{output.name}.parts") / prints[0], users)
        with chunks._alone() if state.is_main_process else nullcontext():
            if state.is_main_process:
                chunks._begin(settings)
            state.wait_for_everyone()
            if not (chunks.folder / _SETTINGS).is_file():
                raise InputError(
                    f"process {state.process_index} does not see {chunks.folder}; give an output "
                    "on a disk that all machines share"
                )
            yield chunks

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Make the folder and keep other launches out; a killed one lets go of it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder.parent} cannot be a folder: {error.strerror}; give another output"
            ) from error
        lock = FileLock(self._lock)
        try:
            lock.acquire(blocking=False)
        except Timeout as held:
            raise InputError(
                f"another process writes into {self.folder.parent}; wait for it or end it"
            ) from held
        except NotImplementedError:  # a disk without locks
            logger.debug("%s cannot be locked", self.folder.parent)
        try:
            yield
        finally:
            lock.release()

    def _begin(self, settings: dict[str, Any]) -> None:
        done = len(list(self.folder.glob("*.parquet")))
        if done:
            logger.info(
                "%d of %d users are done already", min(done * CHUNK, self.users), self.users
            )
        for other in sorted(self.folder.parent.glob(f"*/{_SETTINGS}")):
            if other.parent != self.folder and not done:
                logger.warning("starts anew: %s was begun with %s", self.folder.parent,
                               _difference(other, settings))  # fmt: skip
        write_json(self.folder / _SETTINGS, settings)
        for left in self.folder.glob("*.taken"):
            left.unlink()

    def take(self) -> Iterator[tuple[int, int, int]]:
        """Yield chunks that no other process has taken: their number, and the users' bounds."""
        starts = range(0, self.users, CHUNK)
        missing = [one for one in enumerate(starts) if not self._file(one[0]).exists()]
        left = sum(min(CHUNK, self.users - start) for _, start in missing)
        begun = said = time.monotonic()
        bar = user_progress(desc="Recommending", total=self.users, initial=self.users - left)
        done = 0
        for number, start in missing:
            end = min(start + CHUNK, self.users)
            if self._claim(number):
                yield number, start, end
            done += end - start
            bar.update(end - start)
            now = time.monotonic()
            if now - said > _SAY_EVERY or done == left:
                said, rate = now, done / (now - begun)
                logger.info(
                    "%d of %d users, %.1f users/s", self.users - left + done, self.users, rate
                )
        bar.close()

    def _claim(self, number: int) -> bool:
        try:
            self._file(number).with_suffix(".taken").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def keep(self, number: int, table: pa.Table) -> None:
        """Write the rows of a chunk."""
        aside = self._file(number).with_suffix(".writing")
        pq.write_table(table, aside)
        os.replace(aside, self._file(number))

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of all chunks in order."""
        for number in range(-(-self.users // CHUNK)):
            yield pq.read_table(self._file(number))

    def remove(self) -> None:
        """Remove all chunks of this output, also those of other settings, and nothing else."""
        for settings in self.folder.parent.glob(f"*/{_SETTINGS}"):
            shutil.rmtree(settings.parent)
        self._lock.unlink(missing_ok=True)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    @property
    def _lock(self) -> Path:
        return self.folder.parent / "lock"

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08d}.parquet"


def _difference(other: Path, settings: dict[str, Any]) -> str:
    """Say in what the settings of an earlier call differ."""
    try:
        before = read_json(other)
        names = [name for name in settings if before.get(name) != settings[name]]
    except (InputError, AttributeError):
        names = []
    return f"another {', '.join(names)}" if names else "other users"
