"""Loggers, progress bars and durations; nothing is configured on import."""

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TextIO, TypeVar

if TYPE_CHECKING:
    from tqdm.auto import tqdm

T = TypeVar("T")

_LEVELS = ("debug", "info", "warning", "error")


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, below the `delrec_hf` root logger."""
    return logging.getLogger(name)


class _BesideBars(logging.StreamHandler[TextIO]):
    """Writes a line above the progress bars on the terminal, not into them."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def configure(level: str = "info") -> None:
    """Send delrec_hf's log to stderr; only the command line calls this.

    Processes other than the first of a distributed launch log warnings alone.
    """
    if level not in _LEVELS:
        raise ValueError(f"log level `{level}` is unknown; expected one of {', '.join(_LEVELS)}")
    handler = _BesideBars(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger("delrec_hf")
    root.handlers = [handler]
    root.setLevel(level.upper() if _is_main() else "WARNING")
    root.propagate = False


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off the terminal; only the command line calls this."""
    # What a user can do nothing about: a missing kernel for 4-bit weights, and warnings that
    # transformers, PEFT and TRL address to each other.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # A bar appears when its work takes longer than a second, and only where somebody looks: the
    # libraries would show dozens for what is over at once. tqdm reads this when it is imported.
    os.environ.setdefault("TQDM_DELAY", "1")
    if not (_is_main() and sys.stderr.isatty()):
        os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DISABLE_WEIGHTS_LOADING_PROGRESS_BAR", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)


@contextmanager
def said_once() -> Iterator[None]:
    """Keep warnings to the main process where all processes of a launch meet the same."""
    root = logging.getLogger("delrec_hf")
    level = root.level
    if not _is_main():
        root.setLevel("ERROR")
    try:
        yield
    finally:
        root.setLevel(level)


def progress(
    items: Iterable[T],
    *,
    desc: str,
    total: int | None = None,
    disable_tqdm: bool = False,
) -> Iterator[T]:
    """Iterate with a progress bar on the main process's terminal, unless it is switched off."""
    from tqdm.auto import tqdm

    hidden = disable_tqdm or not _is_main()
    yield from tqdm(items, desc=desc, total=total, disable=hidden or None)  # None: if no terminal


def duration(seconds: float) -> str:
    """Return a time as people read it.

    >>> duration(4.5), duration(258), duration(7384)
    ('4.5 s', '4 min 18 s', '2 h 3 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def byte_progress(*, desc: str, total: int | None = None, initial: int = 0) -> "tqdm[NoReturn]":
    """Return a progress bar that counts bytes, shown where `progress` would show one."""
    from tqdm.auto import tqdm

    hidden = not _is_main() or None
    return tqdm(desc=desc, total=total, initial=initial, unit="B", unit_scale=True, disable=hidden)


def user_progress(*, desc: str, total: int, initial: int = 0) -> "tqdm[NoReturn]":
    """Return a progress bar that counts users, shown where `progress` would show one."""
    from tqdm.auto import tqdm

    hidden = not _is_main() or None
    return tqdm(desc=desc, total=total, initial=initial, unit=" users", disable=hidden)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"
