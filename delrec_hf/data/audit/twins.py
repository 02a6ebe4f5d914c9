"""Items whose titles are nearly one."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from delrec_hf.data.audit.evidence import Evidence, IntArray, ranks, spread
from delrec_hf.data.audit.finding import ALPHA, Finding, grade, poisson_tail
from delrec_hf.data.splitmix import splitmix64

Words = tuple[str, ...]
Pairs = list[tuple[int, int]]

_SIGNS = re.compile(r"[^\w\s]|_")
_ARTICLES = {"the", "a", "an", "and"}
_LETTERS = 5
"""Fewest letters of a word that may be misspelt: II and III, A and B are other words."""


def near_duplicate_items(data: Evidence) -> Finding | None:
    """Say whether items have titles that differ in signs or articles, or in one letter of a word.

    What differs in signs, accents and articles alone is a fault without a null. Of the P pairs of
    titles that differ in one long word, the null has each pair of words one letter off by chance q,
    that of two long words of the catalogue; pairs are Poisson with mean P q.
    """
    words = [_words(title) for title in data.titles]
    same = ranks(data.titles)
    first: dict[Words, int] = {}
    pairs = []
    for row, title in enumerate(words):
        other = first.setdefault(title, row)
        if same[other] != same[row]:
            pairs.append((other, row))
    misspelt, expected = _misspelt(list(first))
    if poisson_tail(len(misspelt), expected) <= ALPHA:
        rows = list(first.values())
        pairs += [(rows[one], rows[other]) for one, other in misspelt]
    return _found(data, pairs, expected) if pairs else None


def _found(data: Evidence, pairs: Pairs, expected: float) -> Finding:
    touched = np.unique(pairs)
    share = len(touched) / len(data.titles)
    met = float(np.isin(data.sequences.items, touched).mean())
    raw = data.source.items["title"]
    one, other = (raw[row][:60] for row in pairs[0])
    return Finding(
        "near-duplicate-items",
        grade(max(share, met), warning=0.01, error=0.2),
        share,
        2 * expected / len(data.titles),
        f"{len(touched)} of {len(data.titles)} items have a title that is nearly another's, as "
        f"`{one}` and `{other}`: a target may stand in its own history, or beside its twin among "
        "the candidates. Merge what is one item",
    )


def _words(title: str) -> Words:
    """Return the words of a title without accents, signs and articles."""
    if not title.isascii():
        parts = unicodedata.normalize("NFKD", title)
        title = "".join(sign for sign in parts if not unicodedata.combining(sign))
    words = _SIGNS.sub(" ", title.replace("'", "").replace("&", " and ")).split()
    return tuple(word for word in words if word not in _ARTICLES) or (title,)


def _misspelt(titles: list[Words]) -> tuple[Pairs, float]:
    """Return pairs of titles that differ in one letter of one long word, and how many by chance.

    The titles have two words of letters or more: "Twister 1996" and "Twisted 1996" are no twins.
    """
    rows, places, rests, counts = _open_places(titles)
    candidates = float((counts * (counts - 1) // 2).sum())
    if not candidates:
        return [], 0.0
    told = [titles[row][place] for row, place in zip(rows.tolist(), places.tolist(), strict=True)]
    pairs = list(_near(zip(rests.tolist(), told, strict=True)))
    if not pairs:
        return [], 0.0
    found = {(int(rows[one]), int(rows[other])) for one, other in pairs}
    return sorted(found), candidates * _chance_of_near(titles)


def _open_places(titles: list[Words]) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Return where titles may differ: in long words whose other words another title has as well.

    Returns:
        Row and place of each such word, a number that stands for the other words, and how many
        places have each number.
    """
    lengths = np.array([len(title) for title in titles], dtype=np.int64)
    flat = np.array([word for title in titles for word in title], object)
    codes, names = pd.factorize(flat)
    is_word = np.array([name.isalpha() for name in names], dtype=bool)
    is_long = is_word & np.array([len(name) >= _LETTERS for name in names], dtype=bool)
    rows, places = spread(lengths)
    numbers = splitmix64(((codes.astype(np.int64) << 16) | places).astype(np.uint64))
    whole = np.zeros(len(titles), dtype=np.uint64)
    np.add.at(whole, rows, numbers)
    rest = whole[rows] - numbers + splitmix64(places.astype(np.uint64))
    enough = np.bincount(rows, is_word[codes], len(titles)) > 1
    chosen = np.flatnonzero(is_long[codes] & enough[rows])
    _, which, counts = np.unique(rest[chosen], return_inverse=True, return_counts=True)
    shared = counts[which] > 1
    chosen, which = chosen[shared], which[shared].astype(np.int64)
    return rows[chosen], places[chosen], which, counts[counts > 1]


def _chance_of_near(titles: list[Words]) -> float:
    """Return the chance that two long words of the catalogue are different and one letter off."""
    flat = [word for title in titles for word in title if len(word) >= _LETTERS and word.isalpha()]
    codes, names = pd.factorize(np.array(flat, object))
    shares = np.bincount(codes) / len(codes)
    pairs = _near(((0, name) for name in names), several=True)
    return 2 * float(sum(shares[one] * shares[other] for one, other in set(pairs)))


def _near(words: Iterable[tuple[int, str]], *, several: bool = False) -> Iterator[tuple[int, int]]:
    """Yield places of words of one group that are one letter off.

    Args:
        words: Group and word of each place.
        several: Whether a word may have several partners; else it has the first one.
    """
    seen: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for place, (group, word) in enumerate(words):
        partners = set()
        for cut in {word, *(word[:at] + word[at + 1 :] for at in range(len(word)))}:
            known = seen.setdefault((group, cut), [])
            partners |= {at for at, other in known if _is_one_letter_off(other, word)}
            if several or not known:
                known.append((place, word))
        for partner in sorted(partners)[: None if several else 1]:
            yield partner, place


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
