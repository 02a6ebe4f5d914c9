"""The reference systems against counts made by hand."""

import dataclasses
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from datasets import Dataset
from scipy.sparse import csr_array

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers.baselines import CoOccurrence, Markov, Popularity, Random
from tests.teachers.prepared_data import SEQUENCES, prepared_from


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


def naive_co_occurrence(prepared: PreparedData, history: list[int]) -> list[float]:
    """Score by loops, with the popularity that breaks ties left out."""
    parts = training_parts(prepared)
    counts = Counter(item for part in parts for item in part)
    follows: Counter[tuple[int, int]] = Counter()
    for part in parts:
        for place, item in enumerate(part):
            for distance, later in enumerate(part[place + 1 : place + 11], start=1):
                follows[item, later] += 1 / distance  # type: ignore[assignment]
    scores = [0.0] * len(prepared.items)
    for distance, item in enumerate(history[::-1][:10], start=1):
        for other in range(len(scores)):
            scores[other] += follows[item, other] / max(counts[item], 1) / distance
    return scores


def test_co_occurrence_equals_loops(prepared: PreparedData) -> None:
    generator = np.random.default_rng(3)
    histories = [generator.permutation(30)[:length] for length in (1, 2, 5, 10, 11, 25)]
    users, positions = ["u1"] * 6, np.array([len(one) for one in histories])
    scores = CoOccurrence.fit(prepared).score(users, positions, histories)
    naive = [naive_co_occurrence(prepared, one.tolist()) for one in histories]
    np.testing.assert_allclose(scores, naive, rtol=2e-7, atol=1e-12)


def test_co_occurrence_orders_equal_scores_by_popularity(prepared: PreparedData) -> None:
    counts = Counter(item for part in training_parts(prepared) for item in part)
    teacher = CoOccurrence.fit(prepared)
    for last in range(30):
        scores = teacher.score(["u1"], np.array([1]), [np.array([last])])[0]
        rounded = np.float32(naive_co_occurrence(prepared, [last]))
        naive = sorted(range(30), key=lambda item: (-rounded[item], -counts[item], item))
        assert np.argsort(-scores, kind="stable").tolist() == naive


@pytest.mark.parametrize("size", [1e-12, 0.3, 0.5, 0.99999, 1.0, 2.9])
def test_popularity_never_reorders_unequal_scores(size: float) -> None:
    low = np.float32(size)
    rates = [0.0, 0.0, low, low, np.nextafter(low, np.float32(9)), 0.0]
    follows = csr_array(np.array([rates] + [[0.0] * 6] * 5, dtype=np.float64))
    popularity = np.array([0.0, 0.1, 1 - 1e-7, 0.2, 0.0, 1 - 1e-7])
    teacher = CoOccurrence(follows, popularity)
    scores = teacher.score(["u1"], np.array([1]), [np.array([0])])[0]
    assert np.argsort(-scores, kind="stable").tolist() == [4, 2, 3, 5, 1, 0]
    assert len(np.unique(scores)) == 6


def test_co_occurrence_without_a_history_is_popularity(prepared: PreparedData) -> None:
    nothing = [np.array([], dtype=np.int64), np.array([4])]
    scores = CoOccurrence.fit(prepared).score(["u1", "u2"], np.array([0, 1]), nothing)
    popularity = Popularity.fit(prepared).score(["u1"], np.array([0]), nothing[:1])
    np.testing.assert_array_equal(
        np.argsort(-scores[0], kind="stable"), np.argsort(-popularity[0], kind="stable")
    )
    alone = CoOccurrence.fit(prepared).score(["u1"], np.array([0]), nothing[:1])
    # A row of a sparse product adds up the same numbers in the same order, alone or not.
    np.testing.assert_array_equal(alone, scores[:1])


def test_co_occurrence_counts_no_held_out_item(prepared: PreparedData) -> None:
    sequences = prepared.sequences.to_list()
    for row in sequences:
        row["items"][row["train_end"] :] = [29, 28]
    changed = dataclasses.replace(prepared, sequences=Dataset.from_list(sequences, SEQUENCES))
    one, other = CoOccurrence.fit(prepared), CoOccurrence.fit(changed)
    # The same counts, and each a whole number, are divided by the same ones.
    np.testing.assert_array_equal(one.follows.toarray(), other.follows.toarray())
    np.testing.assert_array_equal(one.popularity, other.popularity)


def test_the_order_of_users_changes_no_bit_of_co_occurrence(prepared: PreparedData) -> None:
    shuffled = dataclasses.replace(prepared, sequences=prepared.sequences.shuffle(seed=1))
    one, other = CoOccurrence.fit(prepared), CoOccurrence.fit(shuffled)
    # Whole numbers are added up, so that the order of the users cannot round them otherwise.
    np.testing.assert_array_equal(one.follows.toarray(), other.follows.toarray())


def test_co_occurrence_of_the_shortest_sequences_is_popularity_alone() -> None:
    teacher = CoOccurrence.fit(prepared_from({"a": [0, 1, 2], "b": [0, 2, 1]}, 5))
    scores = teacher.score(["a"], np.array([1]), [np.array([0])])[0]
    assert teacher.follows.nnz == 0
    assert np.argsort(-scores, kind="stable").tolist() == [0, 1, 2, 3, 4]
