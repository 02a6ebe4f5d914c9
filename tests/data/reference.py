"""What preparing does, in plain words: lists, dicts and loops, none of the code under test.

`prepared` says what has to come out of rows of interactions and items under a recipe's keys, or
that they have to be refused.
"""

import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

SHORTEST = 3


@dataclass(frozen=True)
class Event:
    """A row of interactions; without a time (or rating) where the file holds none."""

    user: str
    item: str
    time: int | None
    rating: float | None = None
    kind: str = ""
    title: str = ""


class Refused(Exception):  # noqa: N818 - an outcome, no error of the reference
    """The data have to be refused."""


@dataclass
class Expected:
    """What has to come out.

    `items` are ids and titles as written; `sequences` item ids by user, in order of the user;
    `moments` which of the user's different times each was met at; `train_ends` how many of them
    are for training; `targets` users and places by part; `left_out` numbers by the names of
    `info.json`.
    """

    items: list[tuple[str, str]]
    sequences: dict[str, list[str]]
    moments: dict[str, list[int]]
    train_ends: dict[str, int]
    targets: dict[str, list[tuple[str, int]]]
    left_out: Counter[str] = field(default_factory=Counter)


def prepared(
    events: list[Event],
    items: list[tuple[str, str]] | None,
    keys: dict[str, Any],
    broken_lines: int = 0,
    broken_item_lines: int = 0,
) -> Expected:
    """Return what has to come out of rows in file order; without a table of items: `items` None."""
    lost: Counter[str] = Counter()
    problems = bool(broken_lines or broken_item_lines)
    lost["broken_lines"], lost["broken_item_lines"] = broken_lines, broken_item_lines
    events = wanted(events, keys, lost)
    usable = [
        one for one in events if one.user.strip() and one.item.strip() and one.time is not None
    ]
    lost["unusable_rows"] = len(events) - len(usable)
    problems |= len(usable) < len(events)
    if not usable:
        raise Refused("no row can be used")
    rows = [Event(one.user.strip(), one.item.strip(), one.time, title=one.title) for one in usable]
    rows = counting(rows, keys, lost)
    if items is None:
        catalogue = titles_of_events(rows, lost)
        known = {one.item for one in rows}
    else:
        catalogue = titles_of_items(items, lost)
        known = {item.strip() for item, _ in items}
    names = ("unusable_item_rows", "items_without_title", "contradicting_item_rows")
    problems |= any(lost[name] for name in names)
    unknown = [one for one in rows if one.item not in known]
    if rows and len(unknown) == len(rows):
        raise Refused("no item is known")
    if (problems or unknown) and not keys["drop_unusable"]:
        raise Refused("something cannot be used")
    remaining = [one for one in rows if one.item in catalogue]
    if len(remaining) < len(rows):
        lost["interactions_with_unknown_items"] = len(rows) - len(remaining)
        remaining = core(remaining, keys, lost)
    if keys["min_item_interactions"]:
        met = {one.item for one in remaining}
        lost["items_outside_core"] = len(catalogue) - len(met)
        catalogue = {item: title for item, title in catalogue.items() if item in met}
    if not remaining:
        raise Refused("nothing is left")
    return split(in_sequence(remaining, catalogue, keys, lost), catalogue, keys, lost)


def wanted(events: list[Event], keys: dict[str, Any], lost: Counter[str]) -> list[Event]:
    """Leave out what is rated too low or not at all, then what is of another kind."""
    least = keys["min_rating"]
    if least is not None:
        if all(one.rating is None for one in events):
            raise Refused("nothing is rated")
        lost["without_rating"] = sum(one.rating is None for one in events)
        events = [one for one in events if one.rating is not None]
        lost["below_min_rating"] = sum(one.rating < least for one in events)
        events = [one for one in events if one.rating >= least]
    for kinds in (keys["keep"] or {}).values():
        if set(kinds) - {one.kind for one in events}:
            raise Refused("no row is of this kind")
        lost["other_events"] = sum(one.kind not in kinds for one in events)
        events = [one for one in events if one.kind in kinds]
    if not events:
        raise Refused("nothing is left")
    return events


def counting(rows: list[Event], keys: dict[str, Any], lost: Counter[str]) -> list[Event]:
    """Leave out repeats, then what is outside the k-core."""
    once, seen = [], set()
    for row in rows:
        if (row.user, row.item, row.time) in seen:
            lost["exact_repeats"] += 1
        else:
            seen.add((row.user, row.item, row.time))
            once.append(row)
    chosen: dict[tuple[str, str], Event] = {}
    for row in sorted(once, key=lambda one: one.time):
        if keys["repeats"] == "last" or (row.user, row.item) not in chosen:
            chosen[row.user, row.item] = row
    lost["repeated_interactions"] = len(once) - len(chosen)
    kept = {id(row) for row in chosen.values()}
    return core([row for row in once if id(row) in kept], keys, lost)


def core(rows: list[Event], keys: dict[str, Any], lost: Counter[str]) -> list[Event]:
    """Leave out users and items with too few rows, one at a time, until all have enough."""
    before = rows
    while True:
        of_user = Counter(one.user for one in rows)
        of_item = Counter(one.item for one in rows)
        few_users = [u for u in of_user if of_user[u] < keys["min_user_interactions"]]
        few_items = [i for i in of_item if of_item[i] < keys["min_item_interactions"]]
        if few_users:
            rows = [one for one in rows if one.user != few_users[0]]
        elif few_items:
            rows = [one for one in rows if one.item != few_items[0]]
        else:
            break
    lost["interactions_outside_core"] += len(before) - len(rows)
    lost["users_outside_core"] += len({one.user for one in before}) - len(
        {one.user for one in rows}
    )
    return rows


def titles_of_events(rows: list[Event], lost: Counter[str]) -> dict[str, str]:
    """Take each item's first title that can be seen; in order of the id."""
    titles: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        titles[row.item] += [row.title] if is_visible(row.title) else []
    if any(len({plain(one) for one in given}) > 1 for given in titles.values()):
        raise Refused("an item has several titles")
    lost["items_without_title"] = sum(not given for given in titles.values())
    return {item: titles[item][0] for item in sorted(titles) if titles[item]}


def titles_of_items(items: list[tuple[str, str]], lost: Counter[str]) -> dict[str, str]:
    """Take each item's first row with a title that can be seen; in order of the file."""
    catalogue: dict[str, str] = {}
    without: Counter[str] = Counter()
    for item, title in items:
        if not item.strip():
            lost["unusable_item_rows"] += 1
        elif not is_visible(title):
            without[item.strip()] += 1
        elif item.strip() not in catalogue:
            catalogue[item.strip()] = title
        elif plain(catalogue[item.strip()]) == plain(title):
            lost["repeated_item_rows"] += 1
        else:
            lost["contradicting_item_rows"] += 1
    for item, rows in without.items():
        lost["items_without_title"] += item not in catalogue
        lost["repeated_item_rows"] += rows if item in catalogue else rows - 1
    return catalogue


def in_sequence(
    rows: list[Event], catalogue: dict[str, str], keys: dict[str, Any], lost: Counter[str]
) -> dict[str, list[Event]]:
    """Sort each user's rows by time, and leave out users with too few items, or with too many."""
    found = {}
    for user in sorted({one.user for one in rows}):
        own = sorted((one for one in rows if one.user == user), key=lambda one: one.time)
        if len(own) < SHORTEST:
            lost["users_with_short_histories"] += 1
            lost["interactions_of_these_users"] += len(own)
        elif len(catalogue) - len(own) < keys["num_candidates"] - 1:
            lost["users_without_candidates"] += 1
            lost["interactions_without_candidates"] += len(own)
        else:
            found[user] = own
    if not found:
        raise Refused("no user is left")
    return found


def split(
    sequences: dict[str, list[Event]],
    catalogue: dict[str, str],
    keys: dict[str, Any],
    lost: Counter[str],
) -> Expected:
    """Hold out each user's last two items, or what came last in time."""
    if keys["split"] == "leave-one-out":
        ends = {user: (len(own) - 2, len(own) - 1) for user, own in sequences.items()}
    else:
        times = sorted(one.time for own in sequences.values() for one in own)
        held_out = keys["validation_share"] + keys["test_share"]
        first, second = (
            times[min(round(len(times) * (1 - share)), len(times) - 1)]
            for share in (held_out, keys["test_share"])
        )
        ends = {
            user: (sum(one.time < first for one in own), sum(one.time < second for one in own))
            for user, own in sequences.items()
        }
    targets: dict[str, list[tuple[str, int]]] = {"train": [], "validation": [], "test": []}
    for user, own in sequences.items():
        train, validation = ends[user]
        begin = max(1, train - keys["train_prefixes"])
        targets["train"] += [(user, place) for place in range(begin, train)]
        targets["validation"] += [(user, max(train, 1))] if max(train, 1) < validation else []
        targets["test"] += [(user, max(validation, 1))] if max(validation, 1) < len(own) else []
    if not all(targets.values()):
        raise Refused("a part is empty")
    moments = {
        user: [len({other.time for other in own if other.time < one.time}) for one in own]
        for user, own in sequences.items()
    }
    return Expected(
        items=list(catalogue.items()),
        sequences={user: [one.item for one in own] for user, own in sequences.items()},
        moments=moments,
        train_ends={user: ends[user][0] for user in sequences},
        targets=targets,
        left_out=lost,
    )


def is_visible(title: str) -> bool:
    """Say whether anything of a title can be seen; of HTML, spaces and line breaks are known."""
    title = title.replace("<br>", " ").replace("&nbsp;", " ")
    return any(unicodedata.category(one)[0] not in "CZ" for one in title)


def plain(title: str) -> str:
    """Return a title without what its two spellings may differ in: spaces and line breaks."""
    return " ".join(title.split())
