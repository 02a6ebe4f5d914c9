"""What rules reach that anyone can state in a line."""

import numpy as np
import numpy.typing as npt

from delrec_hf.data.audit.candidates import hits, some_rows, target_places
from delrec_hf.data.audit.evidence import Evidence, Examples, IntArray, spread
from delrec_hf.data.audit.finding import Finding

FloatArray = npt.NDArray[np.float64]

_TOP = 10
_ROWS = 2_000
_NEARLY = {
    "popularity": 0.9,
    "what follows the last item": 0.9,
    "next higher id": 0.5,
    "place in the list": 0.5,
}
"""Share of the gap between chance and 1 from where on a rule nearly solves the task."""


def trivial_baseline(data: Evidence) -> Finding:
    """Say what trivial rules reach on the test's candidates and on the whole catalogue.

    Rules: the most popular item, the one that most often follows the last item, the next higher
    id, the place where validation's targets stand most. A fact, so mostly `info`. The gap between
    chance and 1 is what there is to win: a warning says that ids or places close half of it, or
    counts (popularity, what follows) nine tenths.
    """
    examples = some_rows(data.examples["test"], _ROWS)
    size = examples.candidates.shape[1]
    last = _last_items(data, examples)
    offered = examples.candidates
    popularity = data.training_counts / (1.0 + data.training_counts.max())
    followed = _follow_counts(data, np.broadcast_to(last[:, None], offered.shape), offered)
    ahead = (data.id_ranks[offered] - data.id_ranks[last][:, None]) % len(data.id_ranks)
    validation = target_places(data.examples["validation"])
    fullest = np.bincount(validation, minlength=size).argmax()
    rules = {
        "popularity": popularity[offered],
        "what follows the last item": followed + popularity[offered],
        "next higher id": -ahead.astype(np.float64),
        "place in the list": np.broadcast_to(np.arange(size) == fullest, offered.shape),
    }
    reached = {name: float(hits(score, examples).mean()) for name, score in rules.items()}
    best = max(reached, key=lambda name: reached[name])
    closed = {name: (hit - 1 / size) / (1 - 1 / size) for name, hit in reached.items()}
    solved = any(share >= _NEARLY[name] for name, share in closed.items())
    told = ", ".join(f"{name} {hit:.3f}" for name, hit in reached.items())
    whole = _whole_catalogue(data, examples, last)
    cure = "; such a task tells little about a model: mend what the rule lives on" if solved else ""
    return Finding(
        "trivial-baseline",
        "warning" if solved else "info",
        reached[best],
        1 / size,
        f"HR@1 among {size} candidates: {told}, chance {1 / size:.3f}. HR@{_TOP} of the whole "
        f"catalogue: {whole}. {_repeat_last(data)} of last rows repeat the one before{cure}",
    )


def _last_items(data: Evidence, examples: Examples) -> IntArray:
    """Return the item before each target."""
    found: IntArray = data.sequences.items[
        data.sequences.starts[examples.users] + examples.positions - 1
    ]
    return found


def _follow_counts(data: Evidence, before: IntArray, after: IntArray) -> FloatArray:
    """Return how often an item directly follows another one in training."""
    keys, counts = data.transitions
    wanted = before * len(data.prepared.items) + after
    if not len(keys):
        return np.zeros(wanted.shape)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, counts[places], 0).astype(np.float64)


def _whole_catalogue(data: Evidence, examples: Examples, last: IntArray) -> str:
    """Return HR@10 among all items that the user has not seen before, by rule."""
    lengths = examples.positions
    rows, within = spread(lengths)
    seen = data.sequences.items[data.sequences.starts[examples.users][rows] + within]
    popular = _hits_by_popularity(data, examples, rows, seen)
    following = _hits_by_following(
        data, examples, last, np.sort(rows * len(data.popularity) + seen)
    )
    chance = np.minimum(1, _TOP / (len(data.popularity) - lengths)).mean()
    return (
        f"popularity {popular:.3f}, what follows the last item {following:.3f}, chance {chance:.3f}"
    )


def _hits_by_popularity(
    data: Evidence, examples: Examples, rows: IntArray, seen: IntArray
) -> float:
    counts = data.training_counts
    own, ordered = counts[examples.targets], np.sort(counts)
    ends = np.searchsorted(ordered, own, side="right")
    above = len(counts) - ends - np.bincount(rows, counts[seen] > own[rows], len(own))
    level = ends - np.searchsorted(ordered, own)
    level = level - np.bincount(rows, counts[seen] == own[rows], len(own))
    return float((np.clip(_TOP - above, 0, level) / np.maximum(level, 1)).mean())


def _hits_by_following(data: Evidence, examples: Examples, last: IntArray, met: IntArray) -> float:
    """Return how often the target is among the 10 that most often follow the last item.

    Args:
        data: The data.
        examples: Whose targets.
        last: `(rows,)` the item before each target.
        met: `row * items + item` of all that the users have met before, in order.
    """
    number = len(data.popularity)
    keys, follows = data.transitions
    bounds = np.searchsorted(keys, np.stack([last, last + 1]) * number)
    rows, within = spread(bounds[1] - bounds[0])
    entries = bounds[0][rows] + within
    items = keys[entries] % number
    popularity = data.training_counts / (1.0 + data.training_counts.max())
    target = _follow_counts(data, last, examples.targets)
    least = target + popularity[examples.targets]
    better = np.flatnonzero(follows[entries] + popularity[items] > least[rows])
    rows, wanted = rows[better], rows[better] * number + items[better]
    unseen = met[np.minimum(np.searchsorted(met, wanted), len(met) - 1)] != wanted
    ahead = np.bincount(rows, unseen, len(last))
    return float(((ahead < _TOP) & (target > 0)).mean())


def _repeat_last(data: Evidence) -> str:
    events = data.events
    is_last = np.append(events.first[1:], True)[1:] & ~events.first[1:]
    same = np.diff(events.items) == 0
    return f"{same[is_last].mean() if is_last.any() else 0.0:.1%}"
