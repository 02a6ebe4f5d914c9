import numpy as np
import pytest
from scipy import stats

from delrec_hf.evaluation.statistics import estimate, holm


def crossed(
    generator: np.random.Generator, studies: int, seeds: int, users: int, *spread: float
) -> np.ndarray:
    """Studies whose true mean is 0: what varies with the seed, with the user, and with both."""
    shapes = ((studies, seeds, 1), (studies, 1, users), (studies, seeds, users))
    return sum(
        sd * generator.standard_normal(shape) for sd, shape in zip(spread, shapes, strict=True)
    )


def test_one_training_has_the_t_interval_and_test_over_users() -> None:
    values = np.random.default_rng(3).exponential(size=150) - 0.8
    found = estimate(values)
    theirs = stats.ttest_1samp(values, 0.0)
    np.testing.assert_allclose(found.interval(), theirs.confidence_interval(), rtol=1e-12)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert (found.seeds, found.users, found.freedom) == (1, 150, 149)


def test_the_error_is_welchs_of_the_seeds_means_and_the_users_means() -> None:
    values = np.random.default_rng(0).normal(size=(4, 30))
    found = estimate(values)
    # A two-sample test of means that are as far apart as their sum is from 0.
    theirs = stats.ttest_ind(values.mean(axis=0), -values.mean(axis=1), equal_var=False)
    assert found.mean / found.error == pytest.approx(theirs.statistic / 2, rel=1e-9)
    assert found.freedom == pytest.approx(theirs.df, rel=1e-9)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "spread", [(0.0, 0.4, 0.2), (0.014, 0.4, 0.2), (0.014, 0.1, 0.25), (0.04, 0.11, 0.47)]
)
def test_intervals_hold_the_truth_in_90_to_99_of_100_studies(
    seeds: int, spread: tuple[float, ...]
) -> None:
    studies = crossed(np.random.default_rng(0), 500, seeds, 100, *spread)
    bounds = np.array([estimate(one).interval() for one in studies])
    held = ((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)).mean()
    assert 0.90 <= held <= 0.99


def test_users_alone_hide_the_noise_of_trainings() -> None:
    studies = crossed(np.random.default_rng(1), 300, 3, 400, 0.04, 0.1, 0.3)
    of_users = [estimate(one.mean(axis=0)).p < 0.05 for one in studies]
    of_both = [estimate(one).p < 0.05 for one in studies]
    assert np.mean(of_users) > 0.3
    assert np.mean(of_both) < 0.1


def test_what_a_study_can_show_it_shows_in_80_of_100() -> None:
    studies = crossed(np.random.default_rng(2), 400, 5, 100, 0.02, 0.3, 0.2)
    least = np.median([estimate(one).detectable() for one in studies])
    assert np.mean([estimate(one + least).p < 0.05 for one in studies]) == pytest.approx(
        0.8, abs=0.08
    )


def test_pairs_find_what_separate_intervals_hide() -> None:
    generator = np.random.default_rng(5)
    hard = generator.random(300)
    a, b = hard + 0.01, hard + 0.002 * generator.normal(size=300)
    assert estimate(a).interval()[0] < estimate(b).interval()[1]
    assert estimate(a - b).p < 0.01
    assert estimate(b - a).p == pytest.approx(estimate(a - b).p)


def test_identical_systems_do_not_differ() -> None:
    values = np.random.default_rng(0).random((3, 60))
    found = estimate((values + 0.1) - 0.1 - values)  # rounding noise is no difference
    assert (found.mean, found.interval(), found.p, found.detectable()) == (
        0.0,
        (0.0, 0.0),
        1.0,
        0.0,
    )


def test_systems_that_no_seed_changes_have_the_interval_of_one_training() -> None:
    values = np.random.default_rng(0).random(60)
    alone, thrice = estimate(values), estimate(np.tile(values, (3, 1)))
    assert thrice.interval() == pytest.approx(alone.interval(), rel=1e-9)
    assert thrice.p == pytest.approx(alone.p)


def test_holm_refuses_at_each_step_what_his_procedure_refuses() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        p = generator.random(7) ** 3
        corrected = np.array(holm(p.tolist()))
        refused = np.zeros(7, dtype=bool)
        for step, place in enumerate(np.argsort(p)):
            if p[place] >= 0.05 / (7 - step):
                break
            refused[place] = True
        assert ((corrected < 0.05) == refused).all()
    assert holm([]) == []


def test_values_that_are_no_mean_of_users_are_refused() -> None:
    for bad in ([], [1.0], [1.0, float("nan")], [[[1.0, 2.0]]]):
        with pytest.raises(ValueError, match="one finite number for each user"):
            estimate(bad)
