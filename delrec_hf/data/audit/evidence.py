"""What the checks look at: the data as flat arrays, made once."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from delrec_hf.data.filters import codes
from delrec_hf.data.interactions import Source
from delrec_hf.data.prepared import PreparedData
from delrec_hf.data.sequences import Sequences
from delrec_hf.data.titles import clean_title, turn_article

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_DIGITS = re.compile(r"\d+")


MOST = 300_000
"""Interactions of the users whose order is looked at; more would only make less visible faults
significant."""

_SEED = 42


@dataclass(frozen=True)
class Events:
    """The source's usable rows, repeats and all, by user, time and place in the file.

    Attributes:
        users: `(rows,)` numbers from 0, all of them.
        items: `(rows,)` rows of the catalogue.
        times: `(rows,)`, as read.
        first: `(rows,)` whether a row is its user's first.
    """

    users: IntArray
    items: IntArray
    times: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    first: BoolArray


@dataclass(frozen=True)
class Steps:
    """Each item of a user and the one after it.

    Attributes:
        before: `(steps,)` rows of the catalogue.
        after: `(steps,)` rows of the catalogue.
        tied: `(steps,)` whether both have one time.
    """

    before: IntArray
    after: IntArray
    tied: BoolArray


@dataclass(frozen=True)
class Examples:
    """The examples of one part.

    Attributes:
        users: `(rows,)` rows of `sequences.user_ids`, -1 where it is none.
        positions: `(rows,)` places of the targets in the users' sequences.
        targets: `(rows,)` rows of the catalogue, as are those below.
        candidates: `(rows, candidates)`.
        shown: `(items shown,)` histories, row after row.
        shown_of: `(items shown,)` the row of each.
    """

    users: IntArray
    positions: IntArray
    targets: IntArray
    candidates: IntArray
    shown: IntArray
    shown_of: IntArray


@dataclass(frozen=True)
class Evidence:
    """The data under audit; items are rows of the catalogue.

    Attributes:
        source: What was read.
        prepared: What was made of it.
    """

    source: Source
    prepared: PreparedData

    @cached_property
    def drawn(self) -> BoolArray:
        """`(users,)` whose order is looked at: all, or as many as have `MOST` interactions."""
        lengths = self.sequences.lengths
        order = np.random.default_rng(_SEED).permutation(len(lengths))
        enough = np.cumsum(lengths[order]) <= max(MOST, lengths[order[0]])
        found = np.zeros(len(lengths), dtype=bool)
        found[order[enough]] = True
        return found

    @cached_property
    def events(self) -> Events:
        """The rows of the drawn users, and of those whom `prepare` leaves out, in the catalogue."""
        table = self.source.events
        known = self.source.items.with_format("arrow")[:]["item_id"]
        names = pa.array(self.sequences.user_ids, pa.string())
        rest = pc.invert(pc.is_in(table["user_id"], names.filter(pa.array(~self.drawn))))
        if not pc.all(rest).as_py():
            table = table.filter(rest)
        found = pc.index_in(table["item_id"], value_set=known)
        there = pc.is_valid(found)
        if not pc.all(there).as_py():
            table, found = table.filter(there), found.filter(there)
        users, times = codes(table["user_id"]), table["timestamp"].to_numpy()
        order = np.lexsort((times, users))  # stable: ties stay in file order
        users = users[order]
        items = found.to_numpy().astype(np.int64)[order]
        return Events(users, items, times[order], np.diff(users, prepend=-1) != 0)

    @cached_property
    def sequences(self) -> Sequences:
        """All sequences end to end, with moments for times."""
        return self.prepared.flat_sequences()

    @cached_property
    def owners(self) -> IntArray:
        """`(interactions,)` whose each of `sequences.items` is."""
        return spread(self.sequences.lengths)[0]

    @cached_property
    def places(self) -> IntArray:
        """`(interactions,)` where in its user's sequence each stands."""
        return spread(self.sequences.lengths)[1]

    @cached_property
    def train_ends(self) -> IntArray:
        """`(users,)` the first so many items of each are training items."""
        table = self.prepared.sequences.with_format("arrow")[:]
        ends: IntArray = table["train_end"].to_numpy().astype(np.int64)
        return ends

    @cached_property
    def in_training(self) -> BoolArray:
        """`(interactions,)` whether each is a training item."""
        found: BoolArray = self.places < self.train_ends[self.owners]
        return found

    @cached_property
    def steps(self) -> Steps:
        """All steps within a drawn user."""
        items, moments = self.sequences.items, self.sequences.timestamps
        inside = (np.diff(self.owners) == 0) & self.drawn[self.owners[1:]]
        tied = np.diff(moments)[inside] == 0
        return Steps(items[:-1][inside], items[1:][inside], tied)

    @cached_property
    def met(self) -> tuple[IntArray, IntArray]:
        """Who met what: `user * items + item` in order, and the place of each in `sequences`."""
        keys = self.owners * len(self.prepared.items) + self.sequences.items
        order = keys.argsort()
        return keys[order], order

    def positions(self, users: IntArray, items: IntArray) -> IntArray:
        """Return where in each user's sequence an item stands, -1 if nowhere."""
        keys, order = self.met
        wanted = users * len(self.prepared.items) + items
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = order[places] - self.sequences.starts[users]
        return np.where((keys[places] == wanted) & (users >= 0), found, -1)

    @cached_property
    def transitions(self) -> tuple[IntArray, IntArray]:
        """Steps within training: `before * items + after` in order, and how often each is made."""
        items = self.sequences.items
        inside = (np.diff(self.owners) == 0) & self.in_training[1:]
        keys = items[:-1][inside] * len(self.prepared.items) + items[1:][inside]
        return np.unique(keys, return_counts=True)

    @cached_property
    def examples(self) -> dict[str, Examples]:
        """The examples of each part."""
        known = pa.array(self.sequences.user_ids, pa.string())
        return {part: _examples(rows, known) for part, rows in self.prepared.examples.items()}

    @cached_property
    def popularity(self) -> IntArray:
        """`(items,)` how many users have each."""
        return np.bincount(self.sequences.items, minlength=len(self.prepared.items))

    @cached_property
    def training_counts(self) -> IntArray:
        """`(items,)` how many training interactions each has."""
        items = self.sequences.items[self.in_training]
        return np.bincount(items, minlength=len(self.prepared.items))

    @cached_property
    def titles(self) -> list[str]:
        """Each item's title as the source has it, clean and in lower case."""
        raw = self.source.items["title"][:]
        return [turn_article(clean_title(title)).casefold() for title in raw]

    @cached_property
    def id_ranks(self) -> IntArray:
        """`(items,)` each item's place in the order of the ids.

        Ids of one length are in the order of texts; of others, numbers in them count by size.
        """
        ids = self.prepared.items["item_id"][:]
        if len(set(map(len, ids))) > 1:
            ids = [_DIGITS.sub(_padded, one) for one in ids]
        return ranks(ids)


def _examples(rows: Dataset, known: pa.Array) -> Examples:
    table = rows.with_format("arrow")[:]
    users = pc.fill_null(pc.index_in(table["user_id"], value_set=known), -1)
    history = table["history"].combine_chunks()
    lengths = history.value_lengths().to_numpy()
    return Examples(
        users=users.to_numpy().astype(np.int64),
        positions=table["position"].to_numpy().astype(np.int64),
        targets=table["target"].to_numpy().astype(np.int64),
        candidates=_numbers(table["candidates"].combine_chunks()).reshape(len(table), -1),
        shown=_numbers(history),
        shown_of=np.repeat(np.arange(len(table)), lengths),
    )


def _numbers(lists: pa.ListArray) -> IntArray:
    found: IntArray = lists.flatten().to_numpy().astype(np.int64)
    return found


def ranks(values: list[str]) -> IntArray:
    """Return the place of each text among the different ones, in their order.

    >>> ranks(["b", "a", "b"]).tolist()
    [1, 0, 1]
    """
    encoded = pa.array(values, pa.string()).dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    found: IntArray = places[encoded.indices.to_numpy()]
    return found


def spread(lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Return the row of each entry of lists of some lengths, and its place in it.

    >>> rows, places = spread(np.array([2, 0, 1]))
    >>> rows.tolist(), places.tolist()
    ([0, 0, 2], [0, 1, 0])
    """
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _padded(digits: re.Match[str]) -> str:
    return digits[0].lstrip("0").rjust(20, "0")
