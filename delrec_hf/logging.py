"""Loggers and progress bars; nothing is configured on import."""

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_LEVELS = ("debug", "info", "warning", "error")


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, below the `delrec_hf` root logger."""
    return logging.getLogger(name)


def configure(level: str = "info") -> None:
    """Send delrec_hf's log to stderr; only the command line calls this.

    Processes other than the first of a distributed launch log warnings alone.
    """
    if level not in _LEVELS:
        raise ValueError(f"log level `{level}` is unknown; expected one of {', '.join(_LEVELS)}")
    is_main = os.environ.get("RANK", "0") == "0"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger("delrec_hf")
    root.handlers = [handler]
    root.setLevel(level.upper() if is_main else "WARNING")
    root.propagate = False


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off the terminal; only the command line calls this."""
    # What a user can do nothing about: a missing kernel for 4-bit weights, and warnings that
    # transformers, PEFT and TRL address to each other.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DISABLE_WEIGHTS_LOADING_PROGRESS_BAR", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)


def progress(
    items: Iterable[T],
    *,
    desc: str,
    total: int | None = None,
    disable_tqdm: bool = False,
) -> Iterator[T]:
    """Iterate with a progress bar on the main process, unless it is switched off."""
    from tqdm.auto import tqdm

    is_main = os.environ.get("RANK", "0") == "0"
    yield from tqdm(items, desc=desc, total=total, disable=disable_tqdm or not is_main)
