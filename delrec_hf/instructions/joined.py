"""Columns that other tables add to examples: what the teacher says, what a user began with."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def with_suggested(examples: Dataset, predictions: Dataset) -> Dataset:
    """Add what the teacher ranks first as the column `suggested`, for prompts that show it.

    Args:
        examples: `user_id, position, ...`.
        predictions: `user_id, position, items`, the teacher's best first.

    Raises:
        InputError: If an example has two predictions.
    """
    places = places_in(examples, predictions, ["user_id", "position"], "the teacher's predictions")
    there = int((places >= 0).sum())
    if there < len(places):
        lacking = len(places) - there
        logger.info("LSR: the teacher suggests nothing for %d of %d", lacking, len(places))
    return with_lists(examples, "suggested", predictions, places)


def with_order(examples: Dataset, scores: FloatArray) -> Dataset:
    """Add the candidates in the teacher's order as the column `ordered`, to list them so.

    Args:
        examples: With `candidates`.
        scores: `(examples, candidates)` the teacher's scores; equal ones stay as they stand.
    """
    offered = np.array(examples["candidates"][:], dtype=np.int32)
    ordered = np.take_along_axis(offered, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    lists = pa.array(ordered.tolist(), pa.list_(pa.int32()))
    return Dataset(examples.with_format("arrow")[:].append_column("ordered", lists))


def places_in(examples: Dataset, table: Dataset, keys: list[str], name: str) -> IntArray:
    """Return the row of `table` with each example's keys, -1 where there is none.

    Args:
        examples: With `keys`.
        table: With `keys`, once each.
        keys: Names of columns.
        name: What the table is called in a refusal.

    Raises:
        InputError: If the table holds the same keys twice.
    """
    known = table.select_columns(keys).to_pandas()
    if known.duplicated(keys).any():
        twice = known.loc[known.duplicated(keys)].iloc[0].to_dict()
        raise InputError(
            f"{name} hold {twice} twice; expected one row per {' and '.join(keys)}; drop the others"
        )
    known["place"] = np.arange(len(known))
    found = examples.select_columns(keys).to_pandas().merge(known, on=keys, how="left")["place"]
    return found.fillna(-1).to_numpy(np.int64)


def with_lists(
    examples: Dataset, name: str, table: Dataset, places: IntArray, first: int | None = None
) -> Dataset:
    """Add the `items` of these rows of `table` as a column; a row of -1 gives none.

    Args:
        examples: What gets the column.
        name: Its name.
        table: With `items`.
        places: `(examples,)` rows of it.
        first: Take so many of the items, from the start.
    """
    items = table.select_columns(["items"]).with_format("arrow")[:]["items"]
    lists = items.take(pa.array(places, mask=places < 0))
    column = pc.list_slice(lists, 0, first).cast(pa.list_(pa.int32()))
    return Dataset(examples.with_format("arrow")[:].append_column(name, column))
