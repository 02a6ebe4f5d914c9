"""Which interactions are kept: ratings, kinds of events, repeats, k-core."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from delrec_hf.data.problems import listed, shown
from delrec_hf.data.readers import Table
from delrec_hf.data.values import column_texts, rating_numbers
from delrec_hf.errors import InputError, suggest

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def rated_enough(table: Table, column: str | None, least: float) -> tuple[BoolArray, BoolArray]:
    """Mark rows that are rated `least` or more, and rows without a rating.

    Raises:
        InputError: If there is no column of numbers.
    """
    if column is None:
        raise InputError(
            f"data.min_rating is {least:g}, but {table.label} has no column known as rating; found "
            f"{listed(table.data.column_names)}; set data.rating_column to the right one"
        )
    ratings = rating_numbers(table, column)
    if ratings is None:
        values = column_texts(table, column, "ratings").to_pandas()
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    else:
        numbers = ratings.to_numpy()
    without = np.isnan(numbers)
    if without.all():
        raise InputError(
            f"data.min_rating is {least:g}, but {table.label} column `{column}` holds no number; "
            "set data.rating_column to the right one"
        )
    return numbers >= least, without


def with_values(table: Table, kept: dict[str, list[str]]) -> BoolArray:
    """Mark rows that have one of the values in each of the columns.

    Raises:
        InputError: If there is no such column, or no row has one of the values.
    """
    marks = np.ones(table.data.num_rows, dtype=bool)
    for column, values in kept.items():
        names = table.data.column_names
        if column not in names:
            raise InputError(
                f"data.keep names `{column}`, but {table.label} has no such column; found "
                f"{listed(names)}{suggest(column, names)}"
            )
        cure = "name another column in data.keep"
        texts = pc.utf8_trim_whitespace(column_texts(table, column, "texts", cure))
        there = {str(one) for one in pc.unique(texts).to_pylist() if one is not None}
        if pa.types.is_floating(table.column(column).type):
            values = [_as_float(value) for value in values]
        for value in values:
            if value not in there:
                raise InputError(
                    f"data.keep names `{value}` of `{column}`, which no row of {table.label} has; "
                    f"found {_most_frequent(texts)}{suggest(value, there)}"
                )
        found = pc.is_in(texts, value_set=pa.array(values, pa.string()))
        marks &= np.asarray(found.to_numpy(), dtype=bool)
    return marks


def first_of_moment(users: IntArray, items: IntArray, times: npt.NDArray[np.generic]) -> BoolArray:
    """Mark rows that do not repeat an earlier row's user, item and time."""
    frame = pd.DataFrame({"user": users, "item": items, "time": times}, copy=False)
    return ~frame.duplicated().to_numpy()


def one_of_each(
    users: IntArray, items: IntArray, times: npt.NDArray[np.generic], which: str
) -> BoolArray:
    """Mark each user's first (or last) interaction with each item.

    Args:
        users: `(rows,)`.
        items: `(rows,)`.
        times: `(rows,)`; equal times are in the order of the rows.
        which: `first` or `last`.
    """
    order = np.lexsort((times, users))  # stable: ties stay in file order
    frame = pd.DataFrame({"user": users[order], "item": items[order]}, copy=False)
    marks = np.empty(len(users), dtype=bool)
    marks[order] = ~frame.duplicated(keep="last" if which == "last" else "first").to_numpy()
    return marks


def core(users: IntArray, items: IntArray, least_of_user: int, least_of_item: int) -> BoolArray:
    """Mark the interactions of the k-core: each user and each item left has enough of them.

    Users and items with fewer are left out in turns until none is, which gives the one largest set
    of interactions in which all have enough.

    Args:
        users: `(rows,)` numbers from 0.
        items: `(rows,)` numbers from 0; no user has one twice.
        least_of_user: Fewest interactions of a user.
        least_of_item: Fewest interactions of an item.

    >>> users, items = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 2])
    >>> core(users, items, 2, 2).tolist()
    [True, True, True, True, False]
    """
    marks = np.ones(len(users), dtype=bool)
    rows = np.arange(len(users))
    while True:
        enough = np.bincount(users[rows])[users[rows]] >= least_of_user if len(rows) else rows > 0
        if len(rows):
            enough &= np.bincount(items[rows])[items[rows]] >= least_of_item
        if enough.all():
            return marks
        marks[rows[~enough]] = False
        rows = rows[enough]


def codes(values: pa.ChunkedArray) -> IntArray:
    """Number the different values of a column from 0, in the order in which they first stand."""
    encoded = pc.dictionary_encode(values, null_encoding="encode").combine_chunks()
    numbers: IntArray = encoded.indices.to_numpy().astype(np.int64)
    return numbers


def _as_float(value: str) -> str:
    """Return a number as arrow writes it in a column of floats: `1`, not `1.0`."""
    try:
        return str(pa.array([float(value)]).cast(pa.string())[0])
    except ValueError:
        return value


def _most_frequent(texts: pa.ChunkedArray) -> str:
    counts = texts.to_pandas().value_counts().head(5)
    return ", ".join(f"{shown(value)} ({count})" for value, count in counts.items()) or "nothing"
