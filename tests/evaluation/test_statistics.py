import numpy as np
import pytest

from delrec_hf.evaluation import statistics
from delrec_hf.evaluation.statistics import bootstrap_interval, compare


def test_intervals_cover_the_true_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for number in range(400):
        low, high = bootstrap_interval(generator.random(200) < 0.3, samples=500, seed=number)
        covered += low <= 0.3 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_interval_is_that_of_users_drawn_one_by_one() -> None:
    values = np.random.default_rng(3).exponential(size=150)
    drawn = np.random.default_rng(4).integers(0, 150, (20_000, 150))
    expected = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    np.testing.assert_allclose(bootstrap_interval(values, samples=20_000), expected, atol=0.01)


def test_the_seed_decides_the_interval() -> None:
    values = np.random.default_rng(0).random(50)
    # Exact: the same draws go through the same product.
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_small_chunks_change_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(40)
    whole = bootstrap_interval(values, samples=101)
    monkeypatch.setattr(statistics, "DRAWS_AT_ONCE", 40 * 7)
    # A product over fewer rows may round otherwise; the means are rounded to 12 digits.
    assert bootstrap_interval(values, samples=101) == pytest.approx(whole, rel=0, abs=2e-12)


def test_identical_systems_do_not_differ() -> None:
    values = np.random.default_rng(0).random(60)
    found = compare(values, values)
    # Exact: sums of zeros.
    assert (found.difference, found.ci95, found.p) == (0.0, (0.0, 0.0), 1.0)


def test_a_clear_difference_has_a_small_p_and_an_interval_without_zero() -> None:
    generator = np.random.default_rng(0)
    worse = generator.random(200)
    better = worse + 0.1 + 0.05 * generator.normal(size=200)
    found = compare(better, worse)
    assert found.difference == pytest.approx(0.1, abs=0.02)
    assert 0.08 < found.ci95[0] < found.difference < found.ci95[1] < 0.12
    assert found.p == pytest.approx(2 / 2001)
    turned = compare(worse, better)
    assert turned.difference == pytest.approx(-found.difference, rel=1e-12)
    assert turned.p == found.p


def test_pairs_find_what_separate_intervals_hide() -> None:
    generator = np.random.default_rng(5)
    hard = generator.random(300)
    a, b = hard + 0.01, hard + 0.002 * generator.normal(size=300)
    assert bootstrap_interval(a)[0] < bootstrap_interval(b)[1]
    assert compare(a, b).p < 0.01


def test_p_is_small_by_chance_only_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    small = sum(
        compare(generator.random(100), generator.random(100), samples=400, seed=n).p <= 0.1
        for n in range(300)
    )
    assert 0.05 <= small / 300 <= 0.16


def test_values_that_are_no_mean_of_users_are_refused() -> None:
    for bad in ([], [1.0, float("nan")], [[1.0]]):
        with pytest.raises(ValueError, match="one finite number for each user"):
            bootstrap_interval(bad)
    with pytest.raises(ValueError, match="2 and 3 users"):
        compare([1, 2], [1, 2, 3])
