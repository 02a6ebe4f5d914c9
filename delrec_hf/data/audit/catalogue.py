"""Whether items can be told apart by their titles, and whether ids say how popular they are."""

import re
import unicodedata
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from delrec_hf.data.audit.evidence import BoolArray, Evidence, IntArray, ranks
from delrec_hf.data.audit.finding import ALPHA, Finding, grade, normal_tail, poisson_tail
from delrec_hf.data.splitmix import splitmix64

_SEED = 42
_PLAIN = re.compile(r"[^\w\s]|_")
_ARTICLES = {"the", "a", "an", "and"}
_LETTERS = 5
"""Fewest letters of a word that may be misspelt: II and III, A and B are other words."""


def popularity_coded_ids(data: Evidence) -> Finding | None:
    """Say whether ids, or the order of the catalogue, go with popularity.

    The null permutes the ids of the items that somebody met: Spearman's correlation has mean 0 and
    variance 1 / (n - 1).
    """
    met = np.flatnonzero(data.popularity)
    found = {
        "ids": _spearman(data.id_ranks[met], data.popularity[met]),
        "rows of the catalogue": _spearman(met, data.popularity[met]),
    }
    what, value = max(found.items(), key=lambda one: abs(one[1]))
    if 2 * normal_tail(abs(value), 1 / max(1, len(met) - 1)) > ALPHA:
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


def near_duplicate_items(data: Evidence) -> Finding | None:
    """Say whether items have titles that differ in signs, accents or one letter of a long word.

    The null deals each place of the titles its words anew, and counts what comes of it; pairs of
    items beyond it are counted as Poisson. Single words are no titles by themselves there.
    """
    words = [_words(title) for title in data.titles]
    found = _near_pairs(words, ranks(data.titles))
    if not found:
        return None
    anew = _dealt_anew(words)
    chance = len(_near_pairs(anew, ranks([" ".join(title) for title in anew])))
    if poisson_tail(len(found), max(chance, 1e-9)) > ALPHA:
        return None
    first, second = found[0]
    raw = data.source.items["title"]
    touched = np.unique(found)
    share = len(touched) / len(words)
    met = float(np.isin(data.sequences.items, touched).mean())
    return Finding(
        "near-duplicate-items",
        grade(max(share, met), warning=0.01, error=0.2),
        share,
        2 * chance / len(words),
        f"{len(touched)} of {len(words)} items have a title that is nearly another's, as "
        f"`{raw[first][:60]}` and `{raw[second][:60]}`: a target may stand in its own history, or "
        "beside its twin among the candidates. Merge what is one item",
    )


def _spearman(first: IntArray, second: IntArray) -> float:
    ranked = [_middle_ranks(one) for one in (first, second)]
    spread = ranked[0].std() * ranked[1].std()
    product = (ranked[0] - ranked[0].mean()) * (ranked[1] - ranked[1].mean())
    return float(product.mean() / spread) if spread else 0.0


def _middle_ranks(values: IntArray) -> npt.NDArray[np.float64]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return found


def _shared(labels: IntArray) -> BoolArray:
    return np.bincount(labels)[labels] > 1


def _words(title: str) -> tuple[str, ...]:
    """Return the words of a title without accents, signs and articles."""
    if not title.isascii():
        parts = unicodedata.normalize("NFKD", title)
        title = "".join(sign for sign in parts if not unicodedata.combining(sign))
    words = _PLAIN.sub(" ", title.replace("'", "").replace("&", " and ")).split()
    return tuple(word for word in words if word not in _ARTICLES) or (title,)


def _near_pairs(words: list[tuple[str, ...]], same: IntArray) -> list[tuple[int, int]]:
    """Return pairs of items whose titles are nearly one.

    Args:
        words: Of each title.
        same: Numbers of the titles as written; equal ones are not near but the same.
    """
    seen: dict[tuple[str, ...], int] = {}
    pairs = []
    for row, title in enumerate(words):
        first = seen.setdefault(title, row)
        if same[first] != same[row]:
            pairs.append((first, row))
    return [*pairs, *_misspelt(seen)]


def _misspelt(seen: dict[tuple[str, ...], int]) -> Iterator[tuple[int, int]]:
    """Yield pairs of titles that differ in one letter of one long word, other words being there."""
    titles = [title for title in seen if sum(map(str.isalpha, title)) > 1]
    first: dict[tuple[int, str], tuple[str, ...]] = {}
    for row, place, key in _open_places(titles):
        title = titles[row]
        word = title[place]
        for cut in {word, *(word[:at] + word[at + 1 :] for at in range(len(word)))}:
            other = first.setdefault((key, cut), title)
            if other is not title and _is_one_letter_off(other[place], word):
                yield seen[other], seen[title]
                break


def _open_places(titles: list[tuple[str, ...]]) -> Iterator[tuple[int, int, int]]:
    """Yield row, place and a number of the other words of words that titles may differ in.

    Those are long words of letters, in titles all of whose other words another title has as well.
    """
    lengths = np.array([len(title) for title in titles], dtype=np.int64)
    codes, names = pd.factorize(np.array([word for title in titles for word in title], object))
    rows = np.repeat(np.arange(len(titles)), lengths)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    numbers = splitmix64(((codes.astype(np.int64) << 16) | places).astype(np.uint64))
    whole = np.zeros(len(titles), dtype=np.uint64)
    np.add.at(whole, rows, numbers)
    rest = whole[rows] - numbers + splitmix64(places.astype(np.uint64))
    is_long = np.array([len(name) >= _LETTERS and name.isalpha() for name in names], dtype=bool)
    chosen = np.flatnonzero(is_long[codes]) if len(codes) else np.zeros(0, dtype=np.int64)
    _, which, counts = np.unique(rest[chosen], return_inverse=True, return_counts=True)
    chosen = chosen[counts[which] > 1]
    yield from zip(
        rows[chosen].tolist(), places[chosen].tolist(), rest[chosen].tolist(), strict=True
    )


def _is_one_letter_off(one: str, other: str) -> bool:
    """Say whether a letter more, less or another makes one word of the other.

    >>> _is_one_letter_off("galaxy", "galaxi"), _is_one_letter_off("galaxy", "yalaxg")
    (True, False)
    """
    if len(one) == len(other):
        return sum(a != b for a, b in zip(one, other, strict=True)) == 1
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return len(longer) == len(shorter) + 1 and any(
        longer[:at] + longer[at + 1 :] == shorter for at in range(len(longer))
    )


def _dealt_anew(words: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return titles of as many words, each place's words in another order."""
    lengths = np.array([len(title) for title in words], dtype=np.int64)
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    flat = np.array([word for title in words for word in title], object)
    dealt = np.empty_like(flat)
    lots = np.random.default_rng(_SEED).random(len(flat))
    dealt[np.argsort(places, kind="stable")] = flat[np.lexsort((lots, places))]
    told = dealt.tolist()
    return [
        tuple(told[end - length : end])
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]
