"""The tournament over a whole catalogue finds the best without one prompt for all."""

import numpy as np
import numpy.typing as npt
import pytest

from delrec_hf.ranking.catalogue import tournament

FloatArray = npt.NDArray[np.float64]


class _ByValue:
    """Scores that do not depend on the company; keeps the groups it was shown."""

    def __init__(self, number: int) -> None:
        self.value = np.random.default_rng(1).normal(size=number)
        self.groups: list[list[int]] = []

    def __call__(self, groups: list[list[int]]) -> list[FloatArray]:
        self.groups += groups
        return [self.value[group] for group in groups]


@pytest.mark.parametrize("number", [1, 2, 3, 19, 20, 21, 100, 777])
@pytest.mark.parametrize("group_size", [2, 3, 20])
def test_the_first_half_group_is_that_of_one_comparison_of_all(
    number: int, group_size: int
) -> None:
    scores = _ByValue(number)
    exact = max(1, group_size // 2)
    found = tournament(range(number), group_size, exact, scores)
    expected = np.argsort(-scores.value)[:exact]
    assert [item for item, _ in found] == expected.tolist()
    assert [score for _, score in found] == scores.value[expected].tolist()


@pytest.mark.parametrize("group_size", [2, 20])
def test_everything_is_ranked_once_and_no_prompt_is_too_long(group_size: int) -> None:
    scores = _ByValue(333)
    found = tournament(range(333), group_size, 1000, scores)
    assert sorted(item for item, _ in found) == list(range(333))
    assert max(map(len, scores.groups)) <= group_size


def test_the_order_of_the_catalogue_and_the_seed_do_not_change_the_best() -> None:
    scores = _ByValue(200)
    expected = tournament(range(200), 20, 10, scores)
    assert tournament(range(199, -1, -1), 20, 10, scores, seed=5) == expected


def test_what_fits_one_prompt_stands_there_in_the_given_order() -> None:
    shown: list[list[list[int]]] = []

    def score(groups: list[list[int]]) -> list[np.ndarray]:
        shown.append(groups)
        return [np.arange(len(group), dtype=float) for group in groups]

    assert [item for item, _ in tournament([7, 3, 9], 4, 3, score)] == [9, 3, 7]
    assert shown == [[[7, 3, 9]]]
