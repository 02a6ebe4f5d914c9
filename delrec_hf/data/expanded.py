"""Tables whose rows hold whole lists of items, as one row per interaction."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from delrec_hf.data.columns import find_column
from delrec_hf.data.config import DataConfig
from delrec_hf.data.problems import listed, shown
from delrec_hf.data.readers import Table
from delrec_hf.data.times import read_times
from delrec_hf.data.values import column_texts
from delrec_hf.errors import InputError

Row = tuple[str | None, str | None, Any]


def one_row_each(table: Table, config: DataConfig) -> Table:
    """Return a table of one row per interaction; other tables as they are.

    - RecBole's sequential files: a row is a user's (or session's) `item_id_list`, and the item
      after it in `item_id`. A user's longest row counts, as the others are beginnings of it. Times
      are places in the list.
    - MIND's behaviors: a row is a user's `history` of clicks before, and `impressions` at a time,
      of which those that end in `-1` were clicked. The longest history of a user stands before the
      first impression; clicks of one row have the same time.

    Args:
        table: Interactions.
        config: Which columns are which, where they are not found by name.

    Raises:
        InputError: If a shorter row holds what the longest one does not: it would be lost.
    """
    names = table.data.column_names
    user = find_column(table, "user", config.user_column)
    item = config.item_column
    lists = next((name for name in names if name.endswith("_list")), None)
    if user is not None and lists is not None and (item or lists).removesuffix("_list") in names:
        return _of_lists(table, user, lists, (item or lists).removesuffix("_list"))
    if user is not None and {"history", "impressions"} <= set(names):
        return _of_impressions(table, user, config)
    return table


def _of_lists(table: Table, user: str, lists: str, item: str) -> Table:
    users = column_texts(table, user, "ids").to_pylist()
    lasts = column_texts(table, item, "ids").to_pylist()
    own = [[*row, last or ""] for row, last in zip(_words(table, lists), lasts, strict=True)]
    longest = _longest(users, own)
    rows: list[Row] = []
    for row, (name, items) in enumerate(zip(users, own, strict=True)):
        if items != own[longest.get(name, row)][: len(items)]:
            raise InputError(_is_lost(table, row, name, lists))
        if longest.get(name, row) == row:
            rows += [(name, one, place) for place, one in enumerate(items)]
    note = (
        f"one row per item of `{lists}`, each user's longest of {len(own)} rows; times are places"
    )
    return _expanded(table, rows, "", note)


def _of_impressions(table: Table, user: str, config: DataConfig) -> Table:
    column = find_column(table, "timestamp", config.timestamp_column)
    if column is None:
        raise InputError(
            f"{table.label} has no column known as timestamp beside history and impressions; found "
            f"{listed(table.data.column_names)}; name the columns with data.column_names"
        )
    label = f"{table.label} column `{column}`"
    times = read_times(table.column(column), label, config.timestamp_format)
    moments = [
        None if bad else number
        for number, bad in zip(times.numbers.tolist(), times.bad.tolist(), strict=True)
    ]
    users = column_texts(table, user, "ids").to_pylist()
    history, seen = _words(table, "history"), _words(table, "impressions")
    clicked = [[one.removesuffix("-1") for one in row if one.endswith("-1")] for row in seen]
    met: defaultdict[str | None, set[str]] = defaultdict(set)
    first: dict[str | None, Any] = {}
    for name, new, moment in zip(users, clicked, moments, strict=True):
        met[name].update(new)
        if moment is not None:
            first[name] = min(moment, first.get(name, moment))
    longest = _longest(users, history)
    before: list[Row] = []
    rows: list[Row] = []
    for row, (name, own) in enumerate(zip(users, history, strict=True)):
        kept = longest.get(name, row)
        if not met[name].union(history[kept]).issuperset(own):
            raise InputError(_is_lost(table, row, name, "history"))
        if kept == row:
            start = first[name] - len(own) if name in first else None
            before += [
                (name, one, None if start is None else start + place)
                for place, one in enumerate(own)
            ]
        rows += [(name, one, moments[row]) for one in clicked[row]]
    note = "one row per click: each user's longest history, then the impressions that end in -1"
    return _expanded(table, [*before, *rows], times.unit, note)


def _words(table: Table, column: str) -> list[list[str]]:
    """Return lists of ids, written with spaces between or typed as such."""
    values = table.column(column)
    if not pa.types.is_nested(values.type) or pa.types.is_struct(values.type):
        return [(one or "").split() for one in column_texts(table, column, "ids").to_pylist()]
    return [[_id(one) for one in row or []] for row in values.to_pylist()]


def _id(value: object) -> str:
    if value is None:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _longest(users: Sequence[str | None], lists: Sequence[list[str]]) -> dict[str | None, int]:
    """Return the row of each user's longest list; rows without a user stand for themselves."""
    longest: dict[str | None, int] = {}
    for row, name in enumerate(users):
        if name and len(lists[row]) > len(lists[longest.setdefault(name, row)]):
            longest[name] = row
    return longest


def _is_lost(table: Table, row: int, user: str | None, column: str) -> str:
    return (
        f"{table.at(row)}: `{column}` of user `{shown(user)}` holds items that their longest one "
        "does not (it was cut, perhaps); give whole lists, or one row per interaction"
    )


def _expanded(table: Table, rows: list[Row], unit: str, note: str) -> Table:
    users, items, times = zip(*rows, strict=True) if rows else ((), (), ())
    moments = pa.array(times)
    if unit:
        days = unit == "D"
        moments = moments.cast(pa.int32() if days else pa.int64())
        moments = moments.cast(pa.date32() if days else pa.timestamp(unit))
    columns = {"user_id": pa.array(users, pa.string()), "item_id": pa.array(items, pa.string())}
    data = pa.table({**columns, "timestamp": moments})
    return replace(table, data=data, notes=(*table.notes, note), has_header=False)
