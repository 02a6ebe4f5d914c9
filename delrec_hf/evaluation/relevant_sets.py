"""Recall, HR, NDCG, MRR and MAP where several items are relevant, as expected values under ties."""

import numpy as np
import numpy.typing as npt

from delrec_hf.evaluation.metrics import HR_CUTOFFS, NDCG_CUTOFFS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def metrics_of_sets(
    scores: npt.ArrayLike, relevant: npt.ArrayLike, num_relevant: npt.ArrayLike | None = None
) -> dict[str, FloatArray]:
    r"""Return every metric of every row of scores, of which several items may be relevant.

    Ties are not broken: a metric is its mean over all orders of the items that score the same
    (McSherry and Najork, 2008). With q(r) the chance that rank r holds a relevant item, f(r) that
    it holds the first one, a(r) how many relevant items are expected at ranks 1 to r if r holds
    one, and R how many items are relevant,

    - `hr@k`: $\sum_{r \le k} f(r)$, the chance that one relevant item or more is among the first k;
    - `recall@k`: $\frac{1}{R} \sum_{r \le k} q(r)$;
    - `ndcg@k`: $\sum_{r \le k} \frac{q(r)}{\log_2(r+1)} / \sum_{r \le \min(k, R)}
      \frac{1}{\log_2(r+1)}$;
    - `mrr`: $\sum_r f(r) / r$;
    - `map`: $\frac{1}{R} \sum_r q(r)\, a(r) / r$.

    Where one item is relevant, recall is HR, and MAP is MRR: those of `per_user_metrics`.

    Args:
        scores: `(rows, items)`, higher is better. A score that is not finite ranks last, in a tie
            with the others that are not finite.
        relevant: `(rows, items)` which items are relevant.
        num_relevant: `(rows,)` how many items are relevant, those counted that are not among the
            ranked ones and so never found; default: those that `relevant` marks.

    Returns:
        For each metric an array `(rows,)` of float64 between 0 and 1.

    Raises:
        ValueError: If the shapes do not fit, or a row has nothing relevant or less than is marked.

    >>> found = metrics_of_sets([[3.0, 2.0, 2.0, 1.0]], [[False, True, False, True]])
    >>> {name: float(found[name][0]) for name in ("hr@1", "recall@5", "mrr", "map")}
    {'hr@1': 0.0, 'recall@5': 1.0, 'mrr': 0.41666666666666663, 'map': 0.4583333333333333}
    """
    table, marked = np.asarray(scores, np.float64), np.asarray(relevant, bool)
    total = marked.sum(axis=-1) if num_relevant is None else np.asarray(num_relevant, np.int64)
    _check(table, marked, total)
    holds, is_first, found_by = _chances(np.where(np.isfinite(table), table, -np.inf), marked)
    rank = np.arange(1, table.shape[1] + 1)
    discount = 1 / np.log2(rank + 1)
    best = np.concatenate([[0.0], (1 / np.log2(np.arange(2, max(NDCG_CUTOFFS) + 2))).cumsum()])
    found = {f"hr@{k}": is_first[:, :k].sum(axis=1) for k in HR_CUTOFFS}
    found |= {f"recall@{k}": holds[:, :k].sum(axis=1) / total for k in HR_CUTOFFS}
    found |= {
        f"ndcg@{k}": (holds * discount)[:, :k].sum(axis=1) / best[np.minimum(total, k)]
        for k in NDCG_CUTOFFS
    }
    found["mrr"] = (is_first / rank).sum(axis=1)
    return found | {"map": (holds * found_by / rank).sum(axis=1) / total}


def _chances(
    scores: FloatArray, relevant: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return q, f and a of each rank, `(rows, items)` each; see `metrics_of_sets`."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    counts = np.take_along_axis(relevant, order, axis=1).cumsum(axis=1)
    before = np.concatenate([np.zeros((len(scores), 1), np.int64), counts], axis=1)
    start, end = _level(ordered)
    size, inside = end - start, np.arange(scores.shape[1]) - start
    above = np.take_along_axis(before, start, axis=1)
    among = np.take_along_axis(before, end, axis=1) - above
    # The chance of a relevant item at this place of its level, if none came before it there.
    next_one = np.minimum(among / (size - inside), 1.0)
    none_yet = np.cumprod(1 - next_one, axis=1)
    none_before = np.concatenate([np.ones((len(scores), 1)), none_yet[:, :-1]], axis=1)
    found_by = above + 1 + inside * (among - 1) / np.maximum(size - 1, 1)
    return among / size, none_before * next_one, found_by


def _level(ordered: FloatArray) -> tuple[IntArray, IntArray]:
    """Return where the level of each place starts and ends, `(rows, items)` each."""
    places = np.arange(ordered.shape[1])
    changes = ordered[:, 1:] != ordered[:, :-1]
    edge = np.ones((len(ordered), 1), dtype=bool)
    starts = np.where(np.concatenate([edge, changes], axis=1), places, 0)
    ends = np.where(np.concatenate([changes, edge], axis=1), places + 1, ordered.shape[1])
    return (
        np.maximum.accumulate(starts, axis=1),
        np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1],
    )


def _check(scores: FloatArray, relevant: npt.NDArray[np.bool_], total: IntArray) -> None:
    if scores.ndim != 2 or scores.shape != relevant.shape or total.shape != scores.shape[:1]:
        raise ValueError(
            f"scores have the shape {scores.shape}, relevant {relevant.shape} and num_relevant "
            f"{total.shape}; expected (rows, items) twice and (rows,)"
        )
    marked = relevant.sum(axis=1)
    wrong = (total < 1) | (total < marked)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"row {row} has {total[row]} relevant items, of which {marked[row]} are marked; "
            "expected at least one, and no fewer than are marked"
        )
