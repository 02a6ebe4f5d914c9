"""The teacher's distribution over candidates, against its scores by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from datasets import Dataset
from scipy.special import softmax

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.teachers.histories import IntArray
from delrec_hf.teachers.labels import teacher_chances
from delrec_hf.teachers.teacher import FloatArray
from tests.teachers.prepared_data import prepared_from

NUM_ITEMS = 12


class ByPosition:
    """Scores item i at position p as (3 i + p) mod 7, and never item 11."""

    def score(
        self, user_ids: Sequence[str], positions: IntArray, histories: Sequence[IntArray]
    ) -> FloatArray:
        scores = (3.0 * np.arange(NUM_ITEMS)[None, :] + positions[:, None]) % 7
        scores[:, 11] = -np.inf
        return scores


@pytest.fixture
def prepared() -> PreparedData:
    return prepared_from({"a": [0, 1, 2, 3, 4], "b": [4, 3, 2, 1, 0]}, NUM_ITEMS)


def rows(candidates: list[list[int]]) -> Dataset:
    return Dataset.from_dict(
        {
            "user_id": ["b", "a"][: len(candidates)],
            "position": [2, 1][: len(candidates)],
            "candidates": [[f"i{item}" for item in offered] for offered in candidates],
        }
    )


def test_chances_are_the_softmax_of_the_scores_in_the_candidates_order(
    prepared: PreparedData,
) -> None:
    offered = [[7, 5, 9], [10, 6, 8, 5]]
    found = teacher_chances(ByPosition(), prepared, rows(offered), 2.0)
    for chances, items, position in zip(found, offered, (2, 1), strict=True):
        expected = softmax(((3.0 * np.array(items) + position) % 7) / 2.0)
        np.testing.assert_allclose(chances, expected, rtol=1e-12)


def test_what_the_teacher_never_recommends_has_no_chance(prepared: PreparedData) -> None:
    (chances,) = teacher_chances(ByPosition(), prepared, rows([[11, 5, 6]]), 1.0)
    assert chances[0] == 0
    assert chances.sum() == pytest.approx(1)


def test_candidates_that_it_scores_none_of_are_refused(prepared: PreparedData) -> None:
    with pytest.raises(InputError, match="rps_labels: first"):
        teacher_chances(ByPosition(), prepared, rows([[11]]), 1.0)
