"""Who took which item when, read from wherever it lies and checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from delrec_hf.data.columns import (
    find_column,
    id_texts,
    missing_column,
    rating_numbers,
    time_numbers,
    title_texts,
)
from delrec_hf.data.readers import Table
from delrec_hf.data.sources import read_tables
from delrec_hf.data.titles import clean_title
from delrec_hf.data.toy_world import TOY_WORLDS, toy_world
from delrec_hf.errors import InputError

IntArray = npt.NDArray[np.int64]


@dataclass
class DataConfig:
    """What to read and how to cut it: the recipe's section `data`.

    Raises:
        InputError: If a value is out of its range.
    """

    path: str = field(
        metadata={
            "help": "`toy` or `toy-hidden` (made-up worlds), a folder, a file of interactions, or "
            "the Hub id of a dataset"
        }
    )
    interactions: str | None = field(
        default=None,
        metadata={
            "help": "file of the folder, or configuration, split or file of the Hub dataset, that "
            "holds the interactions, when it is not found by name"
        },
    )
    items: str | None = field(
        default=None, metadata={"help": "the same for the items and their titles"}
    )
    user_column: str | None = field(
        default=None, metadata={"help": "column of the user ids, when it is not found by name"}
    )
    item_column: str | None = field(
        default=None, metadata={"help": "column of the item ids, when it is not found by name"}
    )
    timestamp_column: str | None = field(
        default=None, metadata={"help": "column of the times, when it is not found by name"}
    )
    title_column: str | None = field(
        default=None, metadata={"help": "column of the titles, when it is not found by name"}
    )
    name: str | None = field(
        default=None, metadata={"help": "the dataset's name in reports (default: the folder's)"}
    )
    terms: str | None = field(
        default=None, metadata={"help": "licence or terms of the data, for the card"}
    )
    domain: str = field(
        default="movie",
        metadata={"help": "how prompts speak of items: movie, game, book, music, product, or YAML"},
    )
    split: Literal["leave-one-out", "time"] = field(
        default="leave-one-out",
        metadata={"help": "hold out each user's last two items, or what came last in time"},
    )
    validation_share: float = field(
        default=0.1, metadata={"help": "split by time: share of interactions for validation"}
    )
    test_share: float = field(
        default=0.1, metadata={"help": "split by time: share of interactions for the test"}
    )
    history_length: int = field(default=10, metadata={"help": "items that a prompt shows at most"})
    num_candidates: int = field(
        default=20, metadata={"help": "items to choose from, the right one included"}
    )
    train_prefixes: int = field(
        default=5, metadata={"help": "training examples per user: the last so many training items"}
    )
    max_title_characters: int = field(
        default=100, metadata={"help": "longer titles are cut after a word"}
    )
    seed: int = field(default=42, metadata={"help": "decides the candidates"})

    def __post_init__(self) -> None:
        least = {
            "history_length": 1,
            "num_candidates": 2,
            "train_prefixes": 1,
            "max_title_characters": 20,
        }
        for key, smallest in least.items():
            if getattr(self, key) < smallest:
                raise InputError(
                    f"recipe key `data.{key}` is {getattr(self, key)}; expected {smallest} or more"
                )
        shares = (self.validation_share, self.test_share)
        if not (min(shares) > 0 and sum(shares) < 1):
            raise InputError(
                f"recipe keys `data.validation_share` and `data.test_share` are {shares[0]} and "
                f"{shares[1]}; expected two numbers above 0 that leave something for training"
            )

    @property
    def dataset_name(self) -> str:
        """The dataset's name in reports."""
        path = Path(self.path).expanduser()
        if self.name or not path.exists():
            return self.name or self.path
        return (path if path.is_dir() else path.parent).resolve().name


def read_interactions(config: DataConfig) -> tuple[Dataset, Dataset]:
    """Read and check interactions and items.

    Without a table of items, the items are those of the interactions, which then need a title each.

    Returns:
        Interactions in file order: `user_id`, `item_id` (string), `timestamp` (int64 or float64),
        `rating`
        (float64) where there is one. Items in file order: `item_id`, `title` (string, as written)
        and all further columns of the source.

    Raises:
        InputError: If something is missing, unreadable or contradictory; the message says where.
    """
    if config.path in TOY_WORLDS:
        world = toy_world(config.path)
        events = Table(config.path, pa.Table.from_pandas(world.interactions, preserve_index=False))
        catalogue: Table | None = Table(config.path, pa.Table.from_pandas(world.items))
    else:
        events, catalogue = read_tables(config.path, config.interactions, config.items)
    _check_given(config, events, catalogue)
    interactions = _interactions(events, config)
    if catalogue is None:
        items = _items_of_interactions(events, interactions, config)
    else:
        items = _items(catalogue, config)
        _refuse_unknown_items(events, interactions, catalogue, items)
    _refuse_repeated_rows(events, interactions)
    return Dataset(interactions), Dataset(items)


def _check_given(config: DataConfig, events: Table, catalogue: Table | None) -> None:
    """Refuse a column name of the user's that no table has."""
    tables = [events] if catalogue is None else [events, catalogue]
    for kind in ("user", "item", "timestamp", "title"):
        given = getattr(config, f"{kind}_column")
        if given and not any(given in table.data.column_names for table in tables):
            table = tables[-1] if kind == "title" else events
            raise missing_column(table, kind, given)


def _column(table: Table, kind: str, config: DataConfig, also: str = "") -> str:
    given = getattr(config, f"{kind}_column")
    found = find_column(table, kind, given, also)
    if found is None:
        raise missing_column(table, kind)
    return found


def _interactions(events: Table, config: DataConfig) -> pa.Table:
    columns = {
        "user_id": id_texts(events, _column(events, "user", config)),
        "item_id": id_texts(events, _column(events, "item", config)),
        "timestamp": time_numbers(events, _column(events, "timestamp", config)),
    }
    rating = find_column(events, "rating")
    ratings = None if rating is None else rating_numbers(events, rating)
    if ratings is not None:
        columns["rating"] = ratings
    return pa.table(columns)


def _items(catalogue: Table, config: DataConfig) -> pa.Table:
    item = _column(catalogue, "item", config, also="id")
    title = _column(catalogue, "title", config)
    ids = id_texts(catalogue, item)
    first = _first_rows(ids)
    if len(first) < len(ids):
        row = int(np.setdiff1d(np.arange(len(ids)), first)[0])
        earlier = pc.index(ids, ids[row]).as_py()
        raise InputError(
            f"{catalogue.at(row)} repeats item `{ids[row]}` of row {earlier + 1} "
            f"({len(ids) - len(first)} such rows in all); keep one row per item"
        )
    titles = _checked_titles(catalogue, title, ids)
    columns = {"item_id": ids, "title": titles}
    for name in catalogue.data.column_names:
        if name and name not in (item, title, "item_id", "title"):
            columns[name] = catalogue.column(name)
    return pa.table(columns)


def _items_of_interactions(events: Table, interactions: pa.Table, config: DataConfig) -> pa.Table:
    title = find_column(events, "title", config.title_column)
    if title is None:
        raise InputError(
            f"no table of items beside {events.label}, and no column of titles in it (found "
            f"{', '.join(events.data.column_names)}); set data.items to the items' file, or "
            "data.title_column"
        )
    first = pa.array(_first_rows(interactions["item_id"]))
    titles = _checked_titles(events, title, interactions["item_id"])
    items = pa.table({"item_id": interactions["item_id"], "title": titles})
    # In order of id: the order of the users in the file must not matter.
    return items.take(first).sort_by("item_id")


def _checked_titles(table: Table, column: str, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    titles = title_texts(table, column)
    bare = [not title or not clean_title(title) for title in pc.unique(titles).to_pylist()]
    empty = pc.unique(titles).filter(pa.array(bare))
    if len(empty):
        rows = pc.is_in(titles, value_set=empty)
        row = pc.index(rows, True).as_py()
        raise InputError(
            f"{table.at(row)}: item `{ids[row]}` has no title in column `{column}` "
            f"({pc.sum(rows)} such rows in all); every item needs one"
        )
    return titles


def _refuse_unknown_items(
    events: Table, interactions: pa.Table, catalogue: Table, items: pa.Table
) -> None:
    unknown = pc.invert(pc.is_in(interactions["item_id"], value_set=items["item_id"]))
    count = pc.sum(unknown).as_py()
    if count:
        row = pc.index(unknown, True).as_py()
        raise InputError(
            f"{count} of {len(unknown)} interactions are with items that {catalogue.label} does "
            f"not hold, first {events.at(row)}: item `{interactions['item_id'][row]}` (ids are "
            "compared as texts); add the items or leave these interactions out"
        )


def _refuse_repeated_rows(events: Table, interactions: pa.Table) -> None:
    """Refuse a row that says nothing new: the same user, item, time and rating as another."""
    names = interactions.column_names
    frame = pd.DataFrame({name: _codes(interactions[name]) for name in names})
    repeats = frame.duplicated().to_numpy()
    if repeats.any():
        row = int(repeats.argmax())
        earlier = int((frame == frame.iloc[row]).all(axis=1).to_numpy().argmax())
        raise InputError(
            f"{events.at(row)} repeats row {earlier + 1}: {', '.join(names)} are the same "
            f" ({int(repeats.sum())} such rows in all); remove the repeats"
        )


def _first_rows(ids: pa.ChunkedArray) -> IntArray:
    """Return the row at which each different id stands first, in order."""
    return np.sort(np.unique(_codes(ids), return_index=True)[1])


def _codes(values: pa.ChunkedArray) -> IntArray:
    """Number the different values of a column, null among them."""
    encoded = pc.dictionary_encode(values, null_encoding="encode").combine_chunks()
    codes: IntArray = encoded.indices.to_numpy().astype(np.int64)
    return codes
