"""A teacher's top-h lists and candidate scores, batch by batch, keyed by user and position."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, Features, List, Value

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.files import replace_folder
from delrec_hf.hashes import content_hash
from delrec_hf.logging import progress
from delrec_hf.teachers.histories import Histories, IntArray, column, flatten
from delrec_hf.teachers.teacher import FloatArray, Teacher

FEATURES = Features(
    {
        "user_id": Value("string"),
        "position": Value("int32"),
        "items": List(Value("int32")),
        "scores": List(Value("float32")),
    }
)

_SCHEMA = FEATURES.arrow_schema

SCORES_AT_ONCE = 2**22
"""32 MB of float64: what bounds the memory of a batch."""

BYTES_AT_ONCE = 2**20
"""Bytes of lists that wait to be written as one group of rows.

More would not only take its own size: each waiting batch splits a hole in the heap that the next
batch's scores no longer fit into.
"""


class ScoredBatch(NamedTuple):
    """Places to predict for: which rows they are, what they hold, and every item's score."""

    rows: slice
    users: pa.ChunkedArray
    positions: IntArray
    histories: list[IntArray]
    scores: FloatArray


def write_predictions(
    teacher: Teacher,
    prepared: PreparedData,
    places: Mapping[str, Dataset],
    top_h: int,
    folder: Path,
    *,
    instead: Mapping[str, Teacher] | None = None,
    filter_seen: bool = True,
    disable_tqdm: bool = False,
) -> None:
    """Write the teacher's best items for each place of each part to a folder.

    All processes call this together. Each one predicts its share of the rows and writes it to
    `PART-00000-of-00002.parquet`, as `datasets` names shards. In order, the shards hold what one
    process alone writes: the batches are the same, whoever scores them. That is so bit for bit
    where each process has as many threads as the one. Another number of threads may round a matrix
    product otherwise: scores then differ by less than a millionth of the highest, and only items as
    close as that change places. Memory holds one batch of scores and a few megabytes of lists.

    Args:
        teacher: Any teacher.
        prepared: The data it was trained on.
        places: Rows with `user_id` and `position`, by part.
        top_h: How many items to keep.
        folder: What was there is replaced once all is written, and stays if anything fails.
        instead: Teachers that are asked in its place, by part.
        filter_seen: Leave out the items before the position, however far back.
        disable_tqdm: Show no progress bar.
    """
    state = PartialState()
    with _shared_folder(folder) as aside:
        for part, rows in places.items():
            path = aside / _shard(part, state.process_index, state.num_processes)
            share = (state.process_index, state.num_processes)
            asked = (instead or {}).get(part, teacher)
            found = score_batches(asked, prepared, rows, f"predict {part}", disable_tqdm, share)
            _write(path, (_lists(batch, top_h, filter_seen) for batch in found))


def read_predictions(folder: Path, part: str) -> Dataset:
    """Return a part of what `write_predictions` wrote, all shards in order.

    Raises:
        InputError: If there is no such part, or one of its shards is missing.
    """
    found = sorted(path.name for path in Path(folder).glob(f"{part}-*-of-*.parquet"))
    if not found or found != [_shard(part, index, len(found)) for index in range(len(found))]:
        raise InputError(
            f"{folder} holds {', '.join(found) or 'no shard'} for `{part}`; expected "
            f"{_shard(part, 0, max(1, len(found)))} and so on, all of one number; make them again "
            "with `delrec teach`"
        )
    shards = [Path(folder) / name for name in found]
    table = pa.concat_tables(pq.ParquetFile(path).read() for path in shards)
    # datasets would make the fingerprint from copies of the table, five times its size.
    return Dataset(table, fingerprint=content_hash(*shards)[:16])


def predict(
    teacher: Teacher,
    prepared: PreparedData,
    places: Dataset,
    top_h: int,
    *,
    filter_seen: bool = True,
    disable_tqdm: bool = False,
) -> Dataset:
    """Return the teacher's best items for each place, in memory; for many, write them.

    Returns:
        One row per place, in their order: `user_id`, `position`, `items` (at most `top_h` item
        rows, best first, ties in row order) and their `scores`. Items that the teacher scores -inf
        or not a number never appear, nor do, with `filter_seen`, those before the position.
    """
    found = score_batches(teacher, prepared, places, "predict", disable_tqdm)
    lists = [_lists(batch, top_h, filter_seen) for batch in found]
    return Dataset(pa.Table.from_batches(lists, _SCHEMA))


def all_positions(prepared: PreparedData) -> Dataset:
    """Return `user_id` and `position` of every item that another one stands before."""
    users = prepared.sequences.select_columns(["user_id"]).with_format("arrow")[:]["user_id"]
    bounds = Histories.of(prepared).bounds
    lengths = np.maximum(np.diff(bounds) - 1, 0)
    ends = np.cumsum(lengths)
    positions = np.arange(1, lengths.sum() + 1) - np.repeat(ends - lengths, lengths)
    columns = {
        "user_id": users.take(pa.array(np.repeat(np.arange(len(lengths)), lengths))),
        "position": pa.array(positions, pa.int32()),
    }
    return Dataset(pa.table(columns))


def score_candidates(
    teacher: Teacher, prepared: PreparedData, examples: Dataset, *, disable_tqdm: bool = False
) -> npt.NDArray[np.float64]:
    """Return `(rows, candidates)` scores of each example's candidates, in their order."""
    values, bounds = flatten(examples, "candidates")
    candidates = values.reshape(len(bounds) - 1, -1)
    scores = np.empty(candidates.shape)
    for batch in score_batches(teacher, prepared, examples, "score candidates", disable_tqdm):
        scores[batch.rows] = np.take_along_axis(batch.scores, candidates[batch.rows], axis=1)
    return scores


def top_items(scores: FloatArray, top_h: int) -> IntArray:
    """Return the columns of the highest scores, best first, ties in column order.

    The same as `np.argsort(-scores, axis=1, kind="stable")[:, :top_h]`, in less time.

    Args:
        scores: `(rows, columns)`, -inf allowed, numbers all of them.
        top_h: How many columns to keep, if there are as many.

    >>> top_items(np.array([[0.0, 2.0, 1.0, 2.0, 1.0]]), 3)
    array([[1, 3, 2]])
    """
    top_h = min(top_h, scores.shape[1])
    found = torch.topk(torch.from_numpy(scores), min(top_h + 1, scores.shape[1]))
    best, items = found.values.numpy(), found.indices.numpy()
    # torch takes equal scores in any order: sort them, and where they go on behind the last place,
    # take the first ones.
    tied = np.flatnonzero((best[:, 1:] == best[:, :-1]).any(axis=1))
    order = np.lexsort((items[tied], -best[tied]))
    items[tied] = np.take_along_axis(items[tied], order, axis=1)
    if best.shape[1] > top_h:
        cut = np.flatnonzero(best[:, top_h - 1] == best[:, top_h])
        items[cut, :top_h] = _first_of_level(scores[cut], best[cut, :top_h], items[cut, :top_h])
    return items[:, :top_h]


def _first_of_level(scores: FloatArray, best: FloatArray, items: IntArray) -> IntArray:
    """Return `items`, those of the lowest of the `best` scores being its first columns."""
    least = best[:, -1:]
    size, top_h = scores.shape[1], best.shape[1]
    keys = np.where(scores == least, -np.arange(size, dtype=np.int32), np.int32(-size))
    first = -torch.topk(torch.from_numpy(keys), top_h).values.numpy()
    places = np.arange(top_h) - (best > least).sum(axis=1, keepdims=True)
    level = np.take_along_axis(first, np.maximum(places, 0), axis=1)
    return np.where(places < 0, items, level)


def score_batches(
    teacher: Teacher,
    prepared: PreparedData,
    places: Dataset,
    desc: str,
    disable_tqdm: bool,
    share: tuple[int, int] = (0, 1),
) -> Iterator[ScoredBatch]:
    """Yield the scores of places, a batch at a time.

    Args:
        teacher: Any teacher.
        prepared: The data it was trained on.
        places: Rows with `user_id` and `position`.
        desc: What the progress bar says.
        disable_tqdm: Show no progress bar.
        share: `(index, processes)`: which process's batches. All processes' in order are those of
            one process alone, and no two processes' differ in number by more than one.
    """
    sequences = Histories.of(prepared)
    users = places.select_columns(["user_id"]).with_format("arrow")[:]["user_id"]
    positions = column(places, "position").astype(np.int64)
    size = max(1, min(1024, SCORES_AT_ONCE // len(prepared.items)))
    starts = range(0, len(users), size)
    index, processes = share
    starts = starts[len(starts) * index // processes : len(starts) * (index + 1) // processes]
    for start in progress(starts, desc=desc, total=len(starts), disable_tqdm=disable_tqdm):
        rows = slice(start, start + size)
        ids = users[rows].to_pylist()
        histories = sequences.before(ids, positions[rows])
        scores = teacher.score(ids, positions[rows], histories)
        yield ScoredBatch(rows, users[rows], positions[rows], histories, scores)


def _lists(batch: ScoredBatch, top_h: int, filter_seen: bool) -> pa.RecordBatch:
    """Return the best items of a batch, with `FEATURES`."""
    # A copy: a teacher may hand out what it will use again. Against a number, NaN loses.
    scores = np.fmax(batch.scores, -np.inf)
    if filter_seen:
        lengths = [len(one) for one in batch.histories]
        rows = np.repeat(np.arange(len(lengths)) * scores.shape[1], lengths)
        scores.reshape(-1)[rows + np.concatenate(batch.histories)] = -np.inf
    items = top_items(scores, top_h)
    values = np.take_along_axis(scores, items, axis=1)
    kept = values > -np.inf
    bounds = pa.array(np.concatenate([[0], np.cumsum(kept.sum(axis=1))]), pa.int32())
    columns = [
        pa.concat_arrays(batch.users.chunks).cast(pa.string()),
        pa.array(batch.positions, pa.int32()),
        pa.ListArray.from_arrays(bounds, pa.array(items[kept], pa.int32())),
        pa.ListArray.from_arrays(bounds, pa.array(values[kept], pa.float32())),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _write(path: Path, lists: Iterable[pa.RecordBatch]) -> None:
    """Write lists to a parquet file as they come, many batches in one group of rows."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for batch in lists:
            waiting.append(batch)
            size += batch.nbytes
            if size >= BYTES_AT_ONCE:
                writer.write_table(pa.Table.from_batches(waiting, _SCHEMA))
                waiting, size = [], 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, _SCHEMA))


def _shard(part: str, index: int, number: int) -> str:
    return f"{part}-{index:05d}-of-{number:05d}.parquet"


@contextmanager
def _shared_folder(folder: Path) -> Iterator[Path]:
    """Yield `replace_folder`'s folder to every process; it takes its place when all are done."""
    state = PartialState()
    with ExitStack() as stack:
        aside = stack.enter_context(replace_folder(folder)) if state.is_main_process else None
        (shared,) = broadcast_object_list([str(aside)])
        yield Path(shared)
        state.wait_for_everyone()
    state.wait_for_everyone()
