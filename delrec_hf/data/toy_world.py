"""The toy worlds: a made-up film catalogue whose users move by a known rule."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from delrec_hf.errors import InputError, suggest

GENRES: dict[str, tuple[str, ...]] = {
    "space": ("Galaxy", "Comet", "Orbit"),
    "horror": ("Crypt", "Phantom", "Scream"),
    "western": ("Saloon", "Canyon", "Sheriff"),
    "romance": ("Kiss", "Wedding", "Sweetheart"),
    "crime": ("Heist", "Detective", "Alibi"),
    "war": ("Trench", "Platoon", "Siege"),
    "comedy": ("Prank", "Clown", "Giggle"),
    "sea": ("Harbour", "Captain", "Lagoon"),
}
"""Genres and the nouns that give them away in a title."""

NAMES = (  # noqa: SIM905 - a line of words reads better than forty-eight lines
    "Alder Bexley Calder Dorset Elmore Fenwick Garnet Hollis Ingram Jasper Keswick Larkin Mallory "
    "Norwood Ogden Penrose Quincy Ramsey Selby Tilden Upton Vernon Walden Yardley Ashby Briar "
    "Corwin Dalton Everly Forbes Greer Hadley Irving Juniper Kendal Linden Merrow Nestor Orwell "
    "Porter Quill Rowan Sutton Thorne Umber Varley Wexford Zeller"
).split()
"""One name per franchise, in no order of genre."""

PARTS = 4
FRANCHISES_PER_GENRE = len(NAMES) // len(GENRES)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """How the users of a world move.

    A next item is drawn from a mixture over the items not seen yet. The weights say how often a
    step follows each habit, where all of them are possible; they sum to 1.

    Attributes:
        popular: Popular items.
        series: The next part of the last item's franchise, which the title's number gives away.
        genre: Any item of the genre of the item *two* steps back, a habit that only behaviour
            shows, though titles say who belongs together.
        turn: Any item of the genre that `turns` has for the last item's genre: an arbitrary table,
            so that nothing in a title says what comes next.
        turns: The genre that follows each genre.
        steps: Shortest and longest sequence.
    """

    popular: float
    series: float = 0.0
    genre: float = 0.0
    turn: float = 0.0
    turns: dict[str, str] = field(default_factory=dict)
    steps: tuple[int, int] = (12, 18)


TOY_WORLDS = {
    "toy": Rule(series=0.4, genre=0.4, popular=0.2),
    "toy-hidden": Rule(
        turn=0.8,
        popular=0.2,
        # One ring, so that no genre is its own successor and none leads straight back.
        turns={
            "space": "romance",
            "romance": "war",
            "war": "sea",
            "sea": "horror",
            "horror": "comedy",
            "comedy": "western",
            "western": "crime",
            "crime": "space",
        },
        # Short: a teacher that knows items alone learns the turns from them, but not to the full.
        steps=(5, 8),
    ),
}
"""The worlds by the name that `data.path` gives them."""


@dataclass(frozen=True)
class ToyWorld:
    """A catalogue, its users, and the rule by which they move.

    Attributes:
        items: `item_id, title, genre, franchise, part`, one row per item.
        interactions: `user_id, item_id, timestamp`, in order of time per user.
        popularity: Probability of each item under the habit of popular items, in row order of
            `items`.
        rule: The habits and their weights.
    """

    items: pd.DataFrame
    interactions: pd.DataFrame
    popularity: FloatArray
    rule: Rule

    def chances(self, last_two: IntArray, candidates: IntArray) -> FloatArray:
        """Return how likely each candidate is the target, as the rule has it.

        Candidates are one item drawn by the rule and others drawn uniformly from the items that the
        user never meets, so the chance that candidate c is the target is p(c) / (sum of p over the
        candidates). That is exact for a user's last item. An item met later cannot be a candidate,
        which tells a little more about earlier targets than is counted here.

        Args:
            last_two: `(rows, 2)` rows of `items` of the two items before the target, newest last.
            candidates: `(rows, candidates)` rows of `items`.

        Returns:
            `(rows, candidates)` float64, each row summing to 1.
        """
        offered = np.array(
            [
                _weights(self.items, self.popularity, self.rule, before, last)[row]
                for (before, last), row in zip(last_two, candidates, strict=True)
            ]
        )
        chances: FloatArray = offered / offered.sum(axis=1, keepdims=True)
        return chances


def toy_world(name: str = "toy", seed: int = 7, num_users: int = 600) -> ToyWorld:
    """Make a toy world.

    All worlds of a seed have the same catalogue and the same popular items.

    Args:
        name: One of `TOY_WORLDS`.
        seed: Decides everything below.
        num_users: How many users move through it.

    Raises:
        InputError: If no world has this name.
    """
    if name not in TOY_WORLDS:
        raise InputError(
            f"there is no toy world `{name}`; expected {' or '.join(TOY_WORLDS)}"
            f"{suggest(name, TOY_WORLDS)}"
        )
    rule = TOY_WORLDS[name]
    generator = np.random.default_rng(seed)
    items = _catalogue(generator)
    zipf = 1.0 / np.arange(1, len(items) + 1)
    popularity = generator.permutation(zipf / zipf.sum())
    rows = []
    for user in range(num_users):
        length = int(generator.integers(rule.steps[0], rule.steps[1] + 1))
        sequence = _walk(items, popularity, rule, length, generator)
        ids = items["item_id"].to_numpy()[sequence]
        rows += [(f"u{user + 1}", item, step) for step, item in enumerate(ids)]
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return ToyWorld(items, interactions, popularity, rule)


def _catalogue(generator: np.random.Generator) -> pd.DataFrame:
    names = generator.permutation(NAMES)
    rows = []
    for number, name in enumerate(names):
        genre = list(GENRES)[number // FRANCHISES_PER_GENRE]
        noun = GENRES[genre][number % len(GENRES[genre])]
        rows += [(f"{name} {noun} {part}", genre, number, part) for part in range(1, PARTS + 1)]
    items = pd.DataFrame(rows, columns=["title", "genre", "franchise", "part"])
    # Ids say nothing: neither genre nor franchise nor popularity can be read off them.
    items.insert(0, "item_id", [f"i{n + 1:03d}" for n in generator.permutation(len(items))])
    return items


def _walk(
    items: pd.DataFrame,
    popularity: FloatArray,
    rule: Rule,
    length: int,
    generator: np.random.Generator,
) -> list[int]:
    sequence = [int(generator.integers(len(items))), int(generator.integers(len(items)))]
    if sequence[0] == sequence[1]:
        sequence[1] = (sequence[1] + 1) % len(items)
    while len(sequence) < length:
        weights = _weights(items, popularity, rule, sequence[-2], sequence[-1])
        weights[sequence] = 0.0
        sequence.append(int(generator.choice(len(items), p=weights / weights.sum())))
    return sequence


def _weights(
    items: pd.DataFrame, popularity: FloatArray, rule: Rule, before: int, last: int
) -> FloatArray:
    """Return each item's weight as the next one, before seen items are taken out."""
    genre = items["genre"].to_numpy()
    franchise = items["franchise"].to_numpy()
    part = items["part"].to_numpy()
    follows = (franchise == franchise[last]) & (part == part[last] + 1)
    same_genre = genre == genre[before]
    weights: FloatArray = (
        rule.series * follows
        + rule.genre * same_genre / same_genre.sum()
        + rule.popular * popularity
    )
    if rule.turns:
        turned = genre == rule.turns[genre[last]]
        weights = weights + rule.turn * turned / turned.sum()
    return weights
