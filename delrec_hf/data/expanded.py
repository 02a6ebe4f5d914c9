"""Tables whose rows hold whole lists of items, as one row per interaction."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from delrec_hf.data.columns import find_column
from delrec_hf.data.readers import Table
from delrec_hf.data.times import read_times
from delrec_hf.errors import InputError

IntArray = npt.NDArray[np.int64]


def one_row_each(table: Table, user: str | None = None, item: str | None = None) -> Table:
    """Return a table of one row per interaction; other tables as they are.

    - RecBole's sequential files: a row is a user's (or session's) `item_id_list`, and the item
      after it in `item_id`. A user's longest row counts, as the others are beginnings of it. Times
      are places in the list.
    - MIND's behaviors: a row is a user's `history` of clicks before, and `impressions` at a time,
      of which those that end in `-1` were clicked. The longest history of a user stands before the
      first impression; clicks of one row have the same time.

    Args:
        table: Interactions.
        user: The user's column, where the recipe names it.
        item: The item's column, where the recipe names it.
    """
    names = table.data.column_names
    user = find_column(table, "user", user)
    lists = next((name for name in names if name.endswith("_list")), None)
    if user is not None and lists is not None and (item or lists).removesuffix("_list") in names:
        return _of_lists(table, user, lists, (item or lists).removesuffix("_list"))
    if user is not None and {"history", "impressions"} <= set(names):
        return _of_impressions(table, user)
    return table


def _of_lists(table: Table, user: str, lists: str, item: str) -> Table:
    frame = table.data.select([user, lists, item]).to_pandas()
    words = frame[lists].map(_words)
    longest = words.map(len).groupby(frame[user], sort=False).idxmax()
    chosen = frame.loc[longest]
    items = [[*words[row], last] for row, last in zip(longest, chosen[item], strict=True)]
    data = _table(chosen[user].tolist(), items, [range(len(one)) for one in items])
    note = (
        f"one row per item of `{lists}`, each user's longest of {len(frame)} rows; times are places"
    )
    return replace(table, data=data, notes=(*table.notes, note), has_header=False)


def _of_impressions(table: Table, user: str) -> Table:
    column = find_column(table, "timestamp")
    if column is None:
        raise InputError(
            f"{table.label} has no column known as timestamp beside history and impressions; found "
            f"{', '.join(table.data.column_names)}; name the columns with data.column_names"
        )
    times = read_times(table.column(column), f"{table.label} column `{column}`")
    if times.bad.any():
        raise InputError(f"{table.at(int(times.bad.argmax()))}: {column} is not a time")
    frame = table.data.select([user, "history", "impressions"]).to_pandas()
    frame["time"] = times.numbers
    history = frame["history"].map(_words)
    longest = history.map(len).groupby(frame[user], sort=False).idxmax()
    first = frame.groupby(user, sort=False)["time"].min()
    before = [
        range(first[name] - len(history[row]), first[name])
        for name, row in zip(frame.loc[longest, user], longest, strict=True)
    ]
    shown = frame["impressions"].map(_words)
    clicked = [[one.removesuffix("-1") for one in row if one.endswith("-1")] for row in shown]
    data = _table(
        [*frame.loc[longest, user], *frame[user]],
        [*history[longest], *clicked],
        [*before, *([time] * len(row) for time, row in zip(frame["time"], clicked, strict=True))],
    )
    if times.unit:
        stamps = data["timestamp"].cast(pa.timestamp(times.unit))
        data = data.set_column(2, "timestamp", stamps)
    note = "one row per click: each user's longest history, then the impressions that end in -1"
    return replace(table, data=data, notes=(*table.notes, note), has_header=False)


def _words(value: object) -> list[str]:
    """Return a list of ids, written with spaces between or typed as one."""
    if value is None or (isinstance(value, float) and value != value):
        return []
    return value.split() if isinstance(value, str) else [str(one) for one in value]  # type: ignore[attr-defined]


def _table(users: list[str], items: list[list[str]], times: "list[range | list[int]]") -> pa.Table:
    counts = np.array([len(one) for one in items], dtype=np.int64)
    return pa.table(
        {
            "user_id": pc.take(pa.array(users), pa.array(np.repeat(np.arange(len(users)), counts))),
            "item_id": pa.array([item for one in items for item in one]),
            "timestamp": pa.array([time for one in times for time in one], pa.int64()),
        }
    )
