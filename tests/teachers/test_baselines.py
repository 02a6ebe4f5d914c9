"""The reference systems against counts made by hand."""

from collections import Counter
from itertools import pairwise

import numpy as np

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers.baselines import Markov, Popularity, Random


def training_parts(prepared: PreparedData) -> list[list[int]]:
    return [row["items"][: row["train_end"]] for row in prepared.sequences]


def test_popularity_counts_training_items_alone(prepared: PreparedData) -> None:
    counts = Counter(item for part in training_parts(prepared) for item in part)
    scores = Popularity.fit(prepared).score(["u1"], np.array([3]), [np.array([1, 2, 3])])
    assert scores.tolist() == [[counts[item] for item in range(30)]]


def test_markov_orders_by_transitions_then_popularity(prepared: PreparedData) -> None:
    parts = training_parts(prepared)
    follows = Counter(pair for part in parts for pair in pairwise(part))
    counts = Counter(item for part in parts for item in part)
    markov = Markov.fit(prepared)
    for last in range(30):
        scores = markov.score(["u1"], np.array([2]), [np.array([7, last])])[0]
        naive = sorted(range(30), key=lambda item: (-follows[last, item], -counts[item], item))
        assert np.argsort(-scores, kind="stable").tolist() == naive


def test_markov_without_a_history_is_popularity(prepared: PreparedData) -> None:
    nothing = [np.array([], dtype=np.int64)]
    markov = Markov.fit(prepared).score(["u1"], np.array([0]), nothing)
    popularity = Popularity.fit(prepared).score(["u1"], np.array([0]), nothing)
    assert np.argsort(-markov, kind="stable").tolist() == (
        np.argsort(-popularity, kind="stable").tolist()
    )


def test_random_depends_on_user_position_and_seed_alone(prepared: PreparedData) -> None:
    users, positions = ["u1", "u2", "u1"], np.array([3, 3, 4])
    histories = [np.array([1])] * 3
    teacher = Random.fit(prepared, seed=1)
    scores = teacher.score(users, positions, histories)
    backwards = teacher.score(users[::-1], positions[::-1], histories)
    np.testing.assert_array_equal(scores, backwards[::-1])
    assert len(np.unique(scores)) == scores.size
    other_seed = Random.fit(prepared, seed=2).score(users, positions, histories)
    assert not np.isin(scores, other_seed).any()


def test_random_scores_are_spread_evenly() -> None:
    users = [f"user{number}" for number in range(2000)]
    scores = Random(50).score(users, np.arange(2000), [np.array([1])] * 2000)
    assert 0 <= scores.min() < scores.max() < 1
    assert abs(scores.mean() - 0.5) < 0.005
    firsts = np.bincount(scores.argmax(axis=1), minlength=50)
    assert firsts.min() > 15
    assert firsts.max() < 75  # 40 each, and a standard deviation of 6
