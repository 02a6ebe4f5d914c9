"""Look-ups of items by what people type: ids, and titles as files and keyboards have them."""

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from delrec_hf.data.titles import CUT_ENDS, clean_title, one_line, shorten, turn_article
from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

_NUMBERED = re.compile(r"(?P<title>.+) \[[0-9]+\]")
_CUT = re.compile(r"(?P<kept>.+)…(?P<number> \[[0-9]+\])?")

_LEAST_ROOM = 20  # no catalogue cuts its titles at less
_SHOWN = 200  # characters of a query in a message
_NAMED = 3
_COMPARED = 500
_LETTERS = 64
_ROWS_AT_ONCE = 10_000


class ItemIndex:
    """Finds items by their ids and titles.

    Args:
        item_ids: Ids of the catalogue, no two the same.
        titles: Their titles, as `readable_titles` makes them.
    """

    def __init__(self, item_ids: Sequence[str], titles: Sequence[str]) -> None:
        self._item_ids, self._titles = item_ids, titles

    def find(self, text: str) -> int:
        """Return the row of the item that a text means.

        A title letter by letter as in the catalogue means its item, and an id its own. Any other
        title is compared as the catalogue's were made: cleaned of entities, tags and what nobody
        sees, its article in front, whatever its case; one that is longer than the catalogue keeps,
        by its beginning. `id:21` is the item with the id 21 and `title:21` the one called "21",
        where `21` alone would mean both.

        Raises:
            InputError: If the text means several items, with a way to name each, or none, with the
                nearest titles.
        """
        rows = self.meant(text)
        if len(rows) == 1:
            return rows[0]
        shown = shorten(one_line(text), _SHOWN)
        if rows:
            raise InputError(f'"{shown}" can mean {self._choice(rows, one_line(text))}')
        raise InputError(
            f'"{shown}" is not among the {len(self._titles)} known items; {self._hint(text)}'
        )

    def meant(self, text: str) -> list[int]:
        """Return the rows of all items that a text can mean; see `find`."""
        kind, name = _kind_and_name(text)
        named: list[int] = []
        if kind == "id":
            named = self._with_id(name)
        elif kind == "title":
            named = self._titled(name) or self._beginning(name)
        if named:  # whole, the text may be a title too
            found = [*named, *self._with_id(text), *self._exactly(text)]
        else:
            found = self._with_id(text)
            titled = self._titled(text)
            if not (found and found[0] in titled):
                found = [*found, *titled] or self._beginning(text)
        return list(dict.fromkeys(found))

    def _with_id(self, text: str) -> list[int]:
        rows = map(self._rows_by_id.get, (text, text.strip(), clean_title(text)))
        return next(([row] for row in rows if row is not None), [])

    def _titled(self, text: str) -> list[int]:
        return self._exactly(text) or self._loosely(_key(text))

    def _exactly(self, text: str) -> list[int]:
        return self._rows_by_title.get(text) or self._rows_by_title.get(text.strip(), [])

    def _loosely(self, key: str) -> list[int]:
        rows = self._rows_by_key.get(key, [])
        # A twin of one of them may have been cut for its number.
        return rows and [*rows, *(row for row, number in self._cut_from(key) if number)]

    def _beginning(self, text: str) -> list[int]:
        """Return the rows of the cut titles that a longer title can have become."""
        rows = [row for row, _ in self._cut_from(_key(text))]
        if len(rows) == 1:
            given = shorten(one_line(text), _SHOWN)
            logger.info('"%s" is taken for the cut title "%s"', given, self._titles[rows[0]])
        return rows

    def _cut_from(self, key: str) -> Iterator[tuple[int, int]]:
        """Yield the rows of titles cut from one with this key, and how long their numbers are."""
        for end in range(1, min(len(key), self._room)):
            for row, number in self._cut_rows.get(key[:end], ()):
                if _is_cut_at(key, end, self._room - number):
                    yield row, number

    def _choice(self, rows: list[int], text: str) -> str:
        """Name items and, for each, a text that means no other one."""
        shown = rows[:_NAMED]
        names = [f'"{self._titles[row]}" (id {self._item_ids[row]})' for row in shown]
        if len(rows) > len(shown):
            names.append(f"{len(rows) - len(shown)} more")
        cures = []
        for row in shown:
            title, by_id = self._titles[row], f"id:{self._item_ids[row]}"
            is_only_one = len(self._rows_by_title[title]) == 1
            by_title = is_only_one and text in (title, by_id)
            cures.append(f"`title:{title}`" if by_title else f"`{by_id}`")
        return f"{', '.join(names[:-1])} or {names[-1]}; write {' or '.join(cures)}"

    def _hint(self, text: str) -> str:
        kind, name = _kind_and_name(text)
        keys = list(self._rows_by_key)
        nearest = [] if kind == "id" else _nearest(_key(name), keys)
        if not nearest:
            return "give a title or id of the catalogue"
        titles = [self._titles[self._rows_by_key[key][0]] for key in nearest]
        return "did you mean " + ", ".join(f'"{title}"' for title in titles) + "?"

    @cached_property
    def _room(self) -> int:
        """Characters that every title of the catalogue had at least: those of the longest one."""
        return max(_LEAST_ROOM, max(map(len, self._titles), default=0))

    @cached_property
    def _rows_by_id(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self._item_ids)}

    @cached_property
    def _rows_by_title(self) -> dict[str, list[int]]:
        return _grouped(self._titles)

    @cached_property
    def _rows_by_key(self) -> dict[str, list[int]]:
        keys = [_key(title) for title in self._titles]
        rows = _grouped(keys)
        for row, key in enumerate(keys):
            numbered = _NUMBERED.fullmatch(key)
            # Written otherwise than in the catalogue, `emma` is "Emma" as much as "Emma [2]".
            if numbered and numbered["title"] in rows:
                rows[numbered["title"]].append(row)
        return rows

    @cached_property
    def _cut_rows(self) -> dict[str, list[tuple[int, int]]]:
        """What cut titles keep: their rows, and how many characters a number takes."""
        rows = defaultdict(list)
        for row, title in enumerate(self._titles):
            if cut := _CUT.fullmatch(title):
                rows[_folded(cut["kept"])].append((row, len(cut["number"] or "")))
        return rows


def _kind_and_name(text: str) -> tuple[str, str]:
    """Split `id:21` and `title:21`; of any other text the kind is empty."""
    kind, colon, name = text.strip().partition(":")
    return (kind, name) if colon and kind in ("id", "title") else ("", text)


def _key(text: str) -> str:
    """Return a title as it is compared where it does not match letter by letter."""
    # Articles are known by their capital letter.
    return _folded(turn_article(clean_title(text).title()))


def _folded(title: str) -> str:
    # Folded, some letters fall apart into a letter and its accent.
    return unicodedata.normalize("NFC", title.title().casefold())


def _grouped(names: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return rows


def _is_cut_at(key: str, end: int, room: int) -> bool:
    """Say whether a title that has room for so many characters may be cut at `end`.

    It is cut behind a word, or inside its only one, where the next word has no room.
    """
    if " " in key[:end] and key[end] not in CUT_ENDS:
        return False
    word = end + len(key[end:]) - len(key[end:].lstrip(CUT_ENDS))
    word_end = key.find(" ", word)
    # One less: a title that is cut a second time, for its number, ends with an ellipsis before.
    return (len(key) if word_end < 0 else word_end) >= room - 1


def _nearest(key: str, keys: Sequence[str]) -> list[str]:
    """Return the keys most like a key, by difflib's ratio.

    Letter by letter it compares those alone that have the most letters in common: in large
    catalogues it would take many seconds otherwise.
    """
    own = _letters([key])
    shares: list[float] = []
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        some = keys[start : start + _ROWS_AT_ONCE]
        common = np.minimum(_letters(some), own).sum(1)
        shares += [
            2 * shared / (len(key) + len(other) or 1)
            for shared, other in zip(common.tolist(), some, strict=True)
        ]
    likely = np.argsort(-np.asarray(shares), kind="stable")[:_COMPARED]
    return difflib.get_close_matches(key, [keys[row] for row in likely], n=_NAMED, cutoff=0.5)


def _letters(keys: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """Return how often each letter occurs, letters that share a code counted as one."""
    codes = np.frombuffer("".join(keys).encode("utf-32-le"), np.uint32) % _LETTERS
    rows = np.repeat(np.arange(len(keys)), [len(key) for key in keys])
    counts = np.bincount(rows * _LETTERS + codes, minlength=len(keys) * _LETTERS)
    return counts.reshape(len(keys), _LETTERS)
