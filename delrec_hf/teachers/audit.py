"""Whether a teacher's predictions know what was held out, or what they claim not to have seen."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from delrec_hf.data.audit.finding import ALPHA, Finding, grade, normal_tail
from delrec_hf.data.prepared import PreparedData
from delrec_hf.files import read_json
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.folds import labels_are_out_of_fold
from delrec_hf.teachers.histories import Histories, IntArray, column, flatten
from delrec_hf.teachers.lists import leaks
from delrec_hf.teachers.loading import fingerprints
from delrec_hf.teachers.predictions import read_predictions

_SEED = 42
_CURE = (
    "train the teacher on data/sequences up to train_end alone, and check that its positions and "
    "users are those of data/examples"
)

CODES = ("teacher-saw-test", "teacher-of-other-data", "labels-in-sample")
"""What `audit_teacher` looks for."""

TESTS = 5
"""How often it compares with chance."""


def audit_teacher(folder: Path, prepared: PreparedData) -> list[Finding]:
    """Return what is wrong with the predictions of a run's `teacher` folder.

    Raises:
        InputError: If predictions are missing, or there is no teacher.
    """
    sequences, baseline = Histories.of(prepared), CoOccurrence.fit(prepared)
    parts = {
        part: _Predicted.read(folder / "predictions", part, sequences, baseline)
        for part in ("train", "validation", "test")
    }
    found = [
        _of_other_data(folder, prepared),
        _better_at_test(parts["validation"], parts["test"]) or _knows_held_out(parts),
        _in_sample(parts["train"]) if labels_are_out_of_fold(folder) else None,
    ]
    return [one for one in found if one is not None]


@dataclass(frozen=True)
class _Predicted:
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
    ) -> "_Predicted":
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

    def hits(self) -> tuple[IntArray, IntArray]:
        """Return `(rows,)` whether the list holds the target, and whether co-occurrence's does."""
        wanted = self.sequences.items[self.targets]
        ranks = leaks.ranks_of(self.baseline, self.sequences, self.targets, wanted)
        return (self.places(wanted) >= 0).astype(np.int64), (ranks < self.lengths).astype(np.int64)

    def look(self, ahead: IntArray) -> leaks.Finding | None:
        """Return how often the lists hold an item that lies ahead, if there is a list."""
        if not len(ahead):
            return None
        places = self.places(self.sequences.items[ahead])
        return leaks.look_ahead(
            self.baseline, self.sequences, places, self.lengths, self.targets, ahead
        )


def _of_other_data(folder: Path, prepared: PreparedData) -> Finding | None:
    """Say whether a neural teacher was trained on other interactions. No null: hashes differ."""
    path = folder / "config.json"
    trained_on = read_json(path).get("training_items") if path.is_file() else None
    if trained_on in (None, fingerprints(prepared)["training_items"]):
        return None
    return Finding(
        "teacher-of-other-data",
        "warning",
        1.0,
        0.0,
        "the teacher was trained on other interactions than this data's training items, and may "
        f"know what is held out here; {_CURE}",
    )


def _better_at_test(validation: _Predicted, test: _Predicted) -> Finding | None:
    """Say whether the teacher gains on co-occurrence from validation to test.

    For user u, d is the teacher's hit at the test position less that at validation, less the same
    of co-occurrence with lists as long, counted on training items alone: what makes a test harder
    is so for both. The null has d as often negative: its sum has mean 0 and variance sum of d^2.
    """
    _, one, other = np.intersect1d(validation.users, test.users, return_indices=True)
    if not len(one):
        return None
    before, base_before = (hits[one] for hits in validation.hits())
    after, base_after = (hits[other] for hits in test.hits())
    gain = (after - before) - (base_after - base_before)
    if normal_tail(float(gain.sum()), float((gain**2).sum())) > ALPHA:
        return None
    return Finding(
        "teacher-saw-test",
        grade(float(gain.mean()), warning=0.01, error=0.05),
        float(after.mean()),
        float(before.mean() + base_after.mean() - base_before.mean()),
        f"the teacher's lists hold that share of test targets, and {before.mean():.3f} of "
        f"validation's, where co-occurrence goes from {base_before.mean():.3f} to "
        f"{base_after.mean():.3f}: it has learned from test items; {_CURE}",
    )


def _knows_held_out(parts: dict[str, _Predicted]) -> Finding | None:
    """Say whether lists hold held-out items more often than a teacher without them can.

    This finds a teacher that knows validation and test alike. The limit is that of `look_ahead`:
    twice what co-occurrence reaches and .05, and three standard errors.
    """
    for part, predicted in parts.items():
        ahead = predicted.targets
        if part == "train":
            predicted, ahead = _of_later_items(predicted)
        found = predicted.look(ahead)
        if found is not None and found.is_leak:
            return Finding(
                "teacher-saw-test",
                "error",
                found.share,
                found.baseline,
                f"the teacher's lists of {part} examples know what was held out: {found}; {_CURE}",
            )
    return None


def _of_later_items(predicted: _Predicted) -> tuple[_Predicted, IntArray]:
    """Return training rows, and a held-out item of each one's user."""
    sequences = predicted.sequences
    begin = sequences.bounds[predicted.users] + sequences.train_ends[predicted.users]
    end = sequences.bounds[predicted.users + 1]
    kept = np.flatnonzero(begin < end)  # a split by time may hold nothing of a user out
    chosen = replace(
        predicted,
        users=predicted.users[kept],
        targets=predicted.targets[kept],
        lists=[predicted.lists[row] for row in kept.tolist()],
    )
    return chosen, np.random.default_rng(_SEED).integers(begin[kept], end[kept])


def _in_sample(train: _Predicted) -> Finding | None:
    """Say whether lists that are said to be out of fold know their targets: `look_ahead`."""
    found = train.look(train.targets)
    if found is None or not found.is_leak:
        return None
    return Finding(
        "labels-in-sample",
        "error",
        found.share,
        found.baseline,
        f"the lists of training examples are said to be out of fold, and know their targets: "
        f"{found}; set teacher.folds, or take teacher.out_of_fold off",
    )
