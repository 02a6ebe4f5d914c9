"""Intervals, tests and power of means over users and, where there are several, over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

FloatArray = npt.NDArray[np.float64]

_NOISE = 1e-12
"""Below this a difference is the rounding noise of sums, and 0."""


@dataclass(frozen=True)
class Estimate:
    r"""A mean over users, or over seeds and users, and how well it is known.

    With $s_S^2$ the variance of the S seeds' means and $s_U^2$ that of the U users' means, the mean
    of a metric that varies with the seed, with the user and with both together has the error

    $\mathrm{SE} = \sqrt{s_S^2 / S + s_U^2 / U}, \qquad
    \nu = \mathrm{SE}^4 / \left(\frac{(s_S^2/S)^2}{S-1} + \frac{(s_U^2/U)^2}{U-1}\right)$

    and Student's t with $\nu$ degrees of freedom (Welch and Satterthwaite). What varies with both
    is counted twice, which errs on the safe side, as Owen's bootstrap of rows and columns does
    (2007). One seed leaves $s_U^2 / U$ and U - 1: the t interval over users.

    Attributes:
        mean: Over all seeds and users.
        error: Its standard error.
        freedom: Degrees of freedom, 1 or more.
        seeds: How many seeds there are.
        users: How many users.
    """

    mean: float
    error: float
    freedom: float
    seeds: int
    users: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval that holds the true mean in so many of 100 studies."""
        reach = self.error * float(student.ppf((1 + level) / 2, self.freedom))
        return self.mean - reach, self.mean + reach

    @property
    def p(self) -> float:
        """Two-sided p-value of a true mean of 0."""
        if not self.error:
            return 0.0 if self.mean else 1.0
        return float(2 * student.sf(abs(self.mean) / self.error, self.freedom))

    def detectable(self, power: float = 0.8, level: float = 0.05) -> float:
        """Return the least true mean that a study of this size shows.

        Args:
            power: How often it is to be shown.
            level: Of the two-sided test of 0.
        """
        quantiles = [float(student.ppf(one, self.freedom)) for one in (1 - level / 2, power)]
        return self.error * sum(quantiles)


def estimate(values: npt.ArrayLike) -> Estimate:
    """Return the mean of a metric, or of the difference of two systems, and how well it is known.

    Args:
        values: `(users,)` or `(seeds, users)`, the same users under each seed.

    Raises:
        ValueError: If there are fewer than two users, or a value is not finite.

    >>> found = estimate([0.0, 1.0] * 50)
    >>> tuple(round(bound, 3) for bound in found.interval())
    (0.4, 0.6)
    >>> estimate([[0.0, 1.0] * 50, [0.2, 0.8] * 50, [0.1, 1.2] * 50]).freedom < 20
    True
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError(
            f"values have the shape {np.shape(values)}; expected one finite number for each user "
            "and, in rows, each seed, and at least two users"
        )
    parts = [_variance_of_mean(table.mean(axis=0))]
    if len(table) > 1:
        parts.append(_variance_of_mean(table.mean(axis=1)))
    variance = sum(part for part, _ in parts)
    freedom = table.shape[1] - 1.0
    if variance:
        freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    mean = float(table.mean())
    return Estimate(
        0.0 if abs(mean) < _NOISE else mean, float(variance**0.5), float(freedom), *table.shape
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are (Holm, 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is smaller than one
    before it, nor above 1. Below .05 each, they are wrong in no more than 5 of 100 studies.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * factors)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(stepped, 1.0)
    found: list[float] = corrected.tolist()
    return found


def _variance_of_mean(values: FloatArray) -> tuple[float, int]:
    """Return the variance of a mean of these, and its degrees of freedom."""
    variance = float(values.var(ddof=1)) / len(values)
    return (variance if variance > _NOISE**2 else 0.0), len(values) - 1
