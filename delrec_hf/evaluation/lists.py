"""What lists of recommendations are like: coverage, popularity bias, novelty and diversity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LENGTH = 10
"""How long the lists of the report are."""

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class TopLists:
    """The first k candidates of each row; which of those that tie at the edge is left to chance.

    Attributes:
        items: `(rows, candidates)` item rows.
        sure: `(rows, candidates)` which candidates stand in the list whatever the draw.
        edge: `(rows, candidates)` which ones tie at its edge.
        places: `(rows,)` how many of those at the edge stand in it.
    """

    items: IntArray
    sure: npt.NDArray[np.bool_]
    edge: npt.NDArray[np.bool_]
    places: IntArray

    @property
    def chances(self) -> FloatArray:
        """`(rows, candidates)` how likely each candidate stands in the list."""
        share = self.places / np.maximum(self.edge.sum(axis=1), 1)
        return self.sure + self.edge * share[:, None]

    @property
    def lengths(self) -> IntArray:
        """`(rows,)` how many items each list holds."""
        return self.sure.sum(axis=1) + self.places


def top_lists(scores: npt.ArrayLike, items: npt.ArrayLike, k: int = LENGTH) -> TopLists:
    """Return the first k candidates of each row.

    Args:
        scores: `(rows, candidates)`, higher is better. What has no finite score is not recommended,
            and the list is shorter where that leaves fewer than k.
        items: `(rows, candidates)` item rows, none twice in a row.
        k: How long the lists are.

    Raises:
        ValueError: If the shapes differ or k is below 1.

    >>> lists = top_lists([[3.0, 2.0, 2.0, 1.0]], [[5, 6, 7, 8]], k=2)
    >>> lists.chances
    array([[1. , 0.5, 0.5, 0. ]])
    """
    table, rows = np.asarray(scores, np.float64), np.asarray(items, np.int64)
    if table.ndim != 2 or table.shape != rows.shape or k < 1:
        raise ValueError(
            f"scores have the shape {table.shape}, items {rows.shape}, and k is {k}; expected "
            "(rows, candidates) twice, and 1 or more"
        )
    finite = np.isfinite(table)
    table = np.where(finite, table, -np.inf)
    last = min(k, table.shape[1])
    least = np.partition(table, -last, axis=1)[:, -last:].min(axis=1, initial=np.inf)
    sure = table > least[:, None]
    edge = (table == least[:, None]) & finite
    return TopLists(rows, sure, edge, np.minimum(last - sure.sum(axis=1), edge.sum(axis=1)))


def average_popularity(lists: TopLists, counts: npt.ArrayLike) -> FloatArray:
    r"""Return how often a list's items were met in training, on average, `(rows,)`.

    $\frac{1}{|L|} \sum_{i \in L} n_i$, with $n_i$ the training interactions of item i.

    >>> average_popularity(top_lists([[3.0, 2.0, 2.0]], [[0, 1, 2]], k=2), [10, 4, 2])
    array([6.5])
    """
    return _mean(lists, np.asarray(counts, np.float64))


def novelty(lists: TopLists, counts: npt.ArrayLike, num_users: int) -> FloatArray:
    r"""Return the mean self-information of a list's items in bits, `(rows,)` (Zhou et al., 2010).

    $\frac{1}{|L|} \sum_{i \in L} -\log_2 \frac{\max(n_i, 1)}{U}$, with $n_i$ of U training users
    having met item i; what nobody has met is taken as met by one.

    >>> novelty(top_lists([[3.0, 2.0, 1.0]], [[0, 1, 2]], k=2), [8, 2, 0], num_users=16)
    array([2.])
    """
    met = np.maximum(np.asarray(counts, np.float64), 1)
    return _mean(lists, -np.log2(met / num_users))


def diversity(lists: TopLists, categories: Sequence[str]) -> FloatArray:
    r"""Return how different a list's items are from each other by their metadata, `(rows,)`.

    $\frac{1}{|L|(|L|-1)} \sum_{i \ne j \in L} \left(1 - \frac{|C_i \cap C_j|}{|C_i \cup C_j|}
    \right)$, with $C_i$ the categories of item i. A list of fewer than two items has 0.

    Args:
        lists: The lists.
        categories: Each item's categories, parted by `|`, as in `Comedy|Drama`.

    >>> lists = top_lists([[3.0, 2.0, 1.0]], [[0, 1, 2]], k=3)
    >>> diversity(lists, ["Comedy|Drama", "Drama", "War"]).round(3)
    array([0.833])
    """
    kinds, kind_of = np.unique(np.asarray(categories, dtype=np.str_), return_inverse=True)
    apart = _distances([set(one.split("|")) for one in kinds.tolist()])
    blocks = range(0, len(lists.items), _ROWS_AT_ONCE)
    pairs = [
        _pairs_apart(lists, slice(start, start + _ROWS_AT_ONCE), kind_of, apart) for start in blocks
    ]
    return np.concatenate([[], *pairs]) / np.maximum(lists.lengths * (lists.lengths - 1), 1)


def _pairs_apart(lists: TopLists, rows: slice, kind_of: IntArray, apart: FloatArray) -> FloatArray:
    """Return the distances expected between all ordered pairs of each list, added up."""
    number, width = len(lists.items[rows]), len(apart)
    of_row = kind_of[lists.items[rows]] + np.arange(number)[:, None] * width
    sure, edge = (
        np.bincount(of_row[chosen[rows]], minlength=number * width).reshape(number, width)
        for chosen in (lists.sure, lists.edge)
    )
    level, places = edge.sum(axis=1), lists.places[rows]
    one = places / np.maximum(level, 1)
    two = places * (places - 1) / np.maximum(level * (level - 1), 1)
    far = sure @ apart
    within = (far * sure).sum(axis=1) + 2 * one * (far * edge).sum(axis=1)
    total: FloatArray = within + two * (edge @ apart * edge).sum(axis=1)
    return total


def coverage(lists: TopLists, num_items: int) -> float:
    r"""Return the share of the catalogue that stands in somebody's list.

    $\frac{1}{I} \sum_i \left(1 - \prod_u (1 - p_{ui})\right)$, with $p_{ui}$ the chance that item i
    stands in the list of user u, 1 or 0 but for ties.

    >>> coverage(top_lists([[3.0, 2.0, 2.0]] * 2, [[0, 1, 2]] * 2, k=2), num_items=5)
    0.5
    """
    with np.errstate(divide="ignore"):  # who certainly stands there
        never = np.log1p(-lists.chances)
    missed = np.bincount(lists.items.ravel(), never.ravel(), minlength=num_items)
    return float(1 - np.exp(missed).mean())


def gini(lists: TopLists, num_items: int) -> float:
    r"""Return how unequally the lists share out their places: 0 alike, near 1 all on few items.

    $\frac{1}{I \sum_i e_i} \sum_{r=1}^{I} (2r - I - 1)\, e_{(r)}$, with $e_{(1)} \le e_{(2)} \le
    \dots$ how often each item of the catalogue is expected to stand in a list.

    >>> gini(top_lists([[2.0, 1.0]] * 3, [[0, 1]] * 3, k=1), num_items=4)
    0.75
    """
    shown = np.bincount(lists.items.ravel(), lists.chances.ravel(), minlength=num_items)
    ranks = np.arange(1, num_items + 1)
    total = num_items * shown.sum()
    return float(((2 * ranks - num_items - 1) * np.sort(shown)).sum() / total) if total else 0.0


def list_properties(
    lists: TopLists, counts: npt.ArrayLike, num_users: int, categories: Sequence[str] | None = None
) -> dict[str, float]:
    """Return what all lists together are like; what each list has by itself is averaged.

    Args:
        lists: The lists.
        counts: `(items,)` training interactions of each item of the catalogue.
        num_users: How many users these interactions are of.
        categories: Each item's categories, as in `diversity`; without them there is none.
    """
    met = np.asarray(counts, np.float64)
    found = {
        "coverage": coverage(lists, len(met)),
        "gini": gini(lists, len(met)),
        "popularity": _average(average_popularity(lists, met)),
        "novelty": _average(novelty(lists, met, num_users)),
    }
    if categories is not None:
        found["diversity"] = _average(diversity(lists, categories))
    return found


def _mean(lists: TopLists, values: FloatArray) -> FloatArray:
    total: FloatArray = (lists.chances * values[lists.items]).sum(axis=1)
    return total / np.maximum(lists.lengths, 1)


def _average(values: FloatArray) -> float:
    return float(values.mean()) if values.size else 0.0


def _distances(categories: Sequence[set[str]]) -> FloatArray:
    """Return the Jaccard distances of sets of categories, `(sets, sets)`."""
    names = {name: place for place, name in enumerate(sorted(set().union(*categories)))}
    has = np.zeros((len(categories), len(names)))
    for row, one in enumerate(categories):
        has[row, [names[name] for name in one]] = 1
    both = has @ has.T
    sizes = has.sum(axis=1)
    return 1 - both / (sizes[:, None] + sizes[None, :] - both)
