"""The tournament over a whole catalogue finds the best without one prompt for all."""

import numpy as np
import numpy.typing as npt
import pytest

from delrec_hf.ranking.catalogue import tournaments

FloatArray = npt.NDArray[np.float64]


class _ByValue:
    """Scores that do not depend on the company; keeps the groups it was shown."""

    def __init__(self, number: int) -> None:
        self.value = np.random.default_rng(1).normal(size=number)
        self.groups: list[list[int]] = []

    def __call__(self, asked: list[tuple[int, list[int]]]) -> list[FloatArray]:
        self.groups += [group for _, group in asked]
        return [self.value[group] for _, group in asked]


@pytest.mark.parametrize("number", [1, 2, 3, 19, 20, 21, 100, 777])
@pytest.mark.parametrize("group_size", [2, 3, 20])
def test_the_first_half_group_is_that_of_one_comparison_of_all(
    number: int, group_size: int
) -> None:
    scores = _ByValue(number)
    exact = max(1, group_size // 2)
    found = tournaments([range(number)], group_size, scores)[0][:exact]
    expected = np.argsort(-scores.value)[:exact]
    assert [item for item, _ in found] == expected.tolist()
    assert [score for _, score in found] == scores.value[expected].tolist()


@pytest.mark.parametrize("group_size", [2, 20])
def test_everything_is_ranked_once_and_no_prompt_is_too_long(group_size: int) -> None:
    scores = _ByValue(333)
    (found,) = tournaments([range(333)], group_size, scores)
    assert sorted(item for item, _ in found) == list(range(333))
    assert max(map(len, scores.groups)) <= group_size


def test_the_order_of_the_catalogue_and_the_seed_do_not_change_the_best() -> None:
    scores = _ByValue(200)
    expected = tournaments([range(200)], 20, scores)[0][:10]
    assert tournaments([range(199, -1, -1)], 20, scores, seed=5)[0][:10] == expected


def test_what_fits_one_prompt_stands_there_in_the_given_order() -> None:
    shown: list[list[int]] = []

    def score(asked: list[tuple[int, list[int]]]) -> list[FloatArray]:
        shown.extend(group for _, group in asked)
        return [np.arange(len(group), dtype=float) for _, group in asked]

    (found,) = tournaments([[7, 3, 9]], 4, score)
    assert [item for item, _ in found] == [9, 3, 7]
    assert shown == [[7, 3, 9]]


def test_lists_side_by_side_take_one_call_a_round_and_come_to_what_each_comes_to_alone() -> None:
    scores = _ByValue(200)
    offers = [range(150), [7], range(60, 90), range(199, 100, -1)]
    alone = [tournaments([one], 10, scores)[0] for one in offers]
    rounds: list[set[int]] = []

    def score(asked: list[tuple[int, list[int]]]) -> list[FloatArray]:
        rounds.append({place for place, _ in asked})
        return scores(asked)

    assert tournaments(offers, 10, score) == alone
    assert [len(one) for one in rounds] == [4, 3, 3, 2, 2]
