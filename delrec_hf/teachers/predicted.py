"""Which targets a teacher's lists hold, and which of them a baseline's lists as long do."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.histories import Histories, IntArray, column, flatten
from delrec_hf.teachers.lists import leaks
from delrec_hf.teachers.predictions import read_predictions

_SEED = 42


@dataclass(frozen=True)
class Predicted:
    """Some of a part's predictions: those of at most `leaks.SAMPLE` rows, drawn by seed.

    Attributes:
        sequences: The users' sequences.
        baseline: Co-occurrence, counted on training items.
        users: `(rows,)` rows of `sequences.users`.
        targets: `(rows,)` where each item to come stands in `sequences.items`.
        lists: Each row's items, best first; none is empty.
    """

    sequences: Histories
    baseline: CoOccurrence
    users: IntArray
    targets: IntArray
    lists: list[IntArray]

    @classmethod
    def read(
        cls, folder: Path, part: str, sequences: Histories, baseline: CoOccurrence
    ) -> "Predicted":
        """Read the predictions of a part.

        Raises:
            InputError: If they are missing.
        """
        found = read_predictions(folder, part)
        items, bounds = flatten(found, "items")
        users = sequences.users.get_indexer(pd.Index(column(found, "user_id")))
        targets = sequences.bounds[users] + column(found, "position").astype(np.int64)
        usable = np.flatnonzero((np.diff(bounds) > 0) & (users >= 0))
        # The same users of each part: the lot goes by user.
        lots = np.random.default_rng(_SEED).permutation(len(sequences.users))[users[usable]]
        rows = usable[np.sort(np.argsort(lots, kind="stable")[: leaks.SAMPLE])]
        lists = [items[bounds[row] : bounds[row + 1]] for row in rows.tolist()]
        return cls(sequences, baseline, users[rows], targets[rows], lists)

    @property
    def lengths(self) -> IntArray:
        """`(rows,)` of the lists."""
        return np.array([len(one) for one in self.lists], dtype=np.int64)

    def places(self, items: IntArray) -> IntArray:
        """Return each item's place in its list from 0 on, -1 where it is not there."""
        hits = (np.flatnonzero(one == item) for one, item in zip(self.lists, items, strict=True))
        return np.array([hit[0] if len(hit) else -1 for hit in hits], dtype=np.int64)

    @cached_property
    def ranks(self) -> IntArray:
        """`(rows,)` how many unseen items co-occurrence scores above the target."""
        wanted = self.sequences.items[self.targets]
        return leaks.ranks_of(self.baseline, self.sequences, self.targets, wanted)

    def hits(self) -> tuple[IntArray, IntArray]:
        """Return `(rows,)` whether the list holds the target, and whether co-occurrence's does."""
        own = self.places(self.sequences.items[self.targets]) >= 0
        return own.astype(np.int64), (self.ranks < self.lengths).astype(np.int64)

    def look(self, ahead: IntArray) -> leaks.Finding | None:
        """Return how often the lists hold an item that lies ahead, if there is a list."""
        if not len(ahead):
            return None
        places = self.places(self.sequences.items[ahead])
        return leaks.look_ahead(
            self.baseline, self.sequences, places, self.lengths, self.targets, ahead
        )


class Compared(NamedTuple):
    """Hits of lists at two positions of each user.

    Attributes:
        before: Share of the lists that hold the target at the first position.
        after: The same at the second.
        base_before: The baseline's at the first.
        base_after: The baseline's at the second.
        total: Sum over users of d: the lists' gain less the baseline's.
        variance: Sum of d^2.
        users: How many.
    """

    before: float
    after: float
    base_before: float
    base_after: float
    total: float
    variance: float
    users: int

    @property
    def gain(self) -> float:
        """Mean of d."""
        return self.total / self.users


def compare(first: Predicted, second: Predicted) -> Compared | None:
    """Compare hits at a position of each user in one part with those in another."""
    _, one, other = np.intersect1d(first.users, second.users, return_indices=True)
    if not len(one):
        return None
    before, base_before = (hits[one] for hits in first.hits())
    after, base_after = (hits[other] for hits in second.hits())
    gain = (after - before) - (base_after - base_before)
    return Compared(
        before=float(before.mean()),
        after=float(after.mean()),
        base_before=float(base_before.mean()),
        base_after=float(base_after.mean()),
        total=float(gain.sum()),
        variance=float((gain**2).sum()),
        users=len(one),
    )
