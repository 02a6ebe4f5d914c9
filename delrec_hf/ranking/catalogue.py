"""Ranking a whole catalogue with prompts that show a few candidates each: a tournament."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def tournament(
    items: Sequence[int],
    group_size: int,
    top_k: int,
    score_groups: Callable[[list[list[int]]], list[FloatArray]],
    seed: int = 0,
) -> list[tuple[int, float]]:
    """Rank items in rounds of groups; the best `group_size / 2` of each group go on.

    The model has learned to choose out of `group_size` listed candidates, so each round lists so
    many. Where its order does not depend on the company, the first `group_size / 2` places are
    exactly those of one comparison of all.

    Args:
        items: What to rank.
        group_size: Candidates of one prompt, at least 2.
        top_k: How many to return.
        score_groups: Scores each group's members, `(members,)` per group, higher is better.
        seed: Decides the groups of the first round.

    Returns:
        The best `top_k` items, best first, with their score in the last round that they reached.
        Who reached a later round stands before who did not.

    >>> value = np.arange(100.0)
    >>> by_value = lambda groups: [value[group] for group in groups]
    >>> [item for item, _ in tournament(range(100), 10, 5, by_value)]
    [99, 98, 97, 96, 95]
    """
    remaining = list(items)
    if len(remaining) > group_size:  # what fits one prompt stands there in the given order
        remaining = np.random.default_rng(seed).permutation(np.asarray(items)).tolist()
    ranked: list[tuple[int, float]] = []
    while True:
        count = max(1, -(-len(remaining) // group_size))
        groups = [group.tolist() for group in np.array_split(remaining, count)]
        on: list[tuple[int, float]] = []
        out: list[tuple[int, float]] = []
        for group, scores in zip(groups, score_groups(groups), strict=True):
            order = np.argsort(-scores, kind="stable")
            places = [(int(group[place]), float(scores[place])) for place in order]
            kept = len(places) if count == 1 else group_size // 2
            on += places[:kept]
            out += places[kept:]
        ranked = sorted(out, key=lambda found: -found[1]) + ranked
        if count == 1:
            return (sorted(on, key=lambda found: -found[1]) + ranked)[:top_k]
        remaining = [item for item, _ in on]
