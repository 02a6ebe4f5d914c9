"""Which column is which, and its values as ids, times and titles."""

import re

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from delrec_hf.data.readers import Table
from delrec_hf.errors import InputError, suggest

_ALIASES = {
    "user": "user_id user uid reviewer_id user_name customer_id visitor_id member_id session_id",
    "item": (
        "item_id item iid movie_id book_id game_id product_id parent_asin asin isbn app_id "
        "track_id song_id artist_id anime_id article_id news_id video_id business_id sku"
    ),
    "timestamp": (
        "timestamp time ts unix_review_time unix_time date_time datetime date created_at "
        "event_time rating_timestamp review_date"
    ),
    "title": (
        "title item_title movie_title book_title game_title product_title name item_name "
        "movie_name product_name app_name track_name song_name artist_name"
    ),
    "rating": "rating overall stars",
}
"""Names a column is known by, the likeliest first; case and signs do not count: userId, USER-ID."""


def find_column(table: Table, kind: str, given: str | None = None, also: str = "") -> str | None:
    """Find the column of a kind (user, item, timestamp, title, rating).

    Args:
        table: Where to look.
        kind: What is looked for.
        given: The column's name, where the user has set it and the table has it.
        also: Further names, after the known ones.

    Returns:
        The column's name, or None if there is none.
    """
    names = table.data.column_names
    if given in names:
        return given
    by_key = {_key(name): name for name in reversed(names)}
    known = (_key(alias) for alias in f"{_ALIASES[kind]} {also}".split())
    return next((by_key[key] for key in known if key in by_key), None)


def missing_column(table: Table, kind: str, given: str | None = None) -> InputError:
    """Say that a table lacks a column, which ones it has, and which key to set."""
    names = table.data.column_names
    what = f"no column `{given}`" if given else f"no column known as {kind}"
    cure = "" if given else f"; set data.{kind}_column to the right one"
    hint = suggest(given, names) if given else ""
    return InputError(f"{table.label} has {what}; found {', '.join(names)}{hint}{cure}")


def id_texts(table: Table, column: str) -> pa.ChunkedArray:
    """Return a column of ids as texts, spaces around them taken off.

    Ids that a typed file holds as whole floats (1.0) become whole numbers (`1`); ids of text files
    stay as written.

    Raises:
        InputError: If an id is missing, or a number with a fraction.
    """
    values = table.column(column)
    if pa.types.is_floating(values.type):
        whole = pc.and_(pc.is_finite(values), pc.equal(pc.floor(values), values))
        bad = pc.invert(pc.fill_null(whole, False))
        _refuse(table, column, bad, "is not an id; expected a text or a whole number")
        values = values.cast(pa.int64())
    texts = pc.utf8_trim_whitespace(_texts(table, column, values, "ids"))
    bad = pc.fill_null(pc.equal(texts, ""), True)
    _refuse(table, column, bad, "is not an id; fill it in or leave the row out")
    return texts


def title_texts(table: Table, column: str) -> pa.ChunkedArray:
    """Return a column of titles as texts, null where there is none."""
    return _texts(table, column, table.column(column), "titles")


def time_numbers(table: Table, column: str) -> pa.ChunkedArray:
    """Return a column of times as numbers that grow with time, without loss of precision.

    Whole numbers become int64, other numbers float64, dates (typed, or ISO 8601 texts; without a
    zone they count as UTC) int64 of the finest unit among them.

    Raises:
        InputError: If a value is missing or neither a number nor an ISO date.
    """
    values = table.column(column)
    if pa.types.is_temporal(values.type):
        _refuse(table, column, pc.is_null(values), _NO_TIME)
        is_short = pa.types.is_date32(values.type) or pa.types.is_time32(values.type)
        whole = values.cast(pa.int32()) if is_short else values
        return whole.cast(pa.int64())
    if pa.types.is_string(values.type):
        values = pc.utf8_trim_whitespace(values)
    for kind in (pa.int64(), pa.float64()):
        try:
            numbers = values.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        bad = pc.invert(pc.fill_null(pc.is_finite(numbers), False))
        _refuse(table, column, bad, _NO_TIME)
        return numbers
    return _dates(table, column)


def rating_numbers(table: Table, column: str) -> pa.ChunkedArray | None:
    """Return a column of ratings as float64, or None where some are not numbers."""
    try:
        return table.column(column).cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


_NO_TIME = "is not a time; expected a number or an ISO date such as 2001-12-31T23:59:59"


def _dates(table: Table, column: str) -> pa.ChunkedArray:
    values = _texts(table, column, table.column(column), "times")
    texts = pd.Series(values.to_pandas(), dtype="str")
    numbers = pd.to_numeric(texts, errors="coerce")
    dates = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    # Whichever reading fails less is what was meant; its first failure is the one to mend.
    bad = dates.isna() if dates.isna().sum() <= numbers.isna().sum() else numbers.isna()
    _refuse(table, column, pa.chunked_array([pa.array(bad.to_numpy())]), _NO_TIME)
    return pa.chunked_array([pa.array(dates).cast(pa.int64())])


def _texts(table: Table, column: str, values: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{table.label} column `{column}` holds {values.type}, not {what}; set data.*_column "
            "to the column that does"
        ) from error


def _refuse(table: Table, column: str, bad: pa.ChunkedArray, why: str) -> None:
    """Raise with the first bad row and its value, if any row is bad."""
    row = pc.index(bad, True).as_py()
    if row >= 0:
        value = table.column(column)[row].as_py()
        shown = "empty" if value is None or value == "" else f"`{value}`"
        raise InputError(f"{table.at(row)}: {column} is {shown}, which {why}")


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
