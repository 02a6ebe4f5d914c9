"""What a check found, and whether chance could have made it."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy.special import bdtrc, pdtrc

Severity = Literal["info", "warning", "error"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
"""From the mildest to the worst."""

FAMILY_WISE = 1e-3
"""How likely clean data may raise any alarm at all: a tenth of the 1 % that is promised, because
most of the nulls are exact in mean and variance and only nearly normal."""

TESTS = 50
"""Upper bound on the comparisons with chance in one audit; each has an equal share of the above."""

ALPHA = FAMILY_WISE / TESTS


@dataclass(frozen=True)
class Finding:
    """One fault of the data, or one fact to know.

    Attributes:
        code: What kind of fault, `sorted-by-id`.
        severity: How much it matters: by the size of the effect, chance having been ruled out.
        value: What was measured.
        expected: What it would be without the fault.
        explanation: What this means and how to mend it, in a sentence or two.
    """

    code: str
    severity: Severity
    value: float
    expected: float
    explanation: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        numbers = {"value": _short(self.value), "expected": _short(self.expected)}
        return {**asdict(self), **numbers}

    def __str__(self) -> str:
        return (
            f"{self.code}: {_short(self.value):g} where {_short(self.expected):g} is expected: "
            f"{self.explanation}"
        )


def grade(effect: float, warning: float, error: float = math.inf) -> Severity:
    """Return the severity of an effect that is not chance.

    Args:
        effect: Its size: mostly the share of steps, users or items that it touches.
        warning: From where on it is a warning.
        error: From where on it is an error.

    >>> grade(0.004, 0.01, 0.1), grade(0.04, 0.01, 0.1), grade(0.4, 0.01, 0.1)
    ('info', 'warning', 'error')
    """
    return "error" if effect >= error else "warning" if effect >= warning else "info"


def normal_tail(excess: float, variance: float) -> float:
    """Return the chance that a normal variable is so far above its mean or more, 1 at it.

    >>> round(normal_tail(1.96, 1.0), 3)
    0.025
    """
    if variance <= 0:
        return 1.0
    return 0.5 * math.erfc(excess / math.sqrt(2 * variance))


def poisson_tail(count: int, mean: float) -> float:
    """Return the chance that a Poisson variable is `count` or more.

    >>> round(poisson_tail(1, 0.1), 3), poisson_tail(0, 0.1), poisson_tail(1, 0.0)
    (0.095, 1.0, 0.0)
    """
    return 1.0 if count < 1 else float(pdtrc(count - 1, max(mean, 0.0)))


def binomial_tail(count: int, trials: int, share: float) -> float:
    """Return the chance that so many of the trials or more succeed.

    >>> round(binomial_tail(2, 2, 0.1), 3)
    0.01
    """
    return 1.0 if count < 1 else float(bdtrc(count - 1, trials, share))


def _short(number: float) -> float:
    return round(float(number), 4) if abs(number) < 1e6 else float(number)
