"""The items each target has to be told apart from."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset

from delrec_hf.data.sequences import Sequences
from delrec_hf.data.splitmix import KeyArray, splitmix64
from delrec_hf.errors import InputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_PROPOSALS_AT_ONCE = 1 << 20


def draw_candidates(
    sequences: Sequences,
    users: IntArray,
    positions: IntArray,
    num_items: int,
    num_candidates: int,
    seed: int,
    *,
    weights: FloatArray | None = None,
    setting: str = "data.num_candidates",
) -> IntArray:
    """Draw candidates for targets: the target at a random place, the others uniform or by weight.

    The others are items that the user never interacted with, anywhere in the sequence, none twice.
    Each target has its own stream of random numbers, made of seed, user id and position alone, so
    that neither the order of the users nor who else is there changes anything. Memory grows with
    the interactions and the targets, never with users x items.

    Args:
        sequences: All sequences.
        users: `(rows,)` users of the targets, as rows of `sequences.user_ids`.
        positions: `(rows,)` places of the targets in the users' sequences.
        num_items: Size of the catalogue.
        num_candidates: How many candidates each target gets, itself included.
        seed: Decides every draw.
        weights: `(items,)` of each draw among the items that are left; without them all are alike.
        setting: What a message calls the number of candidates.

    Returns:
        `(rows, num_candidates)` item rows.

    Raises:
        InputError: If the catalogue holds too few items that some user never interacted with.
    """
    _check_enough(sequences, num_items, weights, num_candidates, setting)
    user_keys = _user_keys(sequences.user_ids, seed)[users]
    streams = splitmix64(user_keys, positions.astype(np.uint64) + np.uint64(1))

    candidates = np.empty((len(users), num_candidates), dtype=np.int64)
    if weights is None:
        met = np.repeat(np.arange(len(sequences.user_ids)), sequences.lengths) * num_items
        met = np.sort(met + sequences.items)
        candidates[:, :-1] = _draw_unmet(streams, users, met, num_items, num_candidates - 1)
    else:
        candidates[:, :-1] = _draw_weighted(streams, users, sequences, weights, num_candidates - 1)
    # The target takes a random place; whoever stood there moves to the end.
    place = _below(splitmix64(streams, 0), num_candidates)
    rows = np.arange(len(users))
    candidates[:, -1] = candidates[rows, place]
    candidates[rows, place] = sequences.items[sequences.starts[users] + positions]
    return candidates


def with_candidates(examples: Dataset, candidates: npt.NDArray[np.integer]) -> Dataset:
    """Return examples with other candidates, `(examples, candidates)` item rows."""
    table = examples.with_format("arrow")[:]
    ends = np.arange(len(candidates) + 1) * candidates.shape[1]
    lists = pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), pa.array(candidates.ravel(), pa.int32())
    )
    return Dataset(table.set_column(table.column_names.index("candidates"), "candidates", lists))


def _draw_unmet(
    streams: KeyArray, users: IntArray, met: IntArray, num_items: int, count: int
) -> IntArray:
    """Return the first `count` different, unmet items of each stream, `(rows, count)`.

    Rows whose stream was not read far enough are read again, twice as far.
    """
    drawn = np.empty((len(streams), count), dtype=np.int64)
    open_rows = np.arange(len(streams))
    width = 2 * count + 8
    while len(open_rows):
        still_open = []
        size = max(1, _PROPOSALS_AT_ONCE // width)
        for begin in range(0, len(open_rows), size):
            rows = open_rows[begin : begin + size]
            places = np.arange(1, width + 1, dtype=np.uint64)
            proposals = _below(splitmix64(streams[rows, None], places), num_items)
            good = ~_repeats(proposals) & ~_contains(met, users[rows, None] * num_items + proposals)
            rank = good.cumsum(axis=1)
            done = rank[:, -1] >= count
            chosen = good & (rank <= count) & done[:, None]
            drawn[rows[done]] = proposals[chosen].reshape(-1, count)
            still_open.append(rows[~done])
        open_rows = np.concatenate(still_open)
        width *= 2
    return drawn


def _draw_weighted(
    streams: KeyArray, users: IntArray, sequences: Sequences, weights: FloatArray, count: int
) -> IntArray:
    """Return `count` unmet items of each stream, drawn one after the other by weight.

    The items whose exponential waiting times end first are such a draw (Efraimidis and Spirakis,
    2006).
    """
    drawn = np.empty((len(streams), count), dtype=np.int64)
    places = np.arange(1, len(weights) + 1, dtype=np.uint64)
    size = max(1, _PROPOSALS_AT_ONCE // len(weights))
    with np.errstate(divide="ignore"):  # what has no weight waits for ever
        means = 1 / weights
    for begin in range(0, len(streams), size):
        rows = slice(begin, begin + size)
        bits = splitmix64(streams[rows, None], places) >> np.uint64(11)
        waiting = -np.log((bits.astype(np.float64) + 0.5) * 2.0**-53) * means
        for row, user in enumerate(users[rows]):
            waiting[row, sequences.items[sequences.starts[user] : sequences.starts[user + 1]]] = (
                np.inf
            )
        drawn[rows] = waiting.argsort(axis=1)[:, :count]
    return drawn


def _repeats(values: IntArray) -> npt.NDArray[np.bool_]:
    """Mark the values that stand in their row already."""
    order = values.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    repeats = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(repeats, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeats


def _contains(ordered: IntArray, values: IntArray) -> npt.NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[places] == values


def _user_keys(user_ids: Sequence[str], seed: int) -> KeyArray:
    digests = (hashlib.blake2b(f"{seed}/{one}".encode(), digest_size=8) for one in user_ids)
    return np.frombuffer(b"".join(digest.digest() for digest in digests), dtype="<u8")


def _below(random: KeyArray, bound: int) -> IntArray:
    """Turn random 64-bit numbers into whole numbers from 0 to bound - 1."""
    return ((random >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def _check_enough(
    sequences: Sequences,
    num_items: int,
    weights: FloatArray | None,
    num_candidates: int,
    setting: str,
) -> None:
    can_be_drawn = np.ones(num_items, dtype=bool) if weights is None else weights > 0
    met_so_far = np.concatenate([[0], can_be_drawn[sequences.items].cumsum()])
    unmet = can_be_drawn.sum() - np.diff(met_so_far[sequences.starts])
    user = int(unmet.argmin())
    if unmet[user] < num_candidates - 1:
        items = "items" if weights is None else "items with a weight"
        raise InputError(
            f"{num_candidates} candidates need {num_candidates - 1} {items} that a user never met, "
            f"but user `{sequences.user_ids[user]}` has met all but {unmet[user]} of "
            f"{can_be_drawn.sum()} {items}; set {setting} to {unmet[user] + 1} or less"
        )
