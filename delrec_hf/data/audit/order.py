"""Whether the order of users' histories is that of ids, titles or popularity."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from delrec_hf.data.audit.evidence import Evidence, IntArray, ranks
from delrec_hf.data.audit.finding import ALPHA, Finding, binomial_tail, grade, normal_tail

FloatArray = npt.NDArray[np.float64]

_SEED = 42
_HABITS = 0.1
_SORT_CURE = (
    "sort by a time that is exact, or where none is left, put tied rows into the order they "
    "happened in; a model learns the order of the file otherwise"
)


class Ascents(NamedTuple):
    """How often steps go to a higher label.

    Attributes:
        share: Share of the steps between different labels that do.
        steps: How many steps there are.
        tail: The chance of a share so far from a half, if labels were dealt out at random.
    """

    share: float
    steps: int
    tail: float


def ascents(before: IntArray, after: IntArray, labels: IntArray) -> Ascents:
    r"""Compare ascending steps with descending ones, if labels were dealt out at random.

    Steps are not tossed coins: a favourite transition is made by many users, and always in one
    direction. So the null leaves every step where it is and permutes the labels. With D[i, j] the
    steps from i to j less those back, and R[i] those from i less those to i, the ascents less the
    descents T have mean 0 and variance (sum over i < j of D[i, j]^2 + sum of R[i]^2) / 3, exactly,
    as two pairs with one label in common agree with chance 2/3. The tail is the normal one.

    Args:
        before: `(steps,)` rows of the catalogue.
        after: `(steps,)` rows of the catalogue.
        labels: `(items,)` whole numbers from 0; steps between equal ones do not count.
    """
    start, end = labels[before], labels[after]
    moved = start != end
    start, end = start[moved], end[moved]
    if not len(start):
        return Ascents(0.5, 0, 1.0)
    size = int(labels.max()) + 1
    ascending = end > start
    pairs = np.where(ascending, start * size + end, end * size + start)
    signs = np.where(ascending, 1.0, -1.0)
    _, which = np.unique(pairs, return_inverse=True)
    net = np.bincount(which, signs)
    left = np.bincount(start, minlength=size) - np.bincount(end, minlength=size)
    variance = float((net**2).sum() + (left.astype(np.float64) ** 2).sum()) / 3
    tail = 2 * normal_tail(abs(float(signs.sum())), variance)
    return Ascents(float(ascending.mean()), len(start), tail)


def sorted_by_id(data: Evidence) -> Finding | None:
    """Say whether steps go up or down in item id: `ascents`, over all steps and tied ones alone."""
    return _sorted("sorted-by-id", "item id", data, data.id_ranks)


def sorted_by_title(data: Evidence) -> Finding | None:
    """Say whether steps go up or down in title: `ascents` of the titles' first words.

    Later words do not count: who watches a series goes from its part 1 to its part 2.
    """
    words = [(title.split() or [""])[0] for title in data.titles]
    return _sorted("sorted-by-title", "title", data, ranks(words))


def sorted_by_popularity(data: Evidence) -> Finding | None:
    """Say whether popular items come first, or last, in the later half of users' histories.

    How people begin is another matter: anywhere, or with what everybody knows. Measured is the mean
    over users of the rank correlation of place and popularity. The null has each history as often
    backwards, so the sum over users of c[u] has mean 0 and variance sum of c[u]^2. As popular items
    come first where nobody takes an item twice, correlations below 0 are compared with those of as
    many histories that are drawn from the catalogue by popularity, no item twice. What is left
    below 0.1 is what habits alone make of clean data.
    """
    of_drawn = data.drawn[data.owners]
    items = data.sequences.items[of_drawn]
    found = _late_correlations(data.owners[of_drawn], data.popularity[items])
    variance = float((found**2).sum())
    if 2 * normal_tail(abs(float(found.sum())), variance) > ALPHA:
        return None
    expected = 0.0
    if found.mean() < 0:
        owners, drawn = _drawn_by_popularity(data)
        anew = _late_correlations(owners, data.popularity[drawn])
        expected = float(anew.mean())
        excess = len(found) * (expected - float(found.mean()))
        if 2 * normal_tail(excess, variance + float((anew**2).sum())) > ALPHA:
            return None
    value = float(found.mean())
    if abs(value - expected) < _HABITS:
        return None
    return Finding(
        "sorted-by-popularity",
        grade(abs(value - expected), warning=0.3, error=0.7),
        value,
        expected,
        f"in the later half of histories {'popular' if value < 0 else 'rare'} items come first "
        "(mean rank correlation of place and popularity; public datasets drift by up to 0.2). "
        f"Where histories were sorted, {_SORT_CURE}",
    )


def order_coded_ids(data: Evidence) -> Finding | None:
    """Say whether users step from an id to the next one: ids numbered as items first appear.

    Neighbours in a catalogue may be alike, so that steps between them are common both ways. The
    null has each of the different transitions between neighbouring ids as likely to go to the next
    id as to the one before, as tossed coins; different ones, as each user's own are no new coin.
    """
    steps, places = data.steps, data.id_ranks
    up, down = (places[steps.after] == places[steps.before] + by for by in (1, -1))
    next_, before = (len(np.unique(steps.before[which])) for which in (up, down))
    if binomial_tail(next_, next_ + before, 0.5) > ALPHA:
        return None
    value, expected = float(up.mean()), float(down.mean())
    return Finding(
        "order-coded-ids",
        grade(value - expected, warning=0.01, error=0.2),
        value,
        expected,
        "that share of steps goes from an item id to the very next one, and the expected share to "
        "the one before: ids were given in the order of use, or somebody went through the list. "
        "Give the items random ids, or look whether histories are sorted; rules on ids predict "
        "what comes next otherwise",
    )


def _sorted(code: str, label: str, data: Evidence, labels: IntArray) -> Finding | None:
    steps = data.steps
    whole = ascents(steps.before, steps.after, labels)
    tied = ascents(steps.before[steps.tied], steps.after[steps.tied], labels)
    if min(whole.tail, tied.tail) > ALPHA:
        return None
    worst = whole if whole.tail <= ALPHA else tied
    where = "of all steps" if worst is whole else "of the steps within one time"
    way = "up" if worst.share > 0.5 else "down"
    among = ""
    if tied.steps and worst is whole:
        among = f" ({tied.share:.0%} up within one time)"
    return Finding(
        code,
        grade(2 * abs(worst.share - 0.5) * worst.steps / whole.steps, warning=0.05, error=0.5),
        worst.share,
        0.5,
        f"{max(worst.share, 1 - worst.share):.1%} {where} go {way} in {label}{among}: rows were "
        f"sorted by it and not by time alone. {_SORT_CURE[0].upper()}{_SORT_CURE[1:]}",
    )


def _late_correlations(owners: IntArray, popularity: IntArray) -> FloatArray:
    """Return `(users,)` the rank correlation of place and popularity in each later half.

    Args:
        owners: `(interactions,)` whose each is, in order.
        popularity: `(interactions,)` of its item.
    """
    users, place = _places(owners)
    later = 2 * place >= np.bincount(users)[users]
    users, place = _places(owners[later])
    popularity = popularity[later]
    # Ranks within the user: those of a sort by user and popularity, ties in the middle.
    by_rank = np.lexsort((popularity, users))
    same = (np.diff(popularity[by_rank]) == 0) & (np.diff(users[by_rank]) == 0)
    group = np.concatenate([[0], np.cumsum(~same)])
    rank = np.empty(len(group))
    rank[by_rank] = (np.bincount(group, np.arange(len(group))) / np.bincount(group))[group]
    sizes = np.bincount(users)
    rank -= (np.bincount(users, rank) / sizes)[users]
    centred = place - ((sizes - 1) / 2)[users]
    norms = np.bincount(users, rank**2) * np.bincount(users, centred**2)
    found: FloatArray = np.bincount(users, rank * centred) / np.sqrt(np.maximum(norms, 1e-12))
    return found


def _places(owners: IntArray) -> tuple[IntArray, IntArray]:
    """Return whose each interaction is, counted from 0, and which of theirs."""
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    users = np.cumsum(np.diff(owners, prepend=-1) != 0) - 1
    return users, np.arange(len(owners)) - starts[users]


def _drawn_by_popularity(data: Evidence) -> tuple[IntArray, IntArray]:
    """Return owners and items of histories as long as the users', drawn by popularity, none twice.

    An item that the share s of users have met is drawn at the rate -log(1 - s).
    """
    generator = np.random.default_rng(_SEED)
    lengths = data.sequences.lengths[data.drawn]
    share = np.minimum(data.popularity / len(data.drawn), 1 - 0.5 / len(data.drawn))
    rates = np.cumsum(-np.log1p(-share))
    tries = np.repeat(np.arange(len(lengths)), 3 * lengths)
    items = np.searchsorted(rates, generator.random(len(tries)) * rates[-1], side="right")
    first = ~pd.DataFrame({"user": tries, "item": items}).duplicated().to_numpy()
    owners, items = tries[first], items[first]
    kept = _places(owners)[1] < lengths[owners]
    return owners[kept], items[kept]
