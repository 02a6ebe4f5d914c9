"""Order sensitivity of rankers whose answer is known."""

import numpy as np
import pytest
from datasets import Dataset

from delrec_hf.evaluation.order import order_sensitivity


@pytest.fixture
def examples() -> Dataset:
    generator = np.random.default_rng(0)
    offered = [generator.permutation(50)[:8].tolist() for _ in range(400)]
    return Dataset.from_dict({"user_id": [f"u{k}" for k in range(400)], "candidates": offered})


def test_a_ranker_of_items_does_not_change(examples: Dataset) -> None:
    def by_item(rows: Dataset) -> np.ndarray:
        return np.array(rows["candidates"][:], dtype=float)

    assert order_sensitivity(by_item, examples, 5, seed=0) == 0


def test_a_ranker_of_places_changes_but_where_chance_puts_the_same_item_there(
    examples: Dataset,
) -> None:
    def by_place(rows: Dataset) -> np.ndarray:
        return np.tile(np.arange(8.0), (len(rows), 1))

    assert order_sensitivity(by_place, examples, 5, seed=0) == pytest.approx(7 / 8, abs=0.02)


def test_the_examples_keep_their_candidates(examples: Dataset) -> None:
    seen: list[list[list[int]]] = []

    def note(rows: Dataset) -> np.ndarray:
        seen.append(rows["candidates"][:])
        return np.zeros((len(rows), 8))

    order_sensitivity(note, examples, 3, seed=1)
    assert len(seen) == 4
    assert seen[0] == examples["candidates"][:]
    for listed in seen[1:]:
        assert listed != seen[0]
        assert list(map(sorted, listed)) == list(map(sorted, seen[0]))
