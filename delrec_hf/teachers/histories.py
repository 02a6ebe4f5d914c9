"""The users' sequences as flat arrays, looked up by user and position."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Histories:
    """All sequences end to end.

    Attributes:
        users: User ids, one per sequence.
        items: `(interactions,)` item rows, sequence after sequence, oldest first.
        bounds: `(users + 1,)`; sequence u is `items[bounds[u]:bounds[u + 1]]`.
        train_ends: `(users,)` how many items at the start of each sequence are training items.
    """

    users: pd.Index
    items: IntArray
    bounds: IntArray
    train_ends: IntArray

    @classmethod
    def of(cls, prepared: PreparedData) -> "Histories":
        """Flatten the sequences of prepared data."""
        sequences = prepared.sequences
        items, bounds = flatten(sequences, "items")
        users = pd.Index(column(sequences, "user_id"))
        return cls(users, items, bounds, column(sequences, "train_end").astype(np.int64))

    def in_training(self) -> npt.NDArray[np.bool_]:
        """Return `(interactions,)` whether each is a training item."""
        places = np.arange(len(self.items)) - np.repeat(self.bounds[:-1], np.diff(self.bounds))
        found: npt.NDArray[np.bool_] = places < np.repeat(self.train_ends, np.diff(self.bounds))
        return found

    def training(self) -> tuple[IntArray, IntArray]:
        """Return the training items end to end, and their bounds per user."""
        return self.items[self.in_training()], np.concatenate([[0], np.cumsum(self.train_ends)])

    def before(self, user_ids: Sequence[str], positions: IntArray) -> list[IntArray]:
        """Return each user's items before a position, all of them.

        Args:
            user_ids: `(rows,)`.
            positions: `(rows,)` index in the user's sequence of the item to come.

        Raises:
            KeyError: If a user has no sequence.
            IndexError: If a position lies outside the user's sequence.
        """
        rows = self.users.get_indexer(pd.Index(user_ids))
        if (rows < 0).any():
            raise KeyError(f"user `{user_ids[int(np.argmin(rows))]}` has no sequence")
        starts = self.bounds[rows]
        outside = (positions < 0) | (positions > np.diff(self.bounds)[rows])
        if outside.any():
            row = int(np.argmax(outside))
            raise IndexError(f"user `{user_ids[row]}` has no position {positions[row]}")
        return [
            self.items[start : start + position]
            for start, position in zip(starts, positions, strict=True)
        ]


def column(dataset: Dataset, name: str) -> npt.NDArray[np.generic]:
    """Return one column of plain values as an array."""
    table = dataset.select_columns([name]).with_format("arrow")[:]
    return np.asarray(table[name].to_numpy())


def flatten(dataset: Dataset, name: str) -> tuple[IntArray, IntArray]:
    """Return a column of lists end to end, and the bounds `(rows + 1,)` of each list."""
    table = dataset.select_columns([name]).with_format("arrow")[:]
    lists = table[name]
    lengths = lists.combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    values = np.concatenate(
        [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in lists.chunks] or [[]]
    )
    return values.astype(np.int64), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def pad_right(items: Sequence[IntArray], width: int) -> IntArray:
    """Left-align the last `width` of each list of item rows.

    Args:
        items: Lists of item rows.
        width: Longest list to keep whole.

    Returns:
        `(lists, longest)` item ids for a model: row r is id r + 1, and 0 fills up.
    """
    tails = [one[-width:] for one in items]
    lengths = np.array([len(one) for one in tails], dtype=np.int64)
    longest = max(1, int(lengths.max(initial=0)))
    padded = np.zeros((len(tails), longest), dtype=np.int64)
    if lengths.sum():
        padded[np.arange(longest) < lengths[:, None]] = np.concatenate(tails) + 1
    return padded
