"""Intervals and paired comparisons by bootstrap over users."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

DRAWS_AT_ONCE = 4_000_000
"""32 MB: what bounds the memory of the bootstrap."""


@dataclass(frozen=True)
class Comparison:
    """How two systems differ over the same users.

    Attributes:
        difference: Mean of the first minus mean of the second.
        ci95: 95 % interval of the difference.
        p: Two-sided p-value of "no difference".
    """

    difference: float
    ci95: tuple[float, float]
    p: float


def bootstrap_interval(
    values: npt.ArrayLike, *, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a mean over users.

    Users are drawn with replacement, as many as there are, `samples` times; the interval goes from
    the 2.5 % to the 97.5 % quantile of the means.

    Args:
        values: `(users,)` one metric's value for each user.
        samples: How many times the users are drawn.
        seed: Decides the draws.

    Raises:
        ValueError: If there is no value, or one is not finite.

    >>> bootstrap_interval([1.0, 1.0, 1.0])
    (1.0, 1.0)
    >>> low, high = bootstrap_interval([0.0, 1.0] * 50)
    >>> 0.38 < low < 0.42 and 0.58 < high < 0.62
    True
    """
    return _percentiles(_bootstrap_means(_checked(values), samples, seed))


def compare(
    a: npt.ArrayLike, b: npt.ArrayLike, *, samples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two systems over the same users, user by user.

    With d the per-user differences and d* the mean of a bootstrap sample of them,
    `p = min(1, 2 * (1 + min(#{d* <= 0}, #{d* >= 0})) / (1 + samples))`: the smallest level at which
    the percentile interval leaves 0 out, never 0 itself.

    Args:
        a: `(users,)` one metric's value for each user under the first system.
        b: `(users,)` the same users, in the same order, under the second.
        samples: How many times the users are drawn.
        seed: Decides the draws.

    Raises:
        ValueError: If the two do not hold the same number of users, there is none, or a value is
            not finite.

    >>> compare([1.0, 0.0], [1.0, 0.0])
    Comparison(difference=0.0, ci95=(0.0, 0.0), p=1.0)
    """
    first, second = _checked(a), _checked(b)
    if first.shape != second.shape:
        raise ValueError(
            f"the systems hold {first.size} and {second.size} users; a paired comparison needs "
            "the same users under both"
        )
    differences = first - second
    means = _bootstrap_means(differences, samples, seed)
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (1 + beyond) / (1 + samples))
    return Comparison(float(differences.mean()), _percentiles(means), p)


def _bootstrap_means(values: FloatArray, samples: int, seed: int) -> FloatArray:
    """Return the means of `samples` draws of the users with replacement.

    A mean depends only on how often each distinct value is drawn, and those counts are multinomial.
    A metric has few distinct values, so this costs less than drawing users one by one, as
    `scipy.stats.bootstrap` does. The 102 intervals of nine systems and their comparisons take 0.9
    CPU seconds for 6,040 users as for 100,000, there 5.4 and 103; nor does it take a single user.
    """
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    chances = counts / values.size
    chunk = max(1, DRAWS_AT_ONCE // distinct.size)
    parts = [
        generator.multinomial(values.size, chances, size=min(chunk, samples - start)) @ distinct
        for start in range(0, samples, chunk)
    ]
    # Rounding noise of the sums must not decide on which side of 0 a difference lies.
    means: FloatArray = np.round(np.concatenate(parts) / values.size, 12)
    return means


def _percentiles(means: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _checked(values: npt.ArrayLike) -> FloatArray:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise ValueError(
            f"values have the shape {found.shape}; expected one finite number for each user, and "
            "at least one user"
        )
    return found
