"""The made-up worlds."""

import hashlib
import itertools

import numpy as np
import pytest

from delrec_hf.data.toy_world import GENRES, TOY_WORLDS, ToyWorld, toy_world
from delrec_hf.errors import InputError

NAMES = pytest.mark.parametrize("name", TOY_WORLDS)


@NAMES
def test_the_same_seed_makes_the_same_world(name):
    first, second, other = (toy_world(name, seed, 20) for seed in (1, 1, 2))
    assert first.items.equals(second.items)
    assert first.interactions.equals(second.interactions)
    assert not first.interactions.equals(other.interactions)


def test_the_first_world_is_what_it_was():
    """A prepared run, the shipped backbone and every printed table stand on these bytes."""
    world = toy_world()
    texts = world.items.to_csv(index=False) + world.interactions.to_csv(index=False)
    found = hashlib.sha256(texts.encode() + world.popularity.tobytes()).hexdigest()
    assert found == "f9338cb70c88f2ca69655c45f586f50a9a275c1f57674d90ce11fb9fffebd2c8"


def test_both_worlds_have_the_titles_that_the_shipped_backbone_reads():
    assert toy_world().items.equals(toy_world("toy-hidden").items)


@NAMES
def test_titles_are_distinct_and_users_never_repeat_an_item(name):
    world = toy_world(name, num_users=50)
    assert world.items["title"].is_unique
    assert not world.interactions.duplicated(["user_id", "item_id"]).any()
    lengths = world.interactions.groupby("user_id").size()
    assert (lengths.min(), lengths.max()) == TOY_WORLDS[name].steps


@pytest.mark.parametrize("rule", TOY_WORLDS.values(), ids=TOY_WORLDS)
def test_weights_and_turns_are_complete(rule):
    assert rule.popular + rule.series + rule.genre + rule.turn == pytest.approx(1)
    if rule.turn:
        ring = ["space"]
        while rule.turns[ring[-1]] != "space":
            ring.append(rule.turns[ring[-1]])
        assert sorted(ring) == sorted(GENRES)


@NAMES
def test_users_move_by_the_rule(name):
    """Of many steps, each habit's mark is as frequent as the rule says, step by step."""
    world = toy_world(name, seed=3, num_users=1500)
    generator = np.random.default_rng(0)
    items, rule = world.items, world.rule
    genre, part = items.genre.to_numpy(), items.part.to_numpy()
    seen: list[list[bool]] = []
    expected: list[list[float]] = []
    spread: list[list[float]] = []
    for sequence in _sequences(world):
        position = int(generator.integers(2, len(sequence)))
        before, last, taken = sequence[position - 2 : position + 1]
        chances = _rule(world, before, last).copy()
        chances[sequence[:position]] = 0
        chances /= chances.sum()
        marks = [
            (items.franchise == items.franchise[last]) & (part == part[last] + 1),
            genre == genre[before],
            genre == genre[last],
            genre == rule.turns.get(genre[last]),
            world.popularity > 0.01,
        ]
        seen.append([bool(mark[taken]) for mark in marks])
        expected.append([float(chances[mark].sum()) for mark in marks])
        spread.append([p * (1 - p) for p in expected[-1]])
    error = np.abs(np.sum(seen, axis=0) - np.sum(expected, axis=0))
    assert (error <= 4 * np.sqrt(np.sum(spread, axis=0))).all()


def test_the_hidden_turns_are_what_the_genres_of_many_steps_show():
    world = toy_world("toy-hidden", seed=5, num_users=1500)
    genre = world.items.genre.to_numpy()
    pairs = [
        (genre[last], genre[taken])
        for sequence in _sequences(world)
        for last, taken in itertools.pairwise(sequence[1:])
    ]
    for name in GENRES:
        after = [taken for last, taken in pairs if last == name]
        most, count = max(((one, after.count(one)) for one in GENRES), key=lambda found: found[1])
        assert most == world.rule.turns[name]
        assert count / len(after) == pytest.approx(0.82, abs=0.06)  # .8, and popular ones by chance


@NAMES
def test_chances_are_how_often_each_candidate_is_the_target(name):
    """Sample targets by the rule, rank by the rule, count hits: the same within sampling error."""
    world = toy_world(name)
    sequences = _sequences(world)
    generator = np.random.default_rng(0)
    last_two, offered, hits = [], [], []
    for sequence in sequences:
        unmet = np.setdiff1d(np.arange(len(world.items)), sequence)
        candidates = np.append(generator.choice(unmet, 9, replace=False), sequence[-1])
        last_two.append(sequence[-3:-1])
        offered.append(candidates)
        hits.append(_rule(world, *sequence[-3:-1])[candidates].argmax() == 9)
    chances = world.chances(np.array(last_two), np.array(offered))
    rules = np.array([_rule(world, *two)[row] for two, row in zip(last_two, offered, strict=True)])
    np.testing.assert_allclose(chances, rules / rules.sum(axis=1, keepdims=True), rtol=1e-12)
    spread = np.std(hits) / len(hits) ** 0.5
    assert abs(np.mean(hits) - chances.max(axis=1).mean()) < 4 * spread
    # The last candidate is the target: what falls to it is calibrated at every level of chance.
    likely = chances > 0.5
    assert likely.any()
    excess = likely[:, -1].sum() - chances[likely].sum()
    assert abs(excess) < 4 * np.sqrt((chances * (1 - chances))[likely].sum())


def test_an_unknown_world_names_the_nearest():
    with pytest.raises(InputError, match=r"no toy world `toy-hiden`.*did you mean `toy-hidden`"):
        toy_world("toy-hiden")


def _sequences(world: ToyWorld) -> list[list[int]]:
    """Each user's items as rows of the catalogue, oldest first."""
    rows = {item: row for row, item in enumerate(world.items["item_id"])}
    return [
        [rows[item] for item in group]
        for _, group in world.interactions.groupby("user_id", sort=False)["item_id"]
    ]


def _rule(world, before, last):
    """The rule in the words of `Rule`, written anew."""
    items, rule = world.items, world.rule
    follows = (items.franchise == items.franchise[last]) & (items.part == items.part[last] + 1)
    genre = items.genre == items.genre[before]
    turn = items.genre == rule.turns.get(items.genre[last])
    return (
        rule.series * follows
        + rule.genre * genre / genre.sum()
        + rule.turn * turn / max(turn.sum(), 1)
        + rule.popular * world.popularity
    ).to_numpy()
