"""A table of ranked lists, checked row by row and turned into item rows."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from delrec_hf.data.prepared import PreparedData
from delrec_hf.data.readers import Table, read_table
from delrec_hf.data.values import id_texts
from delrec_hf.errors import InputError, suggest
from delrec_hf.logging import get_logger
from delrec_hf.teachers.histories import Histories, IntArray, column

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

logger = get_logger(__name__)

_COLUMNS = ("user_id", "position", "item_id", "rank")


class Entries(NamedTuple):
    """The rows of a table of lists, list after list, best first.

    Attributes:
        targets: `(rows,)` where the list's item to come stands in the sequences, end to end.
        items: `(rows,)` item rows.
        scores: `(rows,)`, higher is better.
    """

    targets: IntArray
    items: IntArray
    scores: FloatArray


def read_entries(path: Path, prepared: PreparedData, sequences: Histories) -> Entries:
    """Read and check a table of lists; rows with items before their position are left out.

    Raises:
        InputError: If the file cannot be read, lacks a column, or a row makes no sense.
    """
    table = _read(path)
    users = _rows(table, "user_id", sequences.users, "data/sequences; leave other users out")
    known = pd.Index(column(prepared.items, "item_id"))
    items = _rows(table, "item_id", known, "data/items, not a recommender's inner numbers")
    targets = _targets(table, sequences, users)
    ranks = _whole_numbers(table, "rank")
    has_scores = "score" in table.data.column_names
    scores = _finite_numbers(table, "score") if has_scores else -ranks.astype(np.float64)
    order = np.lexsort((ranks, targets))
    _refuse_contradictions(table, order, targets, ranks, scores)
    _refuse_repeated_items(table, targets, items)
    seen = _seen(sequences, users, items, targets, len(known))
    if seen.any():
        logger.warning(
            "%s: left out %d of %d rows (%.1f%%): the user has the item before the position",
            path,
            seen.sum(),
            len(seen),
            100 * seen.mean(),
        )
    order = order[~seen[order]]
    return Entries(targets[order], items[order], scores[order])


def _read(path: Path) -> Table:
    try:
        table = read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read: {reason}; write the lists again") from error
    for fault in table.faults:
        raise InputError(f"{fault.message}; mend these lines, or write the lists again")
    names = table.data.column_names
    for name in _COLUMNS:
        if name not in names:
            hint = suggest(name, names)
            raise InputError(
                f"{path} has no column `{name}`; expected {', '.join(_COLUMNS)}[, score], found "
                f"{', '.join(names)}{hint}"
            )
    return table


def _rows(table: Table, name: str, known: pd.Index, of: str) -> IntArray:
    """Return the row of each id among those known."""
    texts = id_texts(table, name).combine_chunks()
    found = pc.index_in(texts, value_set=pa.array(known, pa.string()))
    if found.null_count:
        row = pc.index(pc.is_null(found), True).as_py()
        raise InputError(
            f"{found.null_count} of {len(found)} rows name an unknown {name}, first "
            f"{table.at(row)}: `{texts[row]}` (ids are compared as texts); use the ids of {of}"
        )
    rows: IntArray = found.to_numpy().astype(np.int64)
    return rows


def _finite_numbers(table: Table, name: str) -> FloatArray:
    values = table.column(name)
    try:
        numbers = values.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{table.label} column `{name}` holds something else than numbers: {reason}"
        ) from error
    found: FloatArray = numbers.to_numpy().astype(np.float64)
    row = _first(~np.isfinite(found))
    if row is not None:
        raise InputError(
            f"{table.at(row)}: {name} is `{values[row]}`; expected a finite number, or no such row"
        )
    return found


def _whole_numbers(table: Table, name: str) -> IntArray:
    numbers = _finite_numbers(table, name)
    row = _first((numbers < 0) | (numbers != np.floor(numbers)) | (numbers >= 2**53))
    if row is not None:
        raise InputError(
            f"{table.at(row)}: {name} is {numbers[row]:g}; expected a whole number from 0 on"
        )
    return numbers.astype(np.int64)


def _targets(table: Table, sequences: Histories, users: IntArray) -> IntArray:
    positions = _whole_numbers(table, "position")
    lengths = np.diff(sequences.bounds)[users]
    row = _first(positions >= lengths)
    if row is not None:
        raise InputError(
            f"{table.at(row)}: position {positions[row]} is outside the sequence of user "
            f"`{sequences.users[users[row]]}`, whose {lengths[row]} items stand at 0 to "
            f"{lengths[row] - 1}; expected the position of the item to come, counted from 0"
        )
    targets: IntArray = sequences.bounds[users] + positions
    return targets


def _refuse_contradictions(
    table: Table, order: IntArray, targets: IntArray, ranks: IntArray, scores: FloatArray
) -> None:
    """Refuse a rank that a list has twice, and scores in another order than the ranks."""
    one, next_ = order[:-1], order[1:]
    same = targets[one] == targets[next_]
    for bad, why in (
        (ranks[one] == ranks[next_], "a list has each rank once"),
        (scores[one] < scores[next_], "a score must not rise as the rank grows, from 0 or 1 on"),
    ):
        found = _first(same & bad)
        if found is not None:
            row, other = int(next_[found]), int(one[found])
            raise InputError(
                f"{table.at(row)} contradicts row {other + 1} of {_list(table, row)}: ranks "
                f"{ranks[row]} and {ranks[other]}, scores {scores[row]:g} and {scores[other]:g}; "
                f"{why}"
            )


def _refuse_repeated_items(table: Table, targets: IntArray, items: IntArray) -> None:
    order = np.lexsort((items, targets))
    one, next_ = order[:-1], order[1:]
    found = _first((targets[one] == targets[next_]) & (items[one] == items[next_]))
    if found is not None:
        row, other = int(next_[found]), int(one[found])
        raise InputError(
            f"{table.at(row)} repeats item `{table.column('item_id')[row]}` of row {other + 1} in "
            f"{_list(table, row)}; a list has each item once"
        )


def _list(table: Table, row: int) -> str:
    user, position = table.column("user_id")[row], table.column("position")[row]
    return f"the list of user `{user}` position {position}"


def _seen(
    sequences: Histories, users: IntArray, items: IntArray, targets: IntArray, num_items: int
) -> BoolArray:
    """Return which rows name an item that the user has before the list's position."""
    owners = np.repeat(np.arange(len(sequences.users)), np.diff(sequences.bounds))
    pairs = pd.Index(owners * num_items + sequences.items)
    met = pairs.get_indexer(users * num_items + items)
    found: BoolArray = (met >= 0) & (met < targets)
    return found


def _first(bad: BoolArray) -> int | None:
    """Return the first row that is bad, if any is."""
    return int(bad.argmax()) if bad.any() else None
