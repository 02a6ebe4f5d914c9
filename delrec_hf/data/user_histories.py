"""What each of many users had before, read from a file of histories or of interactions."""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from delrec_hf.data.columns import find_column
from delrec_hf.data.config import DataConfig
from delrec_hf.data.expanded import one_row_each
from delrec_hf.data.filters import codes, first_of_moment, one_of_each
from delrec_hf.data.readers import Table, read_table
from delrec_hf.data.times import NO_TIME
from delrec_hf.data.values import bad_value, read_ids, read_time_columns, time_columns
from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

logger = get_logger(__name__)

_HISTORIES = ("history", "histories", "item_ids", "item_id_list")
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class UserHistories:
    """Histories end to end, in the order in which their users first stand in the file.

    Attributes:
        user_ids: `(users,)` whole numbers where a typed file has those, else texts.
        names: The different ids or titles that the file has.
        items: `(interactions,)` places in `names`, user after user, oldest first.
        bounds: `(users + 1,)`; user u has `items[bounds[u]:bounds[u + 1]]`.
    """

    user_ids: pa.ChunkedArray
    names: pa.Array
    items: IntArray
    bounds: IntArray


def read_user_histories(path: Path) -> UserHistories:
    """Read the users of a file of any format that `read_table` reads.

    A file with a column `history`, or another one of lists, holds one user's history a row, repeats
    and all. Texts there are lists of JSON or Python where they begin with `[`; the others are
    parted at each `|` if one of them has any, else at spaces.

    Any other file holds one interaction a row: a user, an item and a time, in columns as `prepare`
    finds them. They are sorted by time; an item that a user meets again counts the first time.

    Rows that cannot be used are left out, and the log counts them.

    Raises:
        InputError: If the file cannot be read, or holds neither.
    """
    table = read_table(path)
    for fault in table.faults:
        logger.warning("left out: %s", fault.message)
    user, lists = find_column(table, "user"), _column_of_lists(table.data)
    expanded = one_row_each(table, DataConfig(path=str(path)))
    if expanded is table and user is not None and lists is not None:
        found = _of_lists(table, user, lists)
    else:
        found = _of_interactions(expanded)
    twice = len(found.user_ids) - len(pc.unique(found.user_ids))
    if twice:
        logger.warning("%d rows of %s are of a user whom another row has too", twice, path)
    return found


def _column_of_lists(data: pa.Table) -> str | None:
    named = [name for name in data.column_names if name.lower() in _HISTORIES]
    typed = [field.name for field in data.schema if _is_list(field.type)]
    return next(iter([*named, *typed]), None)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _of_lists(table: Table, user: str, lists: str) -> UserHistories:
    users = read_ids(table, user)
    table = table.where(_usable(table, [(user, users.bad, users.why)]))
    values = _as_lists(table, lists)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = pa.table({lists: pc.list_flatten(values)})
    items = read_ids(Table(f"{table.label} column `{lists}`", flat), lists)
    if items.bad.any():
        logger.warning("left out of the histories: %d items without a name", items.bad.sum())
    before = np.concatenate([[0], np.cumsum(~items.bad)])
    encoded = _encoded(items.texts.filter(pa.array(~items.bad)))
    places = encoded.indices.to_numpy().astype(np.int64)
    return UserHistories(_typed(table, user), encoded.dictionary, places, before[bounds])


def _of_interactions(table: Table) -> UserHistories:
    user, item, time = (find_column(table, kind) for kind in ("user", "item", "timestamp"))
    if user is None or item is None or time is None:
        raise InputError(
            f"{table.label} has the columns {', '.join(table.data.column_names)}; expected "
            "`user_id` and `history`, or `user_id`, `item_id` and `timestamp`"
        )
    users, items = read_ids(table, user), read_ids(table, item)
    times = read_time_columns(table, time_columns(table, time, False), None).times
    usable = _usable(
        table,
        [(user, users.bad, users.why), (item, items.bad, items.why), (time, times.bad, NO_TIME)],
    )
    kept = pa.array(usable)
    owners, encoded = codes(users.texts.filter(kept)), _encoded(items.texts.filter(kept))
    places, numbers = encoded.indices.to_numpy().astype(np.int64), times.numbers[usable]
    counts = first_of_moment(owners, places, numbers)
    rows = np.flatnonzero(counts)
    rows = rows[one_of_each(owners[rows], places[rows], numbers[rows], "first")]
    if len(rows) < len(owners):
        logger.info("interactions with an item met before: %d", len(owners) - len(rows))
    rows = rows[np.lexsort((numbers[rows], owners[rows]))]  # stable: ties stay in file order
    first = np.unique(owners, return_index=True)[1]
    ids = _typed(table.where(usable), user).take(pa.array(first))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(owners[rows], minlength=len(ids)))])
    return UserHistories(ids, encoded.dictionary, places[rows], bounds.astype(np.int64))


def _usable(table: Table, columns: Sequence[tuple[str, BoolArray, str]]) -> BoolArray:
    """Mark the rows of which no value is bad, and count the others in the log.

    Raises:
        InputError: If none is left.
    """
    usable = np.ones(table.data.num_rows, dtype=bool)
    for column, bad, why in columns:
        if bad.any():
            told = bad_value(table, column, bad, why)
            if bad.all():
                raise InputError(told)
            logger.warning("left out: %s", told)
        usable &= ~bad
    if not usable.any():
        raise InputError(f"{table.label} holds no row that can be used; the log says why")
    return usable


def _typed(table: Table, user: str) -> pa.ChunkedArray:
    """Return users as whole numbers where a typed file has them as such, else as texts."""
    values = table.column(user)
    return values if pa.types.is_integer(values.type) else read_ids(table, user).texts


def _encoded(texts: pa.ChunkedArray) -> pa.DictionaryArray:
    return pc.dictionary_encode(texts).combine_chunks()


def _as_lists(table: Table, column: str) -> pa.ChunkedArray:
    """Return a column of lists; texts are parted into the lists that they stand for."""
    values = table.column(column)
    kind = values.type
    if _is_list(kind):
        return values
    if not (pa.types.is_string(kind) or pa.types.is_null(kind)):
        raise InputError(
            f"{table.label} column `{column}` holds {kind}; expected lists, or texts: JSON lists, "
            "ids or titles with `|` between, or ids with spaces between"
        )
    texts = pc.utf8_trim_whitespace(values.cast(pa.string()))
    bracketed = pc.starts_with(texts, "[")
    barred = pc.and_(pc.match_substring(texts, "|"), pc.invert(bracketed))
    between = "|" if pc.any(barred).as_py() else None
    starts = range(0, len(texts), _ROWS_AT_ONCE)
    parts = [_parted(texts.slice(start, _ROWS_AT_ONCE), between) for start in starts]
    return pa.chunked_array([chunk for part in parts for chunk in part], pa.list_(pa.string()))


def _parted(texts: pa.ChunkedArray, between: str | None) -> list[pa.Array]:
    """Return some texts as lists.

    Args:
        texts: Without spaces around.
        between: What stands between two items outside of brackets; None: spaces.
    """
    filled = pc.if_else(pc.equal(texts, ""), None, texts)
    lists = (
        pc.utf8_split_whitespace(filled)
        if between is None
        else pc.split_pattern(filled, pattern=between)
    )
    if not pc.any(pc.starts_with(texts, "[")).as_py():
        return lists.chunks
    read = [_listed(text) if text and text.startswith("[") else None for text in filled.to_pylist()]
    rows = [
        parted if own is None else own for own, parted in zip(read, lists.to_pylist(), strict=True)
    ]
    return [pa.array(rows, pa.list_(pa.string()))]


def _listed(text: str) -> list[str | None] | None:
    """Return the list that a text spells in JSON or as Python does; None if it spells none."""
    for parse in (json.loads, ast.literal_eval):
        try:
            found: Any = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list):
            return [None if one is None else _name(one) for one in found]
    return None


def _name(value: Any) -> str:
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if is_whole else str(value)
