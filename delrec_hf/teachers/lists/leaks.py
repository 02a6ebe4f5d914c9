"""Whether ranked lists hold held-out items more often than can be foreseen without them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.histories import Histories, IntArray

SAMPLE = 2000
"""Lists that are looked at: enough to tell a share to a point or two."""

_TIMES, _MARGIN = 2.0, 0.05
"""How far a good teacher may be ahead of co-occurrence: so many times its share, and so much."""

_FEWER_MISSES = 4.0
"""How many times fewer misses it may have; this bounds long lists, where every share is high."""

_STANDARD_ERRORS = 3.0
"""What is added for chance, so that few lists raise no false alarm."""

_SCORES_AT_ONCE = 2**22  # 32 MB of float64: what bounds the memory of a batch


@dataclass(frozen=True)
class Finding:
    """How often lists hold an item that lies ahead, in the stretch of them that tells most.

    Attributes:
        where: The stretch, in words.
        share: Share of the lists that hold the item there.
        baseline: Share of co-occurrence's lists of the same lengths that do.
        limit: The highest share that a teacher without a leak is believed to reach.
    """

    where: str
    share: float
    baseline: float
    limit: float

    @property
    def is_leak(self) -> bool:
        """Whether the share is beyond the limit."""
        return self.share > self.limit

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} have it {self.where}, where co-occurrence counted on training items "
            f"has it in {self.baseline:.1%} and at most {self.limit:.1%} is believable"
        )


def look_ahead(
    teacher: CoOccurrence,
    sequences: Histories,
    places: IntArray,
    lengths: IntArray,
    targets: IntArray,
    ahead: IntArray,
) -> Finding:
    """Compare how often lists hold an item ahead with how often co-occurrence's do.

    Shares are taken at the first place, among the first ten, in the whole list and at the last
    place, where an appended item stands. The one furthest beyond its limit is returned.

    Args:
        teacher: Co-occurrence, counted on training items.
        sequences: The users' sequences.
        places: `(lists,)` the item's place in each list from 0 on, -1 where it is not there.
        lengths: `(lists,)` of the lists, 1 or more.
        targets: `(lists,)` where the item to come stands in `sequences.items`.
        ahead: `(lists,)` where the item that is looked for stands there: the target or a later one.
    """
    ranks = ranks_of(teacher, sequences, targets, sequences.items[ahead])
    start = np.zeros_like(lengths)
    stretches = {
        "at the first place": (start, start + 1),
        "among the first ten": (start, np.minimum(lengths, 10)),
        "anywhere in the list": (start, lengths),
        "at the last place": (lengths - 1, lengths),
    }
    findings = []
    for where, (begin, end) in stretches.items():
        share, baseline = _share(places, begin, end), _share(ranks, begin, end)
        findings.append(Finding(where, share, baseline, believable(baseline, len(places))))
    return max(findings, key=lambda finding: finding.share - finding.limit)


def _share(places: IntArray, begin: IntArray, end: IntArray) -> float:
    inside: npt.NDArray[np.bool_] = (begin <= places) & (places < end)
    return float(inside.mean())


def believable(baseline: float, lists: int) -> float:
    """Return the highest share that a teacher without a leak is believed to reach.

    Args:
        baseline: The share that one reaches who certainly has none.
        lists: How many lists the share is of.
    """
    limit = min(_TIMES * baseline + _MARGIN, 1 - (1 - baseline) / _FEWER_MISSES)
    limit = min(1.0, max(limit, baseline + _MARGIN))
    return min(1.0, limit + _STANDARD_ERRORS * float(np.sqrt(limit * (1 - limit) / lists)))


def ranks_of(
    teacher: CoOccurrence, sequences: Histories, targets: IntArray, items: IntArray
) -> IntArray:
    """Return how many unseen items the teacher scores above each item.

    Args:
        teacher: Co-occurrence, counted on training items.
        sequences: The users' sequences.
        targets: `(rows,)` where the item to come stands in `sequences.items`.
        items: `(rows,)` whose rank is asked.
    """
    owners = np.searchsorted(sequences.bounds, targets, side="right") - 1
    positions = targets - sequences.bounds[owners]
    users = sequences.users[owners].tolist()
    size = max(1, _SCORES_AT_ONCE // len(teacher.popularity))
    ranks = np.zeros(len(items), dtype=np.int64)
    for start in range(0, len(items), size):
        part = slice(start, start + size)
        histories = sequences.before(users[part], positions[part])
        scores = teacher.score(users[part], positions[part], histories)
        rows = np.repeat(np.arange(len(scores)), positions[part])
        scores[rows, np.concatenate(histories)] = -np.inf
        own = np.take_along_axis(scores, items[part, None], axis=1)
        ranks[part] = (scores > own).sum(axis=1)
    return ranks
