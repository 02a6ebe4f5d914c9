"""Systems' scores as logits: the scale of each, and the weights under which they fuse."""

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from delrec_hf.ranking.fusion import fit_conditional_logit

FloatArray = npt.NDArray[np.float64]

_SMOOTHINGS = tuple(10.0 ** (power / 2) for power in range(-8, 3))
"""What is added to counts before their logarithm is taken, in multiples of their mean."""


@dataclass(frozen=True)
class Scale:
    """What makes logits out of a system's scores, but for a weight.

    Attributes:
        kind: `raw`: the scores themselves; `log`: their logarithm, for counts.
        smoothing: What is added before the logarithm; 0 where none is taken.
        floor: The score of what the system never recommends: its lowest one where this was fitted.
    """

    kind: Literal["raw", "log"] = "raw"
    smoothing: float = 0.0
    floor: float = 0.0

    def apply(self, scores: npt.ArrayLike) -> FloatArray:
        """Return finite scores on this scale, in the shape of `scores`."""
        given = np.asarray(scores, dtype=np.float64)
        finite: FloatArray = np.where(np.isfinite(given), given, self.floor)
        if self.kind == "log":
            return np.log(np.maximum(finite, 0.0) + self.smoothing)
        return finite


@dataclass(frozen=True)
class Part:
    """One system in a fusion.

    Attributes:
        weight: Its weight.
        ci95: 95 % interval of the weight as it was fitted.
        scale: What the weight multiplies.
    """

    weight: float
    ci95: tuple[float, float]
    scale: Scale


@dataclass(frozen=True)
class Fusion:
    r"""Weighted scores of one system or several, as chances: $p(c) \propto \exp \sum_k w_k s_k(c)$.

    Attributes:
        parts: System name to its part.
    """

    parts: dict[str, Part]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Fusion":
        """Return what `to_dict` made a dictionary of.

        Raises:
            KeyError: If something is missing.
            TypeError: If something is no number, or not known.
        """
        parts = {}
        for name, part in content.items():
            low, high = map(float, part["ci95"])
            parts[name] = Part(float(part["weight"]), (low, high), Scale(**part["scale"]))
        return cls(parts)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return each part's `weight`, `ci95` and `scale`, as JSON holds them."""
        parts = self.parts.items()
        return {name: {**asdict(part), "ci95": list(part.ci95)} for name, part in parts}

    def logits(self, scores: Mapping[str, npt.ArrayLike]) -> FloatArray:
        """Return the weighted sum of the parts' scores, in their shape.

        Args:
            scores: System name to scores, of the parts at least, in one shape.
        """
        total: FloatArray = np.sum(list(self.weighted(scores).values()), axis=0)
        return total

    def weighted(self, scores: Mapping[str, npt.ArrayLike]) -> dict[str, FloatArray]:
        """Return what each part gives to the sum, in the shape of its scores."""
        parts = self.parts.items()
        return {name: part.weight * part.scale.apply(scores[name]) for name, part in parts}

    def log_chances(self, scores: Mapping[str, npt.ArrayLike]) -> FloatArray:
        """Return the log-chance of each candidate, `(users, candidates)` as the scores are."""
        found: FloatArray = log_softmax(self.logits(scores), axis=-1)
        return found


def fit_fusion(scores: Mapping[str, FloatArray], target_places: npt.ArrayLike) -> Fusion:
    """Find scales and weights under which the targets are likeliest among their candidates.

    Scores that are never negative may be counts, whose ratios matter and not their differences:
    they are tried as they are and as logarithms with several smoothings, and the lowest log-loss
    decides. One system whose weight is not above 0 says nothing and gets weight 0. In a fusion of
    several a negative weight stays: it is the likeliest.

    Args:
        scores: System name to `(users, candidates)` scores, one user at least.
        target_places: `(users,)` place of each user's target among the candidates.

    Raises:
        InputError: If there is no user.

    >>> generator = np.random.default_rng(0)
    >>> counts = generator.gamma(0.5, size=(20_000, 5))
    >>> chosen = (np.log(counts) + generator.gumbel(size=counts.shape)).argmax(axis=1)
    >>> part = fit_fusion({"popularity": counts}, chosen).parts["popularity"]
    >>> part.scale.kind, bool(abs(part.weight - 1) < 0.05)
    ('log', True)
    """
    best, lowest = Fusion({}), np.inf
    for scales in itertools.product(*(_scales(found) for found in scores.values())):
        logits = [scale.apply(found) for scale, found in zip(scales, scores.values(), strict=True)]
        fitted = fit_conditional_logit(logits, target_places)
        bounds = [(float(low), float(high)) for low, high in fitted.ci95]
        weights, loss = fitted.weights.tolist(), fitted.log_loss
        if len(scores) == 1 and weights[0] <= 0:
            weights, loss = [0.0], float(np.log(logits[0].shape[1]))
        if loss < lowest:
            parts = zip(weights, bounds, scales, strict=True)
            best = Fusion(dict(zip(scores, itertools.starmap(Part, parts), strict=True)))
            lowest = loss
    return best


def _scales(scores: FloatArray) -> list[Scale]:
    """Return the scales that are tried for a system's scores."""
    finite = scores[np.isfinite(scores)]
    floor = float(finite.min(initial=np.inf)) if finite.size else 0.0
    found = [Scale("raw", floor=floor)]
    if floor >= 0 and finite.any():
        unit = float(finite.mean())
        found += [Scale("log", multiple * unit, floor) for multiple in _SMOOTHINGS]
    return found
