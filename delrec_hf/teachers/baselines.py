"""The reference systems that only count: random, popularity, first-order Markov, co-occurrence."""

# ruff: noqa: ARG002 - every teacher is asked in the same way and reads what it needs

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from delrec_hf.data.prepared import PreparedData
from delrec_hf.data.splitmix import splitmix64
from delrec_hf.teachers.histories import Histories, IntArray, pad_right

FloatArray = npt.NDArray[np.float64]

_REACH = 10
_WHOLE = 2520  # the least common multiple of 1 to 10: times 1/distance it is a whole number


@dataclass(frozen=True)
class Random:
    """Scores drawn anew for each user and position, the same whatever stands beside them.

    Attributes:
        num_items: Items in the catalogue.
        seed: Decides all scores.
    """

    num_items: int
    seed: int = 42

    @classmethod
    def fit(cls, prepared: PreparedData, seed: int = 42) -> Self:
        """Read off the size of the catalogue."""
        return cls(len(prepared.items), seed)

    def score(
        self, user_ids: Sequence[str], positions: IntArray, histories: Sequence[IntArray]
    ) -> FloatArray:
        """Score every item as the next one of each history; see `Teacher.score`."""
        users = pd.util.hash_array(np.asarray(user_ids, dtype=object))
        seed = np.uint64(zlib.crc32(str(self.seed).encode()))
        rows = splitmix64(users ^ splitmix64(np.asarray(positions).astype(np.uint64) ^ seed))
        items = splitmix64(np.arange(self.num_items, dtype=np.uint64))
        bits = splitmix64(rows[:, None] ^ items[None, :])
        scores: FloatArray = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return scores  # 53 bits fill a float64 in [0, 1)


@dataclass(frozen=True)
class Popularity:
    """Scores items by how many training interactions they have.

    Attributes:
        counts: `(items,)`.
    """

    counts: FloatArray

    @classmethod
    def fit(cls, prepared: PreparedData) -> Self:
        """Count the training items."""
        items, _ = Histories.of(prepared).training()
        return cls(np.bincount(items, minlength=len(prepared.items)).astype(np.float64))

    def score(
        self, user_ids: Sequence[str], positions: IntArray, histories: Sequence[IntArray]
    ) -> FloatArray:
        """Score every item as the next one of each history; see `Teacher.score`."""
        return np.repeat(self.counts[None, :], len(histories), axis=0)


@dataclass(frozen=True)
class Markov:
    """Scores items by how often they directly followed the last one, then by popularity.

    Attributes:
        transitions: `(items, items)` sparse; how often the column's item followed the row's.
        popularity: `(items,)` in [0, 1): orders items with equally many transitions.
    """

    transitions: csr_array
    popularity: FloatArray

    @classmethod
    def fit(cls, prepared: PreparedData) -> Self:
        """Count the transitions inside each user's training items."""
        items, bounds = Histories.of(prepared).training()
        size = len(prepared.items)
        follows = np.ones(max(0, len(items) - 1), dtype=bool)
        inner = bounds[1:-1]
        follows[inner[(inner > 0) & (inner < len(items))] - 1] = False
        pairs = (items[:-1][follows], items[1:][follows])
        transitions = csr_array((np.ones(len(pairs[0])), pairs), shape=(size, size))
        counts = np.bincount(items, minlength=size)
        return cls(transitions, counts / (counts.max(initial=0) + 1))

    def score(
        self, user_ids: Sequence[str], positions: IntArray, histories: Sequence[IntArray]
    ) -> FloatArray:
        """Score every item as the next one of each history; see `Teacher.score`."""
        last = np.array([one[-1] if len(one) else -1 for one in histories], dtype=np.int64)
        scores = np.repeat(self.popularity[None, :], len(histories), axis=0)
        known = last >= 0
        scores[known] += self.transitions[last[known]].toarray()
        return scores


@dataclass(frozen=True)
class CoOccurrence:
    """Scores items by how often they came up to ten steps after each of the last ten.

    With i_d the item at distance d from the item to come (1 for the last one), the score of item j
    is the sum over d = 1..10 of F[i_d, j] / (d N[i_d]). N[i] counts the training items that are i,
    and F[i, j] adds up 1/distance for each time that j came after i, at most ten steps later, in a
    user's training items.

    Scores are rounded to float32. Equal ones are ordered by popularity, in the digits that float64
    has beyond float32: unequal ones never change their order.

    Attributes:
        follows: `(items, items)` sparse; F[i, j] / N[i], from 0 to 1.
        popularity: `(items,)` in [0, 1): orders items with equal scores.
    """

    follows: csr_array
    popularity: FloatArray

    @classmethod
    def fit(cls, prepared: PreparedData) -> Self:
        """Count the pairs inside each user's training items."""
        items, bounds = Histories.of(prepared).training()
        size = len(prepared.items)
        users = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        # Whole numbers add up to the same sum in any order of the users.
        total = csr_array((size, size), dtype=np.float64)
        for distance in range(1, min(_REACH, len(items) - 1) + 1):
            same = users[:-distance] == users[distance:]
            pairs = (items[:-distance][same], items[distance:][same])
            weights = np.full(len(pairs[0]), _WHOLE / distance)
            total = total + csr_array((weights, pairs), shape=(size, size))
        counts = np.bincount(items, minlength=size)
        total.data /= np.repeat(_WHOLE * np.maximum(counts, 1), np.diff(total.indptr))
        return cls(total, counts / (counts.max(initial=0) + 1))

    def score(
        self, user_ids: Sequence[str], positions: IntArray, histories: Sequence[IntArray]
    ) -> FloatArray:
        """Score every item as the next one of each history; see `Teacher.score`."""
        latest_first = [one[: -_REACH - 1 : -1] for one in histories]
        ids = pad_right(latest_first, _REACH)
        rows, places = np.nonzero(ids)
        weights = 1 / (places + 1)
        shape = (len(ids), len(self.popularity))
        found = csr_array((weights, (rows, ids[rows, places] - 1)), shape=shape) @ self.follows
        # Two float32 numbers differ by 2^-24 of their size or more: 2^-25 of it cannot swap them.
        rounded = found.data.astype(np.float32).astype(np.float64)
        found.data = rounded * (1 + self.popularity[found.indices] * 2.0**-25)
        scores: FloatArray = found.toarray()
        scores += self.popularity * 2.0**-100
        return scores
