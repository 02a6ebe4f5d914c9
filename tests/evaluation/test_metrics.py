import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import delrec_hf.evaluation
from delrec_hf.evaluation.lists import list_properties, top_lists
from delrec_hf.evaluation.metrics import (
    METRICS,
    expected_hr_at_1,
    metrics_from_ranks,
    per_user_metrics,
    ranks,
)
from delrec_hf.evaluation.relevant_sets import metrics_of_sets

EVALUATION = Path(delrec_hf.evaluation.__file__).parent


def by_hand(row: list[float], place: int) -> dict[str, float]:
    """Every order that breaks the ties differently, ranked one by one and averaged."""
    clean = [score if math.isfinite(score) else -math.inf for score in row]
    columns = range(len(row))
    orders = [
        order
        for order in itertools.permutations(columns)
        if all(clean[a] >= clean[b] for a, b in itertools.pairwise(order))
    ]
    found = dict.fromkeys(METRICS, 0.0)
    for order in orders:
        rank = order.index(place) + 1
        for k in (1, 5, 10):
            found[f"hr@{k}"] += (rank <= k) / len(orders)
        for k in (5, 10):
            found[f"ndcg@{k}"] += (1 / math.log2(rank + 1) if rank <= k else 0.0) / len(orders)
        found["mrr"] += 1 / rank / len(orders)
    return found


def test_metrics_equal_the_mean_over_every_tie_order() -> None:
    generator = np.random.default_rng(1)
    values = np.array([0.0, 1.0, 2.0, np.nan, np.inf, -np.inf])
    scores = values[generator.choice(6, p=[0.3, 0.3, 0.1, 0.1, 0.1, 0.1], size=(40, 7))]
    places = generator.integers(0, 7, 40)
    found = per_user_metrics(scores, places)
    expected = [
        by_hand(row.tolist(), int(place)) for row, place in zip(scores, places, strict=True)
    ]
    assert tuple(found) == METRICS
    for name in METRICS:
        np.testing.assert_allclose(found[name], [one[name] for one in expected], atol=1e-12)


def test_expected_hr_at_1_is_hr_at_1_with_every_candidate_as_the_target_in_turn() -> None:
    generator = np.random.default_rng(2)
    values = np.array([0.0, 1.0, 2.0, np.nan, np.inf, -np.inf])
    scores = values[generator.choice(6, p=[0.3, 0.3, 0.1, 0.1, 0.1, 0.1], size=(40, 6))]
    scores[0] = np.nan
    chances = generator.dirichlet(np.ones(6), size=40)
    expected = [
        sum(chance * by_hand(row, place)["hr@1"] for place, chance in enumerate(chances_of_row))
        for row, chances_of_row in zip(scores.tolist(), chances.tolist(), strict=True)
    ]
    np.testing.assert_allclose(expected_hr_at_1(scores, chances), expected, atol=1e-12)


def test_expected_hr_at_1_estimates_hr_at_1_with_less_noise() -> None:
    generator = np.random.default_rng(3)
    chances = generator.dirichlet(np.full(10, 0.3), size=4000)
    scores = np.log(chances) + generator.normal(size=chances.shape)
    places = np.array([generator.choice(10, p=row) for row in chances])
    measured = per_user_metrics(scores, places)["hr@1"]
    expected = expected_hr_at_1(scores, chances)
    noise = (measured - expected).std() / 4000**0.5
    assert abs(measured.mean() - expected.mean()) < 4 * noise
    assert expected.std() < measured.std() / 1.3


def test_chances_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"chances \(2, 4\)"):
        expected_hr_at_1(np.zeros((2, 3)), np.zeros((2, 4)))
    assert expected_hr_at_1(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0,)


def test_metrics_of_distinct_scores_are_those_of_the_rank() -> None:
    for rank in range(1, 21):
        scores = -np.arange(20.0)[None, :]
        found = {name: value[0] for name, value in per_user_metrics(scores, [rank - 1]).items()}
        # Exact: whole numbers, and one division, which every machine rounds alike.
        assert found["hr@5"] == (rank <= 5)
        assert found["ndcg@10"] == pytest.approx(1 / math.log2(rank + 1) if rank <= 10 else 0)
        assert found["mrr"] == 1 / rank


def test_one_score_for_all_gives_the_chance_of_a_random_order() -> None:
    found = per_user_metrics(np.zeros((3, 20)), [0, 7, 19])
    # Exact, as 1 / 20 and 10 / 20 are one division each.
    assert found["hr@1"].tolist() == [0.05] * 3
    assert found["hr@10"].tolist() == [0.5] * 3


def test_a_target_without_a_finite_score_ranks_last_among_its_like() -> None:
    assert per_user_metrics([[0.0, np.nan, -5.0]], [1])["mrr"][0] == pytest.approx(1 / 3)
    greater, ties = ranks([[0.0, np.nan, np.inf, -np.inf]], [2])
    assert (greater[0], ties[0]) == (1, 3)


def test_whole_catalogue_ranks_need_no_scores() -> None:
    greater, ties = np.array([0, 49_999, 10]), np.array([1, 1, 50_000])
    found = metrics_from_ranks(greater, ties)
    assert found["hr@1"].tolist() == [1.0, 0.0, 0.0]
    assert found["mrr"][1] == 1 / 50_000  # exact: one division
    assert found["mrr"][2] == pytest.approx(np.mean(1 / np.arange(11.0, 50_011.0)))


def test_no_rows_give_no_values() -> None:
    assert all(not values.size for values in per_user_metrics(np.zeros((0, 5)), []).values())


@pytest.mark.parametrize(
    ("scores", "places"),
    [([1.0, 2.0], [0]), ([[1.0, 2.0]], [0, 1]), ([[1.0, 2.0]], [2]), ([[1.0, 2.0]], [-1])],
)
def test_scores_and_places_that_do_not_fit_are_refused(scores: list, places: list) -> None:
    with pytest.raises(ValueError, match="expected"):
        per_user_metrics(scores, places)


def test_counts_below_their_least_are_refused() -> None:
    with pytest.raises(ValueError, match="ties count the target itself"):
        metrics_from_ranks([0], [0])


def loaded(folder: str, tmp_path: Path) -> Any:
    evaluate = pytest.importorskip("evaluate")
    return evaluate.load(str(EVALUATION / folder), cache_dir=str(tmp_path))


def test_evaluate_loads_the_metrics_offline(tmp_path: Path) -> None:
    metric = loaded("ranking_metrics", tmp_path)
    scores = np.random.default_rng(0).integers(0, 4, (30, 8)).astype(float)
    places = np.arange(30) % 8
    found = metric.compute(predictions=scores, references=places)
    expected = per_user_metrics(scores, places)
    assert found == {name: pytest.approx(values.mean()) for name, values in expected.items()}
    relevant = np.zeros(scores.shape, dtype=bool)
    relevant[::2, [1, 5]], relevant[1::2, 2] = True, True
    found = metric.compute(predictions=scores, references=[[1, 5], [2]] * 15)
    expected = metrics_of_sets(scores, relevant)
    assert found == {name: pytest.approx(values.mean()) for name, values in expected.items()}


def test_evaluate_loads_what_lists_are_like_offline(tmp_path: Path) -> None:
    metric = loaded("list_properties", tmp_path)
    scores, items = np.array([[3.0, 2.0, 1.0]] * 2), np.array([[4, 2, 0], [1, 2, 3]])
    facts = {"counts": [5, 4, 3, 2, 0, 1], "num_users": 5, "categories": list("aabbcc")}
    found = metric.compute(predictions=items[:, :2], **facts)
    expected = list_properties(top_lists(scores, items, 2), *facts.values())
    assert found == pytest.approx(expected)
    assert set(found) == {"coverage", "gini", "popularity", "novelty", "diversity"}
