"""A line of questions in front of one worker, which answers those of a kind together."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from delrec_hf.logging import get_logger

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Job = Callable[[list[Question]], Sequence[Answer]]

logger = get_logger(__name__)


class FullError(Exception):
    """The line has no room.

    Attributes:
        seconds: After how many it is worth while to ask again.
    """

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True)
class _Waiting:
    job: Job[Any, Any]
    question: Any
    answer: "Future[Any]"


class WaitingLine:
    """Questions in the order they came, and the thread that answers them; a context manager.

    The worker takes what waits, and calls each job once with all of its questions. What goes wrong
    with several is tried again with each alone, so that a bad one spoils no other.

    Args:
        room: How many may wait.
        together: How many the worker takes at once.
        seconds: How long the first one waits for others.
    """

    def __init__(self, room: int, together: int, seconds: float) -> None:
        self._room, self._together, self._seconds = room, together, seconds
        self._line: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_open = True
        self._pace = 0.0  # seconds for each question, of late
        self._worker = threading.Thread(target=self._work, name="delrec-worker", daemon=True)

    def __enter__(self) -> Self:
        self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer what still waits, and end."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        self._worker.join()

    def __len__(self) -> int:
        return len(self._line)

    @property
    def is_served(self) -> bool:
        """Whether the worker is there and takes questions."""
        return self._is_open and self._worker.is_alive()

    def ask(
        self, job: "Job[Question, Answer]", questions: Sequence[Question]
    ) -> list["Future[Answer]"]:
        """Line up questions, all or none.

        Args:
            job: Answers several questions in their order; equal jobs are called as one.
            questions: What it is called with, perhaps beside others.

        Raises:
            FullError: If there is no room for them.
        """
        asked = [_Waiting(job, one, Future()) for one in questions]
        with self._changed:
            if len(self._line) + len(asked) > self._room or not self._is_open:
                seconds = max(1, math.ceil(len(self._line) * self._pace))
                raise FullError(
                    f"{len(self._line)} histories wait already, and there is room for "
                    f"{self._room}; ask again in {seconds} s",
                    seconds,
                )
            self._line.extend(asked)
            self._changed.notify_all()
        return [one.answer for one in asked]

    def _work(self) -> None:
        while batch := self._next():
            started = time.monotonic()
            groups: dict[Job[Any, Any], list[_Waiting]] = {}
            for one in batch:
                if one.answer.set_running_or_notify_cancel():
                    groups.setdefault(one.job, []).append(one)
            for group in groups.values():
                _answer(group)
            self._pace = (time.monotonic() - started) / len(batch)
            logger.debug("answered %d histories in %d groups", len(batch), len(groups))

    def _next(self) -> list[_Waiting]:
        """Return the questions whose turn it is; none when the line is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._line or not self._is_open)
            self._changed.wait_for(
                lambda: len(self._line) >= self._together or not self._is_open, self._seconds
            )
            number = min(len(self._line), self._together)
            return [self._line.popleft() for _ in range(number)]


def _answer(group: Sequence[_Waiting]) -> None:
    """Answer the questions of one job, or give each its own error."""
    try:
        found = group[0].job([one.question for one in group])
        answers = list(zip(group, found, strict=True))
    except Exception as error:  # whatever it is, the one who asked gets it
        if len(group) == 1:
            group[0].answer.set_exception(error)
            return
        logger.warning(
            "%d histories failed together (%s); each is tried alone",
            len(group),
            type(error).__name__,
        )
        for one in group:
            _answer([one])
        return
    for one, result in answers:
        one.answer.set_result(result)
