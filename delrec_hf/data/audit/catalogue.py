"""Whether items can be told apart by their titles, and whether ids say how popular they are."""

import numpy as np
import numpy.typing as npt

from delrec_hf.data.audit.evidence import BoolArray, Evidence, IntArray, ranks
from delrec_hf.data.audit.finding import ALPHA, Finding, grade, normal_tail

FloatArray = npt.NDArray[np.float64]


def popularity_coded_ids(data: Evidence) -> Finding | None:
    """Say whether ids, or the order of the catalogue, go with popularity.

    The null permutes the n items that somebody met. Spearman's correlation r then has mean 0 and
    variance 1 / (n - 1); but catalogues come in groups (genres, brands) of one popularity, so that
    neighbours are not independent: the variance is taken times 1 + 2 sum of a[k], a[k] the
    correlation of what r leaves unexplained with itself k items on, as long as it is positive.
    """
    met = np.flatnonzero(data.popularity)
    popular = _centred_ranks(data.popularity[met])
    found = {
        "ids": _trend(_centred_ranks(data.id_ranks[met]), popular),
        "rows of the catalogue": _trend(_centred_ranks(met), popular),
    }
    what, (value, variance) = max(found.items(), key=lambda one: one[1][0] ** 2 / one[1][1])
    if 2 * normal_tail(abs(value), variance) > ALPHA:
        return None
    return Finding(
        "popularity-coded-ids",
        grade(abs(value), warning=0.1),
        value,
        0.0,
        f"{'low' if value < 0 else 'high'} {what} are the popular ones (rank correlation): a tie "
        "broken by id or row is a guess by popularity, and numbers in place of titles leak it. "
        "Shuffle the ids and rows, or break ties at random",
    )


def duplicate_titles(data: Evidence) -> Finding | None:
    """Say whether items share a title. There is no null: in clean data none do."""
    shared = _shared(ranks(data.titles))
    if not shared.any():
        return None
    touched = float(shared[data.sequences.items].mean())
    example = data.source.items["title"][int(shared.argmax())]
    return Finding(
        "duplicate-titles",
        grade(max(touched, float(shared.mean())), warning=0.01, error=0.2),
        float(shared.mean()),
        0.0,
        f"{int(shared.sum())} of {len(shared)} items share their title with another, as "
        f"`{example[:60]}`; {touched:.1%} of interactions are with them. A model that answers in "
        "titles cannot tell them apart by more than the number put behind: merge the ids of one "
        "and the same item, and add what tells others apart (year, edition)",
    )


def _trend(place: FloatArray, popular: FloatArray) -> tuple[float, float]:
    """Return the correlation of two centred rankings, and its variance without a trend."""
    number = len(place)
    spread = float((place @ place) * (popular @ popular)) ** 0.5
    if not spread:
        return 0.0, 1.0
    value = float(place @ popular) / spread
    order = np.argsort(place, kind="stable")
    rest = popular[order] - place[order] * float(place @ popular) / float(place @ place)
    power = np.abs(np.fft.rfft(rest, 2 * number)) ** 2
    similar = np.fft.irfft(power)[: number // 2 + 1]
    similar = similar[1:] / max(float(similar[0]), 1e-12)
    falls = np.flatnonzero(similar <= 0)
    until = falls[0] if len(falls) else len(similar)
    return value, (1 + 2 * float(similar[:until].sum())) / max(1, number - 1)


def _centred_ranks(values: IntArray) -> FloatArray:
    """Return ranks, ties in the middle, less their mean."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: FloatArray = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return found - found.mean()


def _shared(labels: IntArray) -> BoolArray:
    return np.bincount(labels)[labels] > 1
