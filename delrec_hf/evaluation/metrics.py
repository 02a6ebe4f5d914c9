"""HR@k, NDCG@k and MRR per user, as expected values where scores tie."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HR_CUTOFFS = (1, 5, 10)
NDCG_CUTOFFS = (5, 10)
METRICS = (*(f"hr@{k}" for k in HR_CUTOFFS), *(f"ndcg@{k}" for k in NDCG_CUTOFFS), "mrr")
"""The keys of every result, in the order of the report."""

EXPECTED_HR = "expected_hr@1"
"""The key of `expected_hr_at_1`, which only data of a known rule have."""

LOG_LOSS = "log_loss"
"""Minus the log-chance of the target among the candidates, in nats; lower is better."""

TIE_RULE = "expected value under random tie-breaking"
"""What a report says about ties."""


def per_user_metrics(scores: npt.ArrayLike, target_places: npt.ArrayLike) -> dict[str, FloatArray]:
    """Return every metric of every row of candidate scores.

    Args:
        scores: `(rows, candidates)`, higher is better. A score that is not finite ranks last, in a
            tie with the others that are not finite.
        target_places: `(rows,)` column of the target in each row.

    Returns:
        For each of `METRICS` an array `(rows,)` of float64 between 0 and 1.

    Raises:
        ValueError: If the shapes do not fit or a target's place is outside its row.

    >>> found = per_user_metrics([[3.0, 2.0, 1.0], [3.0, 3.0, 1.0]], [1, 0])
    >>> found["hr@1"]
    array([0. , 0.5])
    >>> found["mrr"]
    array([0.5 , 0.75])
    """
    return metrics_from_ranks(*ranks(scores, target_places))


def ranks(scores: npt.ArrayLike, target_places: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    """Count the candidates above the target and those level with it, itself included.

    Args:
        scores: `(rows, candidates)`, as in `per_user_metrics`.
        target_places: `(rows,)` column of the target in each row.

    Returns:
        `greater` and `ties`, each `(rows,)`: the target's rank is one of `greater + 1` to
        `greater + ties`.

    Raises:
        ValueError: If the shapes do not fit or a target's place is outside its row.

    >>> ranks([[1.0, float("nan"), 2.0, 2.0]], [2])
    (array([0]), array([2]))
    >>> ranks([[1.0, float("nan"), 2.0, float("inf")]], [1])
    (array([2]), array([2]))
    """
    table = np.asarray(scores, dtype=np.float64)
    places = np.asarray(target_places)
    if table.ndim != 2 or places.shape != table.shape[:1]:
        raise ValueError(
            f"scores have the shape {table.shape} and target_places {places.shape}; expected "
            "(rows, candidates) and (rows,)"
        )
    if places.size == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if not np.issubdtype(places.dtype, np.integer):
        raise ValueError(f"target_places have the type {places.dtype}; expected whole numbers")
    if places.min() < 0 or places.max() >= table.shape[1]:
        raise ValueError(
            f"target_places go from {places.min()} to {places.max()}; expected 0 to "
            f"{table.shape[1] - 1}, the columns of scores"
        )
    table = np.where(np.isfinite(table), table, -np.inf)
    target = np.take_along_axis(table, places[:, None], axis=1)
    return (table > target).sum(axis=1), (table == target).sum(axis=1)


def metrics_from_ranks(greater: npt.ArrayLike, ties: npt.ArrayLike) -> dict[str, FloatArray]:
    """Return every metric from the target's rank, ties included.

    Args:
        greater: `(rows,)` how many items score higher than the target, 0 or more.
        ties: `(rows,)` how many score the same, the target itself included, 1 or more.

    Returns:
        For each of `METRICS` an array `(rows,)` of float64 between 0 and 1.

    Raises:
        ValueError: If the shapes differ or a count is too small.

    >>> {name: float(value[0].round(3)) for name, value in metrics_from_ranks([2], [1]).items()}
    {'hr@1': 0.0, 'hr@5': 1.0, 'hr@10': 1.0, 'ndcg@5': 0.5, 'ndcg@10': 0.5, 'mrr': 0.333}
    """
    above, level = np.asarray(greater, dtype=np.int64), np.asarray(ties, dtype=np.int64)
    if above.shape != level.shape or above.ndim != 1:
        raise ValueError(
            f"greater has the shape {above.shape} and ties {level.shape}; expected (rows,) twice"
        )
    if above.size and (above.min() < 0 or level.min() < 1):
        raise ValueError(
            f"greater goes down to {above.min()} and ties to {level.min()}; expected at least 0 "
            "and 1, as ties count the target itself"
        )
    found = {f"hr@{k}": hit_rate(above, level, k) for k in HR_CUTOFFS}
    found |= {f"ndcg@{k}": ndcg(above, level, k) for k in NDCG_CUTOFFS}
    return found | {"mrr": reciprocal_rank(above, level)}


def hit_rate(greater: IntArray, ties: IntArray, k: int) -> FloatArray:
    """Return the chance that the target is among the first k.

    With g items above the target and t level with it, every rank from g+1 to g+t is as likely as
    the others, so `HR@k = min(max(k - g, 0), t) / t`.

    >>> hit_rate(np.array([0, 4, 5]), np.array([1, 2, 1]), k=5)
    array([1. , 0.5, 0. ])
    """
    hits: FloatArray = np.clip(k - greater, 0, ties) / ties
    return hits


def expected_hr_at_1(scores: npt.ArrayLike, chances: npt.ArrayLike) -> FloatArray:
    """Return the chance that the candidate ranked first is the target, where the truth is known.

    With F the candidates that score highest, `E = mean over c in F of chance(c)`. Its mean over
    users estimates the same as HR@1, with less noise: whether the target was the likelier candidate
    is not left to one draw.

    Args:
        scores: `(rows, candidates)`, as in `per_user_metrics`.
        chances: `(rows, candidates)` how likely each is the target; each row sums to 1.

    Returns:
        `(rows,)` of float64 between 0 and 1.

    Raises:
        ValueError: If the shapes do not fit.

    >>> expected_hr_at_1([[3.0, 2.0, 1.0], [3.0, 3.0, 1.0]], [[0.5, 0.25, 0.25]] * 2)
    array([0.5  , 0.375])
    """
    table, truth = np.asarray(scores, np.float64), np.asarray(chances, np.float64)
    if table.ndim != 2 or table.shape != truth.shape:
        raise ValueError(
            f"scores have the shape {table.shape} and chances {truth.shape}; expected (rows, "
            "candidates) twice"
        )
    table = np.where(np.isfinite(table), table, -np.inf)
    first = table == table.max(axis=1, keepdims=True, initial=-np.inf)
    expected: FloatArray = (truth * first).sum(axis=1) / first.sum(axis=1)
    return expected


def ndcg(greater: IntArray, ties: IntArray, k: int) -> FloatArray:
    """Return the expected discounted gain of the one relevant item, cut off at rank k.

    `NDCG@k = mean over r = g+1 .. g+t of (1 / log2(r + 1) where r <= k, else 0)`; the ideal gain
    is 1, as one item is relevant.

    >>> ndcg(np.array([0, 2, 5]), np.array([1, 1, 1]), k=5).round(3)
    array([1. , 0.5, 0. ])
    """
    gains = 1.0 / np.log2(np.arange(2, k + 2))
    return _mean_over_ties(gains, np.minimum(greater, k), np.minimum(greater + ties, k), ties)


def reciprocal_rank(greater: IntArray, ties: IntArray) -> FloatArray:
    """Return the expected reciprocal rank of the target; its mean over users is the MRR.

    `RR = mean over r = g+1 .. g+t of 1 / r`.

    >>> reciprocal_rank(np.array([0, 3, 0]), np.array([1, 1, 2]))
    array([1.  , 0.25, 0.75])
    """
    last = int((greater + ties).max(initial=0))
    return _mean_over_ties(1.0 / np.arange(1, last + 1), greater, greater + ties, ties)


def _mean_over_ties(
    gains: FloatArray, first: IntArray, end: IntArray, ties: IntArray
) -> FloatArray:
    """Return `gains[first:end].sum() / ties` of each row; `gains[r - 1]` is what rank r earns."""
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    several: FloatArray = (sums[end] - sums[first]) / ties
    if not gains.size:
        return several
    # One rank needs no difference of sums, and then has no rounding error of one.
    single = np.where(end > first, gains[np.minimum(first, gains.size - 1)], 0.0)
    exact: FloatArray = np.where(ties == 1, single, several)
    return exact
