"""Whether a teacher's predictions know what was held out, or what they claim not to have seen."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset
from scipy.sparse import csr_array

from delrec_hf.data.audit.finding import ALPHA, Finding, grade, normal_tail
from delrec_hf.data.prepared import PreparedData
from delrec_hf.files import read_json
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.folds import labels_are_out_of_fold
from delrec_hf.teachers.histories import Histories, IntArray, flatten
from delrec_hf.teachers.lists import leaks
from delrec_hf.teachers.loading import fingerprints, load_teacher, read_record
from delrec_hf.teachers.predicted import Predicted, compare
from delrec_hf.teachers.predictions import predict, read_predictions

_SEED = 42
_AGAIN, _ROUNDING = 200, 0.02
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
        part: Predicted.read(folder / "predictions", part, sequences, baseline)
        for part in ("train", "validation", "test")
    }
    found = [
        _of_other_data(folder, prepared),
        _better_at_one(parts["validation"], parts["test"])
        or _knows_held_out(parts)
        or _knows_surprises(parts),
        _in_sample(parts["validation"], parts["train"]) if labels_are_out_of_fold(folder) else None,
    ]
    return [one for one in found if one is not None]


def _of_other_data(folder: Path, prepared: PreparedData) -> Finding | None:
    """Say whether a teacher trained on this data's training items would predict otherwise.

    No null: a neural teacher's hash of its training items is another one, or the teacher of the
    folder (those that count are counted again) does not predict what is kept as its predictions.
    """
    path = folder / "config.json"
    trained_on = read_json(path).get("training_items") if path.is_file() else None
    if trained_on not in (None, fingerprints(prepared)["training_items"]):
        return Finding(
            "teacher-of-other-data",
            "warning",
            1.0,
            0.0,
            "the teacher was trained on other interactions than this data's training items, and "
            f"may know what is held out here; {_CURE}",
        )
    if read_record(folder)["type"] == "ranked_lists":
        return None
    kept = read_predictions(folder / "predictions", "test")
    kept = kept.select(range(min(_AGAIN, len(kept))))
    items, bounds = flatten(kept, "items")
    other = 1 - max(_overlap(items, bounds, again) for again in _again(folder, prepared, kept))
    if other < _ROUNDING:
        return None
    return Finding(
        "teacher-of-other-data",
        grade(other, warning=0.0, error=0.2),
        other,
        0.0,
        "that share of the items in the teacher's kept predictions is not what it predicts from "
        "this data's training items: they are from another teacher or another split; run `delrec "
        "teach` again",
    )


def _again(folder: Path, prepared: PreparedData, kept: Dataset) -> Iterator[Dataset]:
    """Yield predictions made anew for kept ones, without and with what users have seen."""
    teacher = load_teacher(folder, prepared)
    top_h = int(np.diff(flatten(kept, "items")[1]).max(initial=1))
    for filter_seen in (True, False):
        yield predict(teacher, prepared, kept, top_h, filter_seen=filter_seen, disable_tqdm=True)


def _overlap(items: IntArray, bounds: IntArray, again: Dataset) -> float:
    """Return the share of the entries of lists that other lists of the same rows hold as well."""
    others, other_bounds = flatten(again, "items")
    size = int(max(items.max(initial=0), others.max(initial=0))) + 1
    one, other = (
        np.repeat(np.arange(len(ends) - 1), np.diff(ends)) * size + values
        for values, ends in ((items, bounds), (others, other_bounds))
    )
    return float(np.isin(one, other).mean()) if len(one) else 1.0


def _better_at_one(validation: Predicted, test: Predicted) -> Finding | None:
    """Say whether the teacher gains on co-occurrence from validation to test, or the other way.

    For user u, d is the teacher's hit at the test position less that at validation, less the same
    of co-occurrence with lists as long, counted on training items alone: what makes a test harder
    is so for both. The null has d as often negative: its sum has mean 0 and variance sum of d^2.
    """
    found = compare(validation, test)
    if found is None or 2 * normal_tail(abs(found.total), found.variance) > ALPHA:
        return None
    saw = "test" if found.gain > 0 else "validation"
    value = found.after if saw == "test" else found.before
    return Finding(
        "teacher-saw-test",
        grade(abs(found.gain), warning=0.01, error=0.05),
        value,
        value - abs(found.gain),
        f"the teacher's lists hold {found.before:.1%} of validation's targets and "
        f"{found.after:.1%} of test's, where co-occurrence goes from {found.base_before:.1%} to "
        f"{found.base_after:.1%}: it has learned from {saw} items; {_CURE}",
    )


def _knows_held_out(parts: dict[str, Predicted]) -> Finding | None:
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


def _knows_surprises(parts: dict[str, Predicted]) -> Finding | None:
    """Say whether lists hold targets that nothing in training leads to.

    Of each held-out part the half of the targets is taken that co-occurrence ranks lowest, below
    twice the list. Lists dealt by lot hold a share L / n of these, and teachers without a leak
    little more: the limit is `leaks.believable`, as for `_knows_held_out`.
    """
    for part in ("validation", "test"):
        predicted = parts[part]
        hard = predicted.ranks > np.maximum(np.median(predicted.ranks), 2 * predicted.lengths)
        if not hard.any():
            continue
        share = float(predicted.hits()[0][hard].mean())
        lot = float(predicted.lengths[hard].mean() / len(predicted.baseline.popularity))
        limit = leaks.believable(lot, int(hard.sum()))
        if share > limit:
            return Finding(
                "teacher-saw-test",
                "error",
                share,
                lot,
                f"the teacher's lists hold {share:.1%} of the {part} targets that training data "
                f"hardly lead to, where a lot holds {lot:.1%} and at most {limit:.1%} is "
                f"believable: it has learned from {part} items; {_CURE}",
            )
    return None


def _of_later_items(predicted: Predicted) -> tuple[Predicted, IntArray]:
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


def _in_sample(validation: Predicted, train: Predicted) -> Finding | None:
    """Say whether lists that are said to be out of fold know their targets.

    The teacher must not gain from validation to training positions, popularity's own gain taken
    off: earlier items may be better known to all. The null is that of `_better_at_one`.
    """
    follows = csr_array(train.baseline.follows.shape, dtype=np.float64)
    popularity = replace(train.baseline, follows=follows)
    before, after = (replace(part, baseline=popularity) for part in (validation, train))
    compared = compare(before, after)
    if compared is None or normal_tail(compared.total, compared.variance) > ALPHA:
        return None
    return Finding(
        "labels-in-sample",
        grade(compared.gain, warning=0.02, error=0.1),
        compared.after,
        compared.after - compared.gain,
        f"the lists of training examples are said to be out of fold, and hold "
        f"{compared.after:.1%} of their targets where those of validation hold "
        f"{compared.before:.1%}: they know them; set teacher.folds, or take teacher.out_of_fold "
        "off",
    )
