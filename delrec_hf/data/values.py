"""A column's values as ids, times, titles and ratings."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from delrec_hf.data.columns import find_column
from delrec_hf.data.problems import shown
from delrec_hf.data.readers import Table
from delrec_hf.data.times import Times, clock_seconds, read_times
from delrec_hf.errors import InputError

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ids:
    """A column of ids.

    Attributes:
        texts: Ids as texts, spaces around them taken off.
        bad: `(rows,)` whether it is none.
        why: What is wrong with those.
    """

    texts: pa.ChunkedArray
    bad: BoolArray
    why: str


def read_ids(table: Table, column: str) -> Ids:
    """Read a column of ids.

    Ids that a typed file holds as whole floats (1.0) become whole numbers (`1`); ids of text files
    stay as written.

    Raises:
        InputError: If the column holds lists or the like.
    """
    values = table.column(column)
    if pa.types.is_floating(values.type):
        floats = values.cast(pa.float64())
        whole = pc.and_(pc.is_finite(floats), pc.equal(pc.floor(floats), floats))
        exact = pc.less_equal(pc.abs(floats), 2.0**53)
        bad = ~_truth(pc.and_(whole, exact))
        numbers = pc.if_else(pa.chunked_array([pa.array(bad)]), 0.0, floats).cast(pa.int64())
        return Ids(
            numbers.cast(pa.string()), bad, "is not an id; expected a text or a whole number"
        )
    texts = pc.utf8_trim_whitespace(column_texts(table, column, "ids"))
    bad = ~_truth(pc.not_equal(texts, ""))
    return Ids(texts, bad, "is not an id; fill it in or leave the row out")


def id_texts(table: Table, column: str) -> pa.ChunkedArray:
    """Return a column of ids as texts, where every row must have one.

    Raises:
        InputError: If an id is missing, or a number with a fraction.
    """
    ids = read_ids(table, column)
    if ids.bad.any():
        raise InputError(bad_value(table, column, ids.bad, ids.why))
    return ids.texts


def title_texts(table: Table, column: str) -> pa.ChunkedArray:
    """Return a column of titles as texts, null where there is none."""
    return column_texts(table, column, "titles")


def column_texts(
    table: Table, column: str, what: str, cure: str = "set data.*_column to the column that does"
) -> pa.ChunkedArray:
    """Return a column as texts, null where there is nothing.

    Args:
        table: Where it stands.
        column: Its name.
        what: What it should hold.
        cure: What to do if it holds lists or the like.

    Raises:
        InputError: If it does.
    """
    values = table.column(column)
    try:
        return values.cast(pa.string())
    except pa.ArrowException as error:
        raise InputError(
            f"{table.label} column `{column}` holds {values.type}, not {what}; {cure}"
        ) from error


@dataclass(frozen=True)
class TimeColumns:
    """Where times stand.

    Attributes:
        times: What they are.
        names: The column, or the one of the day and the one of the time of day.
        bad_name: The one of them that holds the first value that is no time, if there is one.
        is_short: Whether a column holds 32-bit floats, which are exact for some minutes only.
    """

    times: Times
    names: tuple[str, ...]
    bad_name: str
    is_short: bool


def time_columns(table: Table, column: str, is_given: bool) -> tuple[str, ...]:
    """Return the column of the times, or the one of the days and the one of the times of day.

    Args:
        table: Where they stand.
        column: The column found or given.
        is_given: Whether the user named it.

    Raises:
        InputError: If it holds times of day without a date.
    """
    values = table.column(column)
    day = None if is_given else find_column(table, "day")
    day = None if day == column else day
    if (day is None and not _shows_clock(values)) or clock_seconds(values) is None:
        return (column,)
    if day is None:
        raise InputError(
            f"{table.label} column `{column}` holds times of day without a date; set "
            "data.timestamp_column to a column with both, or name the column of the dates `date`"
        )
    return day, column


def _shows_clock(values: pa.ChunkedArray) -> bool:
    """Say whether the first value there is has hours and minutes."""
    if not pa.types.is_string(values.type):
        return bool(pa.types.is_time(values.type))
    texts = (one.as_py() for one in values if one.is_valid)
    return re.search(r"\d:\d\d", next((one for one in texts if one.strip()), "")) is not None


def read_time_columns(table: Table, names: tuple[str, ...], form: str | None) -> TimeColumns:
    """Read the times.

    Args:
        table: Where they stand.
        names: What `time_columns` returned.
        form: How texts are written; None: as they show.

    Raises:
        InputError: If a column holds no times.
    """
    values = table.column(names[0])
    times = read_times(values, f"{table.label} column `{names[0]}`", form)
    if len(names) == 1:
        return TimeColumns(times, names, names[0], values.type in (pa.float32(), pa.float16()))
    seconds = clock_seconds(table.column(names[1]))
    assert seconds is not None, "the column holds times of day"
    both = _together(times, seconds, f"{table.label} column `{names[0]}`")
    bad_name = names[0 if times.bad[both.bad.argmax()] else 1]
    return TimeColumns(both, names, bad_name, False)


def rating_numbers(table: Table, column: str) -> pa.ChunkedArray | None:
    """Return a column of ratings as float64, or None where some are not numbers."""
    try:
        return table.column(column).cast(pa.float64())
    except pa.ArrowException:
        return None


def bad_value(table: Table, column: str, bad: BoolArray, why: str) -> str:
    """Say which row is the first bad one, its value, and how many there are."""
    row = int(bad.argmax())
    value = table.column(column)[row].as_py()
    found = "empty" if value is None or str(value).strip() == "" else f"`{shown(value)}`"
    count = int(bad.sum())
    all_rows = f" ({count} such rows of {len(bad)})" if count > 1 else ""
    return f"{table.at(row)}: {shown(column)} is {found}, which {why}{all_rows}"


def _together(days: Times, seconds: npt.NDArray[np.float64], label: str) -> Times:
    """Add times of day to days."""
    per = {"D": 1, "s": 86400, "ms": 86400 * 10**3, "us": 86400 * 10**6, "ns": 86400 * 10**9}
    if days.unit not in per:
        raise InputError(
            f"{label} holds plain numbers, not dates, beside a column of times of day; set "
            "data.timestamp_column to the column to sort by"
        )
    whole = days.numbers // per[days.unit]
    microseconds = np.round(np.nan_to_num(seconds) * 1e6).astype(np.int64)
    together = (whole * (86400 * 10**6) + microseconds).astype(np.int64)
    return Times(together, days.bad | np.isnan(seconds), "us", f"{days.form} and times of day")


def _truth(values: pa.ChunkedArray) -> BoolArray:
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)
