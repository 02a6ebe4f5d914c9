"""Interactions as one sequence of items per user, and which of them are held out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from delrec_hf.data.account import log_left_out
from delrec_hf.data.config import DataConfig
from delrec_hf.errors import InputError

IntArray = npt.NDArray[np.int64]

SHORTEST = 3
"""Fewest different items of a user: one to learn from, one to validate on, one to test on."""


@dataclass(frozen=True)
class Sequences:
    """Every user's items, oldest first, end to end in one array.

    Attributes:
        user_ids: `(users,)` ids, in order of the id.
        starts: `(users + 1,)` where each user's items begin in `items`; the last one is the end.
        items: `(interactions,)` item rows.
        timestamps: `(interactions,)` numbers, as given.
        left_out: What was not kept: `users_with_short_histories`, `users_without_candidates` and
            the interactions of both, by the names of `account.LEFT_OUT`.
    """

    user_ids: list[str]
    starts: IntArray
    items: IntArray
    timestamps: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    left_out: dict[str, int]

    @property
    def lengths(self) -> IntArray:
        """`(users,)` number of items of each user."""
        return np.diff(self.starts)

    def moments(self) -> IntArray:
        """Return `(interactions,)` which of its user's different times each one has, from 0 on."""
        later = np.concatenate([[0], np.diff(self.timestamps) != 0])
        later[self.starts[:-1]] = 0
        count = np.cumsum(later)
        moments: IntArray = count - np.repeat(count[self.starts[:-1]], self.lengths)
        return moments


@dataclass(frozen=True)
class Split:
    """Where each user's training part ends, and whose items are asked for.

    `users` are rows of `Sequences.user_ids`, `positions` places in that user's sequence.

    Attributes:
        train_end: `(users,)` the first so many items of each user are training items.
        targets: Name of the part (train, validation, test) to the users and positions of its
            targets; a position is 1 at least, so that there is a history.
    """

    train_end: IntArray
    targets: dict[str, tuple[IntArray, IntArray]]


def build_sequences(interactions: Dataset, items: Dataset, num_candidates: int) -> Sequences:
    """Sort interactions into sequences.

    A user's items are in order of time, and in file order where times are equal. Users with fewer
    than `SHORTEST` items are left out, and users who have met so many that there are not enough
    others to draw candidates from; both are counted. Users are in order of their id: their order
    in the file changes nothing later.

    Args:
        interactions: `user_id, item_id, timestamp`; every item is in `items`, and no user has one
            twice.
        items: `item_id` and more.
        num_candidates: How many candidates each target gets, itself included.

    Raises:
        InputError: If no user is left.
    """
    table = interactions.with_format("arrow")[:]
    user_ids = pc.unique(table["user_id"]).sort()
    users = _rows_of(table["user_id"], user_ids)
    rows = _rows_of(table["item_id"], items.with_format("arrow")[:]["item_id"])
    timestamps = table["timestamp"].to_numpy()

    order = np.lexsort((timestamps, users))  # stable: ties stay in file order
    lengths = np.bincount(users, minlength=len(user_ids))
    is_short = lengths < SHORTEST
    has_met_all = ~is_short & (len(items) - lengths < num_candidates - 1)
    left_out = {
        "users_with_short_histories": int(is_short.sum()),
        "interactions_of_these_users": int(lengths[is_short].sum()),
        "users_without_candidates": int(has_met_all.sum()),
        "interactions_without_candidates": int(lengths[has_met_all].sum()),
    }
    log_left_out(left_out)
    kept = ~is_short & ~has_met_all
    if not kept.any():
        raise InputError(_nobody_left(lengths, len(items), num_candidates))
    order = order[kept[users[order]]]
    return Sequences(
        user_ids=user_ids.filter(pa.array(kept)).to_pylist(),
        starts=np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64),
        items=rows[order],
        timestamps=timestamps[order],
        left_out=left_out,
    )


def _nobody_left(lengths: IntArray, num_items: int, num_candidates: int) -> str:
    long_enough = lengths[lengths >= SHORTEST]
    if not len(long_enough):
        return (
            f"none of the {len(lengths)} users has {SHORTEST} different items or more, which is "
            "what a sequence needs; give data with longer histories"
        )
    most = num_items - int(long_enough.min()) + 1
    cure = f"set data.num_candidates to {most} or less" if most > 1 else "give more items"
    return (
        f"{num_candidates} candidates need {num_candidates - 1} items that a user never met, but "
        f"no user has so many left of the {num_items} items of the catalogue; {cure}"
    )


def split_sequences(sequences: Sequences, config: DataConfig) -> Split:
    """Choose training items and the targets of each part.

    `leave-one-out`: a user's last item is the test target, the one before it the validation target.

    `time`: one moment for all users parts training from validation, a later one validation from
    test, so that the shares of interactions are those of the configuration (equal times stay
    together). A user's first item in a part is its target.

    The training targets are the last `train_prefixes` training items of each user.

    Raises:
        InputError: If a part is left without any target.
    """
    lengths = sequences.lengths
    everyone = np.arange(len(lengths))
    if config.split == "leave-one-out":
        train_end = lengths - 2
        targets = {"validation": (everyone, lengths - 2), "test": (everyone, lengths - 1)}
    else:
        train_end, test_start = _ends_by_time(sequences, config)
        targets = {
            "validation": _first_targets(train_end, test_start),
            "test": _first_targets(test_start, lengths),
        }
    train = _last_targets(train_end, config.train_prefixes)
    split = Split(train_end, {"train": train, **targets})
    for part, (users, _) in split.targets.items():
        if not len(users):
            raise InputError(
                f"splitting the data by `data.split: {config.split}` leaves no {part} target; "
                "give longer histories or change data.split, validation_share or test_share"
            )
    return split


def _rows_of(ids: pa.ChunkedArray, known: pa.Array | pa.ChunkedArray) -> IntArray:
    rows: IntArray = pc.index_in(ids, value_set=known).to_numpy().astype(np.int64)
    return rows


def _ends_by_time(sequences: Sequences, config: DataConfig) -> tuple[IntArray, IntArray]:
    """Return how many items of each user lie before validation, and before test."""
    times = np.sort(sequences.timestamps)
    shares = (config.validation_share + config.test_share, config.test_share)
    ends = []
    for share in shares:
        moment = times[min(round(len(times) * (1 - share)), len(times) - 1)]
        before = np.concatenate([[0], np.cumsum(sequences.timestamps < moment)])
        ends.append(np.diff(before[sequences.starts]))
    return ends[0], ends[1]


def _first_targets(begin: IntArray, end: IntArray) -> tuple[IntArray, IntArray]:
    positions = np.maximum(begin, 1)
    users = np.flatnonzero(positions < end)
    return users, positions[users]


def _last_targets(end: IntArray, count: int) -> tuple[IntArray, IntArray]:
    begin = np.maximum(end - count, 1)
    counts = np.maximum(end - begin, 0)
    users = np.repeat(np.arange(len(end)), counts)
    within = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    return users, begin[users] + within
