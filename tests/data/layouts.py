"""Made-up datasets, and the styles in which they can be written."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from tests.data.reference import Event

FORMS = (
    *("csv", "tsv", "jsonl", "json", "python", "parquet", "recbole", "movielens-100k"),
    "movielens-1m",
)
NAMES = {
    "user": ("user_id", "userId", "User ID", "uid", "CUSTOMER-ID"),
    "item": ("item_id", "movieId", "Item", "asin"),
    "time": ("timestamp", "time", "Event Time", "rated_at"),
    "rating": ("rating", "Stars", "overall"),
    "kind": ("event_type",),
    "title": ("title", "Name", "movie_title"),
    "extra": ("comment",),
}

_BASE = datetime(2001, 5, 28, 22, tzinfo=UTC)


def _at(form: str) -> Callable[[int], str]:
    return lambda time: (_BASE + timedelta(hours=time)).strftime(form)


def _offset(time: int) -> str:
    zone = timezone(timedelta(hours=time % 5 - 2, minutes=30))
    return (_BASE + timedelta(hours=time)).astimezone(zone).isoformat()


TIMES: dict[str, Callable[[int], str]] = {
    "seconds": str,
    "milliseconds": lambda time: str(1_600_000_000_000 + time),
    "nanoseconds": lambda time: str(1_600_000_000_000_000_000 + time),
    "fractions": lambda time: str(time + 0.25),
    "exponents": lambda time: f"{time}e2",
    "padded": lambda time: f" {time} ",
    "iso": _at("%Y-%m-%dT%H:%M:%S"),
    "iso with a space": _at("%Y-%m-%d %H:%M:%S"),
    "iso in UTC": _at("%Y-%m-%dT%H:%M:%SZ"),
    "iso with offsets": _offset,
    "iso nanoseconds": lambda time: f"2001-05-28 22:00:00.{500 + time:09d}",
    "days": lambda time: f"{_BASE + timedelta(days=time):%Y-%m-%d}",
    "old days": lambda time: f"{datetime(1066, 10, 14) + timedelta(days=time):%Y-%m-%d}",
    "UTC behind": _at("%Y-%m-%d %H:%M:%S UTC"),
    "slashes": _at("%Y/%m/%d %H:%M:%S"),
    "month by name": _at("%b %d, %Y %I:%M %p"),
    "day and month by name": _at("%d %B %Y %H:%M"),
    "as tweeted": _at("%a %b %d %H:%M:%S %z %Y"),
    "day first, given": _at("%d/%m/%Y %H:%M"),
    "month first, given": _at("%m-%d-%Y %I:%M %p"),
    "day and clock": _at("%Y-%m-%d|%H:%M"),
}
"""Ways of writing times, all of which grow with the number; `|` parts two columns."""

GIVEN = {"day first, given": "%d/%m/%Y %H:%M", "month first, given": "%m-%d-%Y %I:%M %p"}

PARQUET_IDS = ("string", "large_string", "dictionary", "binary", "int64", "double", "int32")
PARQUET_TIMES = (
    *("int64", "int32", "double", "decimal", "string", "dictionary", "uint64", "binary"),
    *("timestamp[s]", "timestamp[ms]", "timestamp[us]", "timestamp[ns]", "zoned", "date32"),
)


@dataclass(frozen=True)
class World:
    """A dataset as it is meant.

    Attributes:
        events: Interactions in file order.
        items: Ids and titles in file order; None: the interactions hold the titles.
        keys: The recipe's keys that decide what becomes of it.
        broken_lines: Lines of another number of values among the interactions.
        broken_item_lines: The same among the items.
    """

    events: list[Event]
    items: list[tuple[str, str]] | None
    keys: dict[str, Any]
    broken_lines: int = 0
    broken_item_lines: int = 0

    def map_texts(self, ids: Callable[[str], str], titles: Callable[[str], str]) -> "World":
        """Return the world with other ids and titles."""
        events = [
            replace(one, user=ids(one.user), item=ids(one.item), title=titles(one.title))
            for one in self.events
        ]
        items = self.items and [(ids(item), titles(title)) for item, title in self.items]
        return replace(self, events=events, items=items)


@dataclass(frozen=True)
class Style:
    """How it is written.

    Attributes:
        form: One of `FORMS`.
        separator: Between columns of csv.
        always_quoted: Whether values are quoted that need no quotes.
        line_end: Between lines.
        ends_with_line: Whether the last line ends as the others do.
        encoding: Of text.
        compression: What the file is packed with, one of `writers.COMPRESSIONS`.
        times: One of `TIMES`.
        has_header: Whether columns are named in the file.
        seed: Decides the order of columns, their names and where broken lines stand.
        types: Of a parquet file's ids and times; in json, `int64` writes numbers.
    """

    form: str
    separator: str = ","
    always_quoted: bool = False
    line_end: str = "\n"
    ends_with_line: bool = True
    encoding: str = "utf-8"
    compression: str = ""
    times: str = "seconds"
    has_header: bool = True
    seed: int = 0
    types: tuple[str, str] = ("string", "int64")
    names: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        chosen = random.Random(self.seed)
        names = {kind: chosen.choice(given) for kind, given in NAMES.items()}
        object.__setattr__(self, "names", names)

    @property
    def is_separated(self) -> bool:
        return self.form not in ("jsonl", "json", "python", "parquet")


def fit(world: World, style: Style) -> World:
    """Return the world with what a format cannot hold taken out of its ids and titles."""

    def encodable(text: str) -> str:
        return text.encode(style.encoding, "replace").decode(style.encoding).removeprefix("\ufeff")

    if not style.is_separated:
        world = replace(world, broken_lines=0, broken_item_lines=0)
        return world.map_texts(encodable, encodable)
    if style.form not in ("csv", "tsv") and world.items is None:
        world = replace(world, items=[(one.item, one.title) for one in world.events])
    if world.items is None:
        world = replace(world, broken_item_lines=0)
    if style.form.startswith("movielens"):
        world = replace(world, keys=world.keys | {"keep": None})
    spans = style.form == "csv" and style.line_end != "\r"
    between = {"tsv": "", "csv": "", "recbole": "\t", "movielens-100k": "\t|", "movielens-1m": ":"}
    bad_in_ids = between[style.form] + "\x00\r" + ("" if spans else "\n")
    bad_in_titles = between[style.form] + "\x00" + ("" if spans else "\r\n")

    def written(bad: str, text: str) -> str:
        for character in bad:
            text = text.replace(character, "_")
        first, line_break, rest = text.partition("\n")  # a value may not seem to hold rows
        text = first + line_break + rest.replace(style.separator, "_")
        return encodable(text)

    return world.map_texts(
        lambda text: written(bad_in_ids, text), lambda text: written(bad_in_titles, text)
    )
