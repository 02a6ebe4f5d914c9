"""Examples mapped to instruction rows: the form of a row, the map itself, and where rows lie."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import get_temporary_cache_files_directory, update_fingerprint

from delrec_hf.errors import InputError
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.templates import Domain
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

Batch = dict[str, list[Any]]

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
ROW_FEATURES = Features(
    {
        "prompt": _MESSAGES,
        "completion": _MESSAGES,
        "task": Value("string"),
        "user_id": Value("string"),
        "position": Value("int32"),
        "candidates": List(Value("string")),
        "target": Value("string"),
    }
)
"""TRL's conversational prompt-completion format, and what a row is about."""

_place: ContextVar[Path | None] = ContextVar("place", default=None)


@contextmanager
def rows_kept_in(folder: Path) -> Iterator[None]:
    """Keep the rows that are worded and encoded inside the block; who asks again finds them there.

    Several processes enter it together and ask for the same rows: the first one makes them, the
    others read them. Outside of such a block rows go to files that end with the process.

    Args:
        folder: Made if it is not there. Rows are found again by what they are made of, not by the
            code that makes them: each version needs a folder of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = _place.set(folder)
    try:
        yield
    finally:
        _place.reset(before)


@contextmanager
def made_once() -> Iterator[None]:
    """Let the first process make what is kept, before the others ask for it."""
    if _place.get() is None:
        yield
    else:
        with PartialState().main_process_first():
            yield


def map_examples(
    function: Callable[..., Batch],
    examples: Dataset,
    items: Dataset,
    titles: Sequence[str],
    domain: Domain,
    config: InstructionsConfig,
    desc: str,
    num_proc: int | None,
    **more: Any,
) -> Dataset:
    """Return the instruction rows that a function makes of examples.

    Args:
        function: Makes a batch of rows of a batch of examples; gets the catalogue's `item_ids` and
            `titles`, `domain`, whether candidates are `listed`, and `more`.
        examples: What the rows are made of.
        items: The catalogue, with `item_id`.
        titles: The safe title of each row of `items`.
        domain: How the items are spoken about.
        config: What the prompts show.
        desc: What the progress bar says.
        num_proc: Processes that share the work.
        more: What this function alone needs.

    Raises:
        InputError: If the titles are not those of the items.
    """
    if len(titles) != len(items):
        raise InputError(
            f"{len(titles)} titles are given for {len(items)} items; expected one title per item "
            "row; pass the safe titles of this catalogue"
        )
    given = {
        "item_ids": list(items["item_id"]),
        "titles": list(titles),
        "domain": domain,
        "listed": config.listed,
        **more,
    }
    # Beside the prepared data, where `datasets` would keep the rows, nobody would remove them.
    place = _place.get() or get_temporary_cache_files_directory()
    print_ = update_fingerprint(examples._fingerprint, function, given)
    with made_once():
        return examples.map(
            function,
            batched=True,
            fn_kwargs=given,
            remove_columns=examples.column_names,
            features=ROW_FEATURES,
            num_proc=num_proc,
            desc=desc,
            cache_file_name=str(Path(place, f"{print_}.arrow")),
            new_fingerprint=print_,
        )


def report_left_out(given: int, kept: int, task: str, reason: str) -> None:
    """Count in the log the examples that a task makes no row of."""
    if kept < given:
        logger.info("%s: %d of %d examples left out: %s", task, given - kept, given, reason)


def titles_of(items: Sequence[int], titles: Sequence[str]) -> list[str]:
    """Return the titles of items given by their rows."""
    return [titles[item] for item in items]


def batch_rows(
    task: str,
    batch: Batch,
    chats: list[list[dict[str, str]]],
    offered: list[list[int]],
    targets: list[int],
    item_ids: list[str],
    titles: list[str],
) -> Batch:
    """Return a batch of instruction rows, with `ROW_FEATURES`.

    Args:
        task: `ta`, `rps` or `lsr`.
        batch: The examples' `user_id` and `position`.
        chats: Each row's prompt.
        offered: Each row's candidates, as rows of the catalogue.
        targets: Each row's target, likewise.
        item_ids: The id of each row of the catalogue.
        titles: The safe title of each row of the catalogue.
    """
    return {
        "prompt": chats,
        "completion": [[{"role": "assistant", "content": titles[item]}] for item in targets],
        "task": [task] * len(chats),
        "user_id": batch["user_id"],
        "position": batch["position"],
        "candidates": [[item_ids[item] for item in items] for items in offered],
        "target": [item_ids[item] for item in targets],
    }
