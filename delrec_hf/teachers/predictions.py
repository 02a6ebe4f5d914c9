"""A teacher's top-h lists and candidate scores, batch by batch, keyed by user and position."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from delrec_hf.data.prepared import PreparedData
from delrec_hf.logging import progress
from delrec_hf.teachers.histories import Histories, IntArray, column, flatten
from delrec_hf.teachers.training import Teacher

FloatArray = npt.NDArray[np.float64]

FEATURES = Features(
    {
        "user_id": Value("string"),
        "position": Value("int32"),
        "items": List(Value("int32")),
        "scores": List(Value("float32")),
    }
)

_SCORES_AT_ONCE = 2**22  # 32 MB of float64: what bounds the memory of a batch


def predict(
    teacher: Teacher,
    prepared: PreparedData,
    examples: Dataset,
    top_h: int,
    *,
    disable_tqdm: bool = False,
) -> Dataset:
    """Return the teacher's best items for each example, seen ones left out.

    Args:
        teacher: Any teacher.
        prepared: The data it was trained on.
        examples: Rows with `user_id` and `position`.
        top_h: How many items to keep.
        disable_tqdm: Show no progress bar.

    Returns:
        One row per example, in their order: `user_id`, `position`, `items` (at most `top_h` item
        rows, best first, ties in row order) and their `scores`. Items before the position, however
        far back, never appear, nor do those that the teacher scores -inf.
    """
    lists, scores = [], []
    for _, batch, seen in _batches(teacher, prepared, examples, "predict", disable_tqdm):
        batch[np.isnan(batch)] = -np.inf
        rows = np.repeat(np.arange(len(seen)), [len(one) for one in seen])
        batch[rows, np.concatenate(seen)] = -np.inf
        best = top_items(batch, top_h)
        values = np.take_along_axis(batch, best, axis=1)
        lists.append(_ragged(best, values, pa.int32()))
        scores.append(_ragged(values, values, pa.float32()))
    table = pa.table(
        {
            "user_id": column(examples, "user_id").astype(object),
            "position": column(examples, "position").astype(np.int32),
            "items": pa.chunked_array(lists, pa.list_(pa.int32())),
            "scores": pa.chunked_array(scores, pa.list_(pa.float32())),
        }
    )
    return Dataset(table.cast(FEATURES.arrow_schema))


def score_candidates(
    teacher: Teacher, prepared: PreparedData, examples: Dataset, *, disable_tqdm: bool = False
) -> FloatArray:
    """Return `(rows, candidates)` scores of each example's candidates, in their order."""
    values, bounds = flatten(examples, "candidates")
    candidates = values.reshape(len(bounds) - 1, -1)
    scores = np.empty(candidates.shape)
    for part, batch, _ in _batches(teacher, prepared, examples, "score candidates", disable_tqdm):
        scores[part] = np.take_along_axis(batch, candidates[part], axis=1)
    return scores


def top_items(scores: FloatArray, top_h: int) -> IntArray:
    """Return the columns of the highest scores, best first, ties in column order.

    >>> top_items(np.array([[0.0, 2.0, 1.0, 2.0, 1.0]]), 3)
    array([[1, 3, 2]])
    """
    top_h = min(top_h, scores.shape[1])
    least = -np.partition(-scores, top_h - 1, axis=1)[:, top_h - 1, None]
    above, level = scores > least, scores == least
    room = top_h - above.sum(axis=1, keepdims=True)
    chosen = above | (level & (np.cumsum(level, axis=1) <= room))
    items = np.nonzero(chosen)[1].reshape(len(scores), top_h)
    order = np.argsort(-np.take_along_axis(scores, items, axis=1), axis=1, kind="stable")
    return np.take_along_axis(items, order, axis=1)


def _batches(
    teacher: Teacher, prepared: PreparedData, examples: Dataset, desc: str, disable_tqdm: bool
) -> Iterator[tuple[slice, FloatArray, list[IntArray]]]:
    """Yield a slice of the examples, `(rows, items)` scores, and the items before each position."""
    sequences = Histories.of(prepared)
    users = column(examples, "user_id").tolist()
    positions = column(examples, "position").astype(np.int64)
    rows = max(1, min(1024, _SCORES_AT_ONCE // len(prepared.items)))
    starts = range(0, len(users), rows)
    for start in progress(starts, desc=desc, total=len(starts), disable_tqdm=disable_tqdm):
        part = slice(start, start + rows)
        histories = sequences.before(users[part], positions[part])
        yield part, teacher.score(users[part], positions[part], histories), histories


def _ragged(values: npt.NDArray[np.generic], scores: FloatArray, kind: pa.DataType) -> pa.Array:
    """Return the values whose score is finite as lists, one per row."""
    kept = scores > -np.inf
    bounds = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(bounds), pa.array(values[kept], kind))
