"""The toy world: a made-up film catalogue whose users move by a known rule."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

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

SERIES_WEIGHT, GENRE_WEIGHT, POPULAR_WEIGHT = 0.4, 0.4, 0.2
"""How often a step follows each of the three habits, where all three are possible."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ToyWorld:
    """A catalogue, its users, and the rule by which they move.

    A user's next item is drawn from a mixture over the items not seen yet: the next part of the
    last item's franchise (what the title's number says), any item of the genre of the item *two*
    steps back (a habit that only behaviour shows), and popular items. The weights are
    `SERIES_WEIGHT`, `GENRE_WEIGHT`, `POPULAR_WEIGHT`.

    Attributes:
        items: `item_id, title, genre, franchise, part`, one row per item.
        interactions: `user_id, item_id, timestamp`, in order of time per user.
        popularity: Probability of each item under the third habit, in row order of `items`.
    """

    items: pd.DataFrame
    interactions: pd.DataFrame
    popularity: FloatArray

    def best_hr_at_1(self, last_two: IntArray, candidates: IntArray) -> float:
        """Return the highest expected HR@1 that any ranker can reach.

        Candidates are one item drawn by the rule and others drawn uniformly from the unseen items,
        so the chance that candidate c is the target is p(c) / (sum of p over the candidates), and
        the best choice is the candidate with the largest p.

        Args:
            last_two: `(rows, 2)` rows of `items` of the last two items, newest last.
            candidates: `(rows, candidates)` rows of `items`.
        """
        chances = np.array(
            [
                _chances(self.items, self.popularity, before, last)[offered]
                for (before, last), offered in zip(last_two, candidates, strict=True)
            ]
        )
        return float((chances.max(axis=1) / chances.sum(axis=1)).mean())


def toy_world(seed: int = 7, num_users: int = 600, steps: tuple[int, int] = (12, 18)) -> ToyWorld:
    """Make the toy world.

    Args:
        seed: Decides everything below.
        num_users: How many users move through it.
        steps: Shortest and longest sequence.
    """
    generator = np.random.default_rng(seed)
    items = _catalogue(generator)
    zipf = 1.0 / np.arange(1, len(items) + 1)
    popularity = generator.permutation(zipf / zipf.sum())
    rows = []
    for user in range(num_users):
        length = int(generator.integers(steps[0], steps[1] + 1))
        sequence = _walk(items, popularity, length, generator)
        ids = items["item_id"].to_numpy()[sequence]
        rows += [(f"u{user + 1}", item, step) for step, item in enumerate(ids)]
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return ToyWorld(items, interactions, popularity)


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
    items: pd.DataFrame, popularity: FloatArray, length: int, generator: np.random.Generator
) -> list[int]:
    sequence = [int(generator.integers(len(items))), int(generator.integers(len(items)))]
    if sequence[0] == sequence[1]:
        sequence[1] = (sequence[1] + 1) % len(items)
    while len(sequence) < length:
        chances = _chances(items, popularity, sequence[-2], sequence[-1])
        chances[sequence] = 0.0
        sequence.append(int(generator.choice(len(items), p=chances / chances.sum())))
    return sequence


def _chances(items: pd.DataFrame, popularity: FloatArray, before: int, last: int) -> FloatArray:
    """Return each item's weight as the next one, before seen items are taken out."""
    genre = items["genre"].to_numpy()
    franchise = items["franchise"].to_numpy()
    part = items["part"].to_numpy()
    follows = (franchise == franchise[last]) & (part == part[last] + 1)
    same_genre = genre == genre[before]
    chances: FloatArray = (
        SERIES_WEIGHT * follows
        + GENRE_WEIGHT * same_genre / same_genre.sum()
        + POPULAR_WEIGHT * popularity
    )
    return chances
