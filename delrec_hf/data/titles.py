"""Titles as people read them: clean, with the article in front, short, and each one's own."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from html import unescape
from html.entities import html5

CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
"""Control characters and what else ends a line, for the inside of a pattern's brackets."""

INVISIBLE = re.compile(
    r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
"""Characters nobody sees; joiners (U+200C, U+200D) stay: emoji and several scripts need them."""

_ARTICLES = (
    "The|An|Les|Le|La|Las|Los|Lo|El|Il|Gli|Der|Die|Das|Den|Det|De|Het|Een|Eine|Ein|En|Ett|Et|"
    "Une|Una|Uno|Un|Uma|Um|Os|As|L['\u2019]"
)
# Single letters only after a word: the lists "Vitamins C, A" and "Types A, O" hold no article.
_TRAILING = re.compile(
    rf"(?:^|(?<=[()]))(?P<title>[^()]*[^()\s]), (?P<article>{_ARTICLES}|(?<!\b[A-Z], )[AIO])"
    r"(?=\s*(?:[()]|$))"
)
_SPACES = re.compile(rf"[\s{CONTROLS}\ud800-\udfff]+")

_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_BREAKING = "blockquote|br|center|dd|div|dl|dt|h[1-6]|hr|li|ol|p|pre|table|tbody|td|th|thead|tr|ul"
_INLINE = (
    "a|abbr|b|bdi|bdo|big|cite|code|del|dfn|em|font|i|img|ins|kbd|mark|nobr|q|rp|rt|ruby|s|samp|"
    "small|span|strike|strong|sub|sup|tt|u|var|wbr"
)
_TAG = re.compile(
    rf"</?(?:(?P<breaks>{_BREAKING})|{_INLINE})(?: [^<>=]*=[^<>]*| ?/?)>", re.IGNORECASE | re.ASCII
)
# No mistake escapes a title or nests its tags as often as this.
_ROUNDS = 10

CUT_ENDS = " ,;:.-\u2013\u2014([/&|"
"""Characters that no cut title ends with, before its ellipsis."""


def one_line(title: str) -> str:
    r"""Return a text on one line: composed characters, no control or invisible ones.

    Line breaks, tabs and control characters become spaces, and runs of spaces one space.

    >>> one_line("  Toy\tStory\n(1995)")
    'Toy Story (1995)'
    """
    if title.isascii() and title.isprintable() and "  " not in title:
        return title.strip(" ")  # most titles, twenty times as fast
    # Composed last: without what stood between them, a letter and its accent are one.
    visible = unicodedata.normalize("NFC", INVISIBLE.sub("", title))
    return _SPACES.sub(" ", visible).strip()


def clean_title(title: str) -> str:
    """Return a title as it is read: on one line, entities of HTML as characters, its tags gone.

    Entities end with a semicolon, and tags are those that format text, by their names: `AT&T`,
    `&c`, `I <3 You`, `a < b > c` and `<Untitled>` stay. What was escaped twice is unescaped twice.
    A cleaned title stays as it is when it is cleaned again.

    >>> clean_title("<i>Cat</i> &amp;amp; Mouse<br/>(1931)")
    'Cat & Mouse (1931)'
    """
    text = one_line(title)
    for _ in range(_ROUNDS):
        if "&" not in text and "<" not in text:
            return text
        plain = one_line(_TAG.sub(_without_tag, _ENTITY.sub(_character, text)))
        if plain == text:
            return text
        text = plain
    # Still none the simpler: without these signs it holds neither entity nor tag.
    return one_line(text.replace("&", " ").replace("<", " "))


def count_markup(titles: Iterable[str]) -> int:
    """Count the titles in which `clean_title` finds HTML entities or tags.

    >>> count_markup(["Cat &amp; Mouse", "<b>Heat</b>", "AT&T", "Alien"])
    2
    """
    suspects = (title for title in titles if "&" in title or "<" in title)
    return sum(clean_title(title) != one_line(title) for title in suspects)


def turn_article(title: str) -> str:
    """Put a trailing article in front, also in other languages and inside brackets.

    >>> turn_article("Shawshank Redemption, The (1994)")
    'The Shawshank Redemption (1994)'
    >>> turn_article("City of Lost Children, The (Cité des enfants perdus, La) (1995)")
    'The City of Lost Children (La Cité des enfants perdus) (1995)'
    >>> turn_article("Avventura, L' (1960)")
    "L'Avventura (1960)"
    """
    if ", " not in title:
        return title
    return _TRAILING.sub(_turned, title)


def shorten(title: str, max_characters: int) -> str:
    """Cut a title that is too long after a whole word and end it with an ellipsis.

    >>> shorten("Gradual Self Tanner, Visible Glow", 24)
    'Gradual Self Tanner…'
    >>> shorten("Supercalifragilistic", 6)
    'Super…'
    """
    if len(title) <= max_characters:
        return title
    kept = title[: max_characters - 1]
    if not title[max_characters - 1].isspace() and " " in kept:
        kept = kept.rpartition(" ")[0]
    return (kept.rstrip(CUT_ENDS) or title[: max_characters - 1]) + "…"


def distinct_titles(titles: Sequence[str], max_characters: int | None = None) -> list[str]:
    """Give titles that several items share a number in brackets, from the second item on.

    Titles that differ in nothing but upper and lower case count as shared. The number never makes
    a title that another item has, nor one longer than `max_characters`.

    >>> distinct_titles(["Emma (1996)", "Heat (1995)", "Emma (1996)"])
    ['Emma (1996)', 'Heat (1995)', 'Emma (1996) [2]']
    """
    return number_twins(titles, [[title.casefold()] for title in titles], " [{}]", max_characters)


def number_twins(
    titles: Sequence[str],
    readings: Sequence[Collection[Hashable]],
    form: str,
    max_characters: int | None = None,
    order: Iterable[int] | None = None,
) -> list[str]:
    """Give a number to each title that can be taken for an earlier one.

    Args:
        titles: Titles by item row.
        readings: What each title can be taken for; two that have one in common are twins.
        form: How a number is written behind a title, ` [{}]`.
        max_characters: Longest title allowed, number included.
        order: Rows in the order in which they keep their name; as they stand if None.

    Returns:
        The titles, with numbers that make no title that another item has.

    >>> number_twins(["Heat", "HEAT", "Alien"], [["heat"], ["heat"], ["alien"]], " ({})")
    ['Heat', 'HEAT (2)', 'Alien']
    """
    distinct, taken = list(titles), {title.casefold() for title in titles}
    seen: set[Hashable] = set()
    numbers: Counter[str] = Counter()
    for row in range(len(titles)) if order is None else order:
        if not seen.isdisjoint(readings[row]):
            distinct[row] = _numbered(titles[row], numbers, taken, form, max_characters)
            taken.add(distinct[row].casefold())
        seen.update(readings[row])
    return distinct


def readable_titles(titles: Sequence[str], max_characters: int) -> list[str]:
    """Clean, turn, shorten and tell apart the titles of a whole catalogue.

    Args:
        titles: One per item, as they stand in the source.
        max_characters: Longest title allowed.

    Returns:
        One title per item, no two the same, none longer than `max_characters`.
    """
    short = [shorten(turn_article(clean_title(title)), max_characters) for title in titles]
    return distinct_titles(short, max_characters)


def _character(entity: re.Match[str]) -> str:
    return unescape(entity[0]) if entity[1][0] == "#" else html5.get(f"{entity[1]};", entity[0])


def _without_tag(tag: re.Match[str]) -> str:
    return " " if tag["breaks"] else ""


def _turned(match: re.Match[str]) -> str:
    title, article = match["title"], match["article"]
    space = title[: len(title) - len(title.lstrip())]
    return f"{space}{article}{'' if article[-1] in chr(39) + chr(8217) else ' '}{title.lstrip()}"


def _numbered(
    title: str, numbers: Counter[str], taken: set[str], form: str, max_characters: int | None
) -> str:
    key = title.casefold()
    while True:
        numbers[key] += 1
        number = form.format(numbers[key] + 1)
        room = len(title) if max_characters is None else max_characters - len(number)
        numbered = shorten(title, room) + number
        if numbered.casefold() not in taken:
            return numbered
