"""Ranking a whole catalogue with prompts that show a few candidates each: tournaments."""

from collections.abc import Callable, Generator, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Group = list[int]
Places = list[tuple[int, float]]
"""Items, best first, with their score in the last round that they reached."""


def tournaments(
    offers: Sequence[Sequence[int]],
    group_size: int,
    score_groups: Callable[[list[tuple[int, Group]]], Sequence[FloatArray]],
    seed: int = 0,
) -> list[Places]:
    """Rank several lists of items in rounds of groups; the best half of each group goes on.

    The model has learned to choose out of `group_size` listed candidates, so each round lists so
    many. Where its order does not depend on the company, the first `group_size / 2` places are
    exactly those of one comparison of all. The lists go from round to round side by side, and none
    changes what another one comes to.

    Args:
        offers: Lists of what to rank.
        group_size: Candidates of one prompt, at least 2.
        score_groups: Scores each group's members, `(members,)` per group, higher is better; a group
            comes with the place of its list in `offers`.
        seed: Decides the groups of the first round.

    Returns:
        For each list its items, best first. Who reached a later round stands before who did not.

    >>> value = np.arange(100.0)
    >>> by_value = lambda asked: [value[group] for _, group in asked]
    >>> [item for item, _ in tournaments([range(100)], 10, by_value)[0]][:5]
    [99, 98, 97, 96, 95]
    """
    ranked: list[Places] = [[] for _ in offers]
    running = [_rounds(items, group_size, seed) for items in offers]
    groups = {place: next(one) for place, one in enumerate(running)}
    while groups:
        asked = [(place, group) for place, own in groups.items() for group in own]
        found = iter(score_groups(asked))
        for place, own in list(groups.items()):
            try:
                groups[place] = running[place].send([next(found) for _ in own])
            except StopIteration as end:
                ranked[place] = end.value
                del groups[place]
    return ranked


def _rounds(
    items: Sequence[int], group_size: int, seed: int
) -> Generator[list[Group], list[FloatArray], Places]:
    """Yield the groups of each round, take their scores, and return the places."""
    remaining = list(items)
    if len(remaining) > group_size:  # what fits one prompt stands there in the given order
        remaining = np.random.default_rng(seed).permutation(np.asarray(items)).tolist()
    ranked: Places = []
    while True:
        count = max(1, -(-len(remaining) // group_size))
        groups = [group.tolist() for group in np.array_split(remaining, count)]
        scored = yield groups
        on: Places = []
        out: Places = []
        for group, scores in zip(groups, scored, strict=True):
            order = np.argsort(-scores, kind="stable")
            places = [(int(group[place]), float(scores[place])) for place in order]
            kept = len(places) if count == 1 else group_size // 2
            on += places[:kept]
            out += places[kept:]
        ranked = sorted(out, key=lambda found: -found[1]) + ranked
        if count == 1:
            return sorted(on, key=lambda found: -found[1]) + ranked
        remaining = [item for item, _ in on]
