"""Titles that match what has been typed so far, for catalogues of any size."""

import re
import unicodedata
from collections.abc import Sequence

from delrec_hf.data.lookup import ItemIndex

_GAPS = re.compile(r"\W+")


class TitleSearch:
    """Finds items while their titles are being typed.

    Args:
        item_ids: Ids of the catalogue.
        titles: Their titles.
    """

    def __init__(self, item_ids: Sequence[str], titles: Sequence[str]) -> None:
        self._index = ItemIndex(item_ids, titles)
        self._folded = [_folded(title) for title in titles]

    def find(self, text: str) -> int:
        """Return the row of the one item that a text means, as `ItemIndex.find`."""
        return self._index.find(text)

    def is_ambiguous(self, text: str) -> bool:
        """Say whether a text is the name of several items."""
        return len(self._index.meant(text)) > 1

    def search(self, text: str) -> list[int]:
        """Return the rows of the titles that hold every word of a text, best first.

        First come the items that the text means as it is, by title or id, then titles that begin
        with it, then those in which every word begins one, then the rest; short ones before long
        ones. Case, accents and punctuation do not count.

        >>> titles = ["Heat (1995)", "The Matrix (1999)", "Amélie (2001)", "Matilda (1996)"]
        >>> found = TitleSearch(["a", "b", "c", "d"], titles)
        >>> [titles[row] for row in found.search("mat")]
        ['Matilda (1996)', 'The Matrix (1999)']
        >>> found.search("AMELIE"), found.search("1999 matr"), found.search("a")[0]
        ([2], [1], 0)
        """
        query = _folded(text)
        words = query.split()
        meant = self._index.meant(text) if text.strip() else []
        found = []
        for row, title in enumerate(self._folded):
            if words and all(word in title for word in words):
                begins = title.startswith(query)
                among = all(f" {word}" in title for word in words)
                found.append((not begins, not among, len(title), row))
        return list(dict.fromkeys([*meant, *(row for *_, row in sorted(found))]))


def _folded(text: str) -> str:
    """Return the words of a text, each with a space before it.

    >>> _folded("Amélie: L'été")
    ' amelie l ete'
    """
    parts = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(one for one in parts if not unicodedata.combining(one))
    return "".join(f" {word}" for word in _GAPS.split(letters) if word)
