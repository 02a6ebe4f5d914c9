"""Whether examples give their target away: by what they show, or by what they offer beside it."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from delrec_hf.data.audit.evidence import BoolArray, Evidence, Examples, IntArray
from delrec_hf.data.audit.finding import ALPHA, Finding, binomial_tail, grade, normal_tail
from delrec_hf.data.candidates import draw_candidates

FloatArray = npt.NDArray[np.float64]

_SEED = 20_240
_ROWS = 5_000

_AGAIN = "run `delrec prepare` again, and look at whatever changed its output"


def shown_target(data: Evidence) -> Finding | None:
    """Say whether a history shows its target or what comes after it. No null: none may."""
    wrong = rows = 0
    for part, examples in data.examples.items():
        bad = np.zeros(len(examples.users), dtype=bool)
        shown_at = data.positions(examples.users[examples.shown_of], examples.shown)
        late = (shown_at < 0) | (shown_at >= examples.positions[examples.shown_of])
        bad[examples.shown_of[late]] = True
        bad |= data.positions(examples.users, examples.targets) != examples.positions
        if part == "train":
            bad |= examples.positions >= data.train_ends[examples.users]
        wrong, rows = wrong + int(bad.sum()), rows + len(bad)
    if not wrong:
        return None
    return Finding(
        "leaked-target",
        "error",
        wrong / rows,
        0.0,
        f"{wrong} of {rows} examples show their target or a later item in the history, or ask for "
        f"an item that is not theirs or was held out: {_AGAIN}",
    )


def malformed_candidates(data: Evidence) -> Finding | None:
    """Say whether candidates lack the target, repeat an item or name one that the user met."""
    wrong = rows = 0
    for examples in data.examples.values():
        candidates = examples.candidates
        is_target = candidates == examples.targets[:, None]
        ordered = np.sort(candidates, axis=1)
        bad = (is_target.sum(axis=1) != 1) | (np.diff(ordered, axis=1) == 0).any(axis=1)
        owners = np.broadcast_to(examples.users[:, None], candidates.shape)
        bad |= ((data.positions(owners, candidates) >= 0) & ~is_target).any(axis=1)
        wrong, rows = wrong + int(bad.sum()), rows + len(bad)
    if not wrong:
        return None
    return Finding(
        "candidates-give-away-target",
        "error",
        wrong / rows,
        0.0,
        f"{wrong} of {rows} examples lack the target among their candidates, have one candidate "
        f"twice, or offer an item that the user meets: {_AGAIN}",
    )


def telling_place(data: Evidence) -> Finding | None:
    """Say whether targets stand at one place of the list. Null: each of C places is as likely.

    The fullest place of validation and test holds a binomial number, times C for having looked at
    all of them.
    """
    held = [data.examples[part] for part in ("validation", "test")]
    places = np.concatenate([target_places(one) for one in held])
    size = held[0].candidates.shape[1]
    counts = np.bincount(places, minlength=size)
    if binomial_tail(int(counts.max()), len(places), 1 / size) * size > ALPHA:
        return None
    value = float(counts.max() / len(places))
    return Finding(
        "candidates-give-away-target",
        grade(value - 1 / size, warning=0.02, error=0.2),
        value,
        1 / size,
        f"that share of targets stands at place {int(counts.argmax()) + 1} of {size}: a model "
        "learns the place. Shuffle each row's candidates",
    )


def telling_candidates(data: Evidence) -> Finding | None:
    """Say whether a rule on single items finds the target more often than among a fair draw.

    A fair draw offers items that the user never meets, each as likely. The null draws the
    negatives anew like that: with d[t] the rule's hits in the rows of target t less its hits there,
    the sum has mean 0 and variance sum of d[t]^2. Popular targets are no fault by themselves: they
    stand out among the new negatives as well.
    """
    examples = some_rows(data.examples["test"], _ROWS)
    number = len(data.prepared.items)
    drawn = draw_candidates(
        data.sequences,
        examples.users,
        examples.positions,
        number,
        examples.candidates.shape[1],
        _SEED,
    )
    worst: _Advantage | None = None
    for name, score in _RULES.items():
        for way, sign in (("highest", 1.0), ("lowest", -1.0)):
            there = hits(sign * score(data, examples.candidates), examples)
            anew = hits(sign * score(data, drawn), replace(examples, candidates=drawn))
            excess = np.bincount(examples.targets, there - anew)
            if normal_tail(float(excess.sum()), float((excess**2).sum())) > ALPHA:
                continue
            found = _Advantage(f"{way} {name}", float(there.mean()), float(anew.mean()))
            if worst is None or found.excess > worst.excess:
                worst = found
    if worst is None:
        return None
    return Finding(
        "candidates-give-away-target",
        grade(worst.excess, warning=0.02, error=0.2),
        worst.there,
        worst.anew,
        f"the candidate of the {worst.rule} is the target that often, and less often among "
        "candidates that are drawn uniformly: the negatives are of another kind than the targets. "
        "Draw them from all items that the user never met",
    )


class _Advantage(NamedTuple):
    """How often a rule finds the target among the candidates, and among others drawn anew."""

    rule: str
    there: float
    anew: float

    @property
    def excess(self) -> float:
        return self.there - self.anew


def target_places(examples: Examples) -> IntArray:
    """Return the place of the target among the candidates of each row that has it."""
    is_target = examples.candidates == examples.targets[:, None]
    found: IntArray = is_target.argmax(axis=1)[is_target.any(axis=1)]
    return found


def some_rows(examples: Examples, most: int) -> Examples:
    """Return some examples, drawn by seed, without their histories."""
    kept = np.flatnonzero(examples.users >= 0)
    kept = np.sort(np.random.default_rng(_SEED).permutation(kept)[:most])
    nothing = np.zeros(0, dtype=np.int64)
    return Examples(
        users=examples.users[kept],
        positions=examples.positions[kept],
        targets=examples.targets[kept],
        candidates=examples.candidates[kept],
        shown=nothing,
        shown_of=nothing,
    )


def hits(scores: npt.NDArray[np.generic], examples: Examples) -> FloatArray:
    """Return `(rows,)` the chance that the best score is the target's, ties drawn by lot."""
    best = scores == scores.max(axis=1, keepdims=True)
    is_target: BoolArray = examples.candidates == examples.targets[:, None]
    found: FloatArray = (best & is_target).sum(axis=1) / best.sum(axis=1)
    return found


def _offered(data: Evidence, candidates: IntArray) -> FloatArray:
    """Return how many rows offer each candidate."""
    counts = np.bincount(candidates.ravel(), minlength=len(data.prepared.items))
    found: FloatArray = counts[candidates].astype(np.float64)
    return found


def _title_lengths(data: Evidence, candidates: IntArray) -> FloatArray:
    lengths = np.array([len(title) for title in data.titles], dtype=np.float64)
    found: FloatArray = lengths[candidates]
    return found


_RULES: dict[str, Callable[[Evidence, IntArray], FloatArray]] = {
    "popularity": lambda data, some: data.training_counts[some].astype(np.float64),
    "number of rows that offer it": _offered,
    "item id": lambda data, some: data.id_ranks[some].astype(np.float64),
    "row of the catalogue": lambda _, some: some.astype(np.float64),
    "length of title": _title_lengths,
}
"""What an item says of itself, without the user."""
