"""Made sets of interactions and items: clean ones of many kinds, and faults to plant in them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

IntArray = npt.NDArray[np.int64]

DAY = 86_400
START = 1_500_000_000


@dataclass(frozen=True)
class World:
    """A dataset.

    Attributes:
        events: `user_id, item_id, timestamp` in file order.
        items: `item_id, title`.
    """

    events: pd.DataFrame
    items: pd.DataFrame


def clean_world(
    seed: int,
    *,
    users: int = 500,
    items: int = 300,
    habit: float = 0.4,
    skew: float = 0.9,
    shortest: int = 5,
    repeats: bool = False,
    by_user: bool = True,
    series: bool = False,
    stay: int = 1,
) -> World:
    """Make a set with nothing wrong.

    Users walk: with chance `habit` to one of three items that each item leads to, else by
    popularity, a Zipf law. Some stay for five steps and some for a hundred. They come in sessions
    of seconds between steps and days between sessions, so that about one step in fifty is tied.
    Ids and titles say nothing.

    Args:
        seed: Decides everything.
        users: How many.
        items: How many.
        habit: Share of steps along a habit.
        skew: Exponent of the popularity.
        shortest: Fewest steps of a user.
        repeats: Whether people come back to items.
        by_user: File order: user by user, else by time.
        series: Whether titles have parts 1 to 4, and habits lead from part to part.
        stay: How many times longer people stay away between sessions, and all begin earlier.
    """
    generator = np.random.default_rng([seed, 1])
    lengths = np.clip(generator.lognormal(2.6, 0.6, users), shortest, 120).astype(np.int64)
    weights = generator.permutation(1.0 / np.arange(1, items + 1) ** skew)
    leads_to = generator.integers(items, size=(items, 3))
    if series:
        leads_to[:, 0] = np.where(np.arange(items) % 4 < 3, np.arange(items) + 1, leads_to[:, 0])
        leads_to = np.minimum(leads_to, items - 1)
    owners, steps, walked = _walks(lengths, weights / weights.sum(), leads_to, habit, generator)
    if not repeats:
        first = ~pd.DataFrame({"user": owners, "item": walked}).duplicated().to_numpy()
        owners, steps, walked = owners[first], steps[first], walked[first]
    gaps = np.where(
        generator.random(len(owners)) < 0.75,
        generator.exponential(30, len(owners)),
        generator.exponential(4 * stay * DAY, len(owners)),
    )
    begins = generator.integers(0, 900 * DAY // stay**2, users)
    passed = pd.Series(gaps).groupby(owners).cumsum().to_numpy()
    times = START + (begins[owners] + passed).astype(np.int64)
    names = np.array([f"i{number:05d}" for number in generator.permutation(items)])
    if generator.random() < 0.5:
        names = generator.permutation(10 * items)[:items].astype(str)
    events = pd.DataFrame(
        {
            "user_id": np.char.add("u", generator.permutation(users).astype(str))[owners],
            "item_id": names[walked],
            "timestamp": times,
        }
    )
    if not by_user:
        events = events.sort_values("timestamp", kind="stable", ignore_index=True)
    titles = _titles(items, series, generator)
    catalogue = pd.DataFrame({"item_id": names, "title": titles})
    return World(events, catalogue.iloc[generator.permutation(items)].reset_index(drop=True))


def _walks(
    lengths: IntArray,
    chances: npt.NDArray[np.float64],
    leads_to: IntArray,
    habit: float,
    generator: np.random.Generator,
) -> tuple[IntArray, IntArray, IntArray]:
    """Return whose each step is, which of the user's, and to which item; all users walk at once."""
    users = len(lengths)
    last = generator.choice(len(chances), users, p=chances)
    path = [last]
    for _ in range(int(lengths.max()) - 1):
        drawn = generator.choice(len(chances), users, p=chances)
        led = leads_to[last, generator.integers(leads_to.shape[1], size=users)]
        last = np.where(generator.random(users) < habit, led, drawn)
        path.append(last)
    walked = np.stack(path, axis=1)
    within = np.arange(walked.shape[1]) < lengths[:, None]
    owners, steps = np.nonzero(within)
    return owners, steps, walked[within]


def _titles(number: int, series: bool, generator: np.random.Generator) -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    words = {
        "".join(generator.choice(syllables, generator.integers(2, 5))).capitalize()
        for _ in range(600)
    }
    known = sorted(words)
    titles: list[str] = []
    seen: set[str] = set()
    while len(titles) < number:
        title = " ".join(generator.choice(known, generator.integers(2, 5)))
        parts = [f"{title} {part}" for part in range(1, 5)] if series else [title]
        if title not in seen:
            seen.add(title)
            titles += parts
    return titles[:number]


Fault = Callable[[World, float, np.random.Generator], World]


def sorted_by(column: str) -> Fault:
    """Return a fault: a share of the users has its items in order of a column, times kept."""

    def plant(world: World, strength: float, generator: np.random.Generator) -> World:
        events = world.events.merge(world.items, on="item_id", how="left", sort=False)
        events["popularity"] = -events.groupby("item_id")["user_id"].transform("size")
        events = events.sort_values(["user_id", "timestamp"], kind="stable", ignore_index=True)
        chosen = events["user_id"].isin(_some(events["user_id"].unique(), strength, generator))
        order = np.where(chosen, events[column].rank(method="dense"), np.arange(len(events)))
        by_column = np.lexsort((order, events["user_id"].rank(method="dense")))
        events["item_id"] = events["item_id"].to_numpy()[by_column]
        return replace(world, events=events[list(world.events)])

    return plant


def shared_timestamps(world: World, strength: float, generator: np.random.Generator) -> World:
    """Round the times of a share of the users to days."""
    events = world.events.sort_values("timestamp", kind="stable", ignore_index=True)
    chosen = events["user_id"].isin(_some(events["user_id"].unique(), strength, generator))
    times = events["timestamp"]
    events["timestamp"] = times.where(~chosen, times // DAY * DAY)
    return replace(world, events=events)


def order_lost(world: World, strength: float, generator: np.random.Generator) -> World:
    """Keep a share of the times as 32-bit floats."""
    short = world.events["timestamp"].astype(np.float32).astype(np.int64)
    chosen = generator.random(len(world.events)) < strength
    return replace(
        world, events=world.events.assign(timestamp=short.where(chosen, world.events["timestamp"]))
    )


def duplicate_titles(world: World, strength: float, generator: np.random.Generator) -> World:
    """Give a share of the items the title of another."""
    return _retitled(world, strength, generator, str)


def near_duplicate_items(world: World, strength: float, generator: np.random.Generator) -> World:
    """Give a share of the items the title of another, changed a little."""

    def change(title: str) -> str:
        words = title.split()
        spot = int(np.argmax([len(word) for word in words]))
        return (
            title.replace(" ", " - ", 1),
            f"The {title}",
            " ".join([*words[:spot], words[spot][:-1], *words[spot + 1 :]]),
        )[int(generator.integers(3))]

    return _retitled(world, strength, generator, change)


def popularity_coded_ids(world: World, strength: float, generator: np.random.Generator) -> World:
    """Number the items by popularity, all but a share of them in no order."""
    counts = world.events["item_id"].value_counts().reindex(world.items["item_id"], fill_value=0)
    return _renumbered(world, np.argsort(-counts.to_numpy(), kind="stable"), strength, generator)


def order_coded_ids(world: World, strength: float, generator: np.random.Generator) -> World:
    """Number the items as they first appear in the file, all but a share of them."""
    first = pd.Index(world.events["item_id"].unique())
    places = first.get_indexer(world.items["item_id"])
    last = np.where(places < 0, len(first), places)
    return _renumbered(world, np.argsort(last, kind="stable"), strength, generator)


def leaked_target(world: World, strength: float, generator: np.random.Generator) -> World:
    """Put the last item of a share of the users into their history as well."""
    last = world.events.sort_values("timestamp", kind="stable").groupby("user_id").tail(1)
    copied = last[last["user_id"].isin(_some(last["user_id"].to_numpy(), strength, generator))]
    begins = world.events.groupby("user_id")["timestamp"].min()
    copied = copied.assign(timestamp=begins.reindex(copied["user_id"]).to_numpy() + 1)
    return replace(world, events=pd.concat([world.events, copied], ignore_index=True))


def repeated_interactions(world: World, strength: float, generator: np.random.Generator) -> World:
    """Write a share of the rows twice."""
    again = world.events[generator.random(len(world.events)) < strength]
    return replace(world, events=pd.concat([world.events, again], ignore_index=True))


def duplicate_users(world: World, strength: float, generator: np.random.Generator) -> World:
    """Give a share of the users a second id with the same rows."""
    users = _some(world.events["user_id"].unique(), strength, generator)
    copied = world.events[world.events["user_id"].isin(users)]
    copied = copied.assign(user_id="again-" + copied["user_id"])
    return replace(world, events=pd.concat([world.events, copied], ignore_index=True))


def test_only_items(world: World, strength: float, generator: np.random.Generator) -> World:
    """Let the last item of a share of the users be one that nobody else has."""
    events = world.events.copy()
    last = events.sort_values("timestamp", kind="stable").groupby("user_id").tail(1).index
    chosen = generator.choice(last, round(strength * len(last)), replace=False)
    events.loc[chosen, "item_id"] = [f"new{number}" for number in range(len(chosen))]
    new = pd.DataFrame(
        {
            "item_id": [f"new{number}" for number in range(len(chosen))],
            "title": [f"Novelty Number {number}" for number in range(len(chosen))],
        }
    )
    return World(events, pd.concat([world.items, new], ignore_index=True))


FAULTS: dict[str, Fault] = {
    "sorted-by-id": sorted_by("item_id"),
    "sorted-by-title": sorted_by("title"),
    "sorted-by-popularity": sorted_by("popularity"),
    "order-coded-ids": order_coded_ids,
    "popularity-coded-ids": popularity_coded_ids,
    "shared-timestamps": shared_timestamps,
    "order-lost": order_lost,
    "duplicate-titles": duplicate_titles,
    "near-duplicate-items": near_duplicate_items,
    "repeated-interactions": repeated_interactions,
    "leaked-target": leaked_target,
    "duplicate-users": duplicate_users,
    "test-only-items": test_only_items,
}
"""Each code of the data's audit and the fault that it is for; strength is a share, 0 to 1."""


def _some(users: npt.ArrayLike, share: float, generator: np.random.Generator) -> npt.ArrayLike:
    known = np.asarray(users)
    return generator.choice(known, round(share * len(known)), replace=False)


def _retitled(
    world: World, share: float, generator: np.random.Generator, change: Callable[[str], str]
) -> World:
    titles = world.items["title"].tolist()
    order = generator.permutation(len(titles))
    number = min(round(share * len(titles)), len(titles) // 2)
    for row, other in zip(order[:number], order[-number:] if number else [], strict=True):
        titles[row] = change(titles[other])
    return replace(world, items=world.items.assign(title=titles))


def _renumbered(
    world: World, order: IntArray, share: float, generator: np.random.Generator
) -> World:
    """Give items the ids 1, 2, 3 ... in an order that a share of them keeps."""
    order = order.copy()
    loose = np.flatnonzero(generator.random(len(order)) >= share)
    order[loose] = order[generator.permutation(loose)]
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.arange(1, len(order) + 1)
    ids = pd.Series(numbers.astype(str), index=world.items["item_id"])
    return World(
        world.events.assign(item_id=ids.reindex(world.events["item_id"]).to_numpy()),
        world.items.assign(item_id=ids.to_numpy()),
    )
