"""The made-up world."""

import numpy as np

from delrec_hf.data.toy_world import toy_world


def test_the_same_seed_makes_the_same_world():
    first, second, other = toy_world(1, 20), toy_world(1, 20), toy_world(2, 20)
    assert first.interactions.equals(second.interactions)
    assert not first.interactions.equals(other.interactions)


def test_titles_are_distinct_and_users_never_repeat_an_item():
    world = toy_world(num_users=50)
    assert world.items["title"].is_unique
    assert not world.interactions.duplicated(["user_id", "item_id"]).any()


def test_best_hr_at_1_is_what_ranking_by_the_rule_reaches():
    """Sample targets by the rule, rank by the rule, count hits: the same within sampling error."""
    world = toy_world(num_users=600)
    rows = {item: row for row, item in enumerate(world.items["item_id"])}
    sequences = [
        [rows[item] for item in group]
        for _, group in world.interactions.groupby("user_id")["item_id"]
    ]
    generator = np.random.default_rng(0)
    last_two, offered, hits = [], [], []
    for sequence in sequences:
        unmet = np.setdiff1d(np.arange(len(rows)), sequence)
        candidates = np.append(generator.choice(unmet, 9, replace=False), sequence[-1])
        chances = _rule(world, sequence[-3], sequence[-2])[candidates]
        last_two.append(sequence[-3:-1])
        offered.append(candidates)
        hits.append(chances.argmax() == 9)
    best = world.best_hr_at_1(np.array(last_two), np.array(offered))
    spread = np.std(hits) / len(hits) ** 0.5
    assert abs(np.mean(hits) - best) < 4 * spread


def _rule(world, before, last):
    """The rule in the words of `ToyWorld`, written anew."""
    items = world.items
    follows = (items.franchise == items.franchise[last]) & (items.part == items.part[last] + 1)
    genre = items.genre == items.genre[before]
    return (0.4 * follows + 0.4 * genre / genre.sum() + 0.2 * world.popularity).to_numpy()
