"""A conditional logit over systems' scores: what weighs them together, or one of them alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from delrec_hf.errors import InputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class ConditionalLogit:
    r"""Weights that turn scores into chances: $p(c) \propto \exp(\sum_k w_k s_k(c))$.

    With one system, its weight is the inverse temperature that makes its scores a distribution
    over the candidates.

    Attributes:
        weights: `(systems,)`.
        covariance: `(systems, systems)` of the weights, the inverse of the Hessian at the fit.
        log_loss: Mean negative log-chance of the targets that it was fitted on, in nats.
    """

    weights: FloatArray
    covariance: FloatArray
    log_loss: float

    @property
    def ci95(self) -> FloatArray:
        """`(systems, 2)` 95 % intervals of the weights, from their covariance."""
        reach = _NORMAL_95 * np.sqrt(np.diag(self.covariance))
        return np.stack([self.weights - reach, self.weights + reach], axis=1)

    def fuse(self, scores: Sequence[FloatArray]) -> FloatArray:
        """Return the log-chance of each candidate, `(users, candidates)`.

        Args:
            scores: Each system's scores, `(users, candidates)`, in the order of the weights.
        """
        fused: FloatArray = log_softmax(np.stack(scores, axis=-1) @ self.weights, axis=1)
        return fused


def fit_conditional_logit(
    scores: Sequence[FloatArray], target_places: npt.ArrayLike
) -> ConditionalLogit:
    """Find the weights under which the targets are likeliest among their candidates.

    The loss is convex, so that L-BFGS finds its one minimum. Scores are centred per user, which
    changes nothing, and scaled to one spread while it searches. A system that says nothing, or the
    same as another one, is kept near weight 0 by a ridge too weak to be seen elsewhere.

    Args:
        scores: Each system's scores, `(users, candidates)` finite, higher is better.
        target_places: `(users,)` place of each user's target among the candidates.

    Raises:
        InputError: If there is no user, or a score is not finite.

    >>> generator = np.random.default_rng(0)
    >>> logits = generator.normal(size=(20_000, 5))
    >>> targets = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    >>> bool(abs(fit_conditional_logit([4 * logits], targets).weights[0] - 0.25) < 0.01)
    True
    """
    features = np.stack([np.asarray(one, dtype=np.float64) for one in scores], axis=-1)
    places = np.asarray(target_places, dtype=np.int64)
    if not features.size or not np.isfinite(features).all():
        raise InputError(
            f"scores of the shape {features.shape} cannot be weighed: expected one finite score "
            "for each user, candidate and system, and one user at least"
        )
    features = features - features.mean(axis=1, keepdims=True)
    spread = features.std(axis=(0, 1))
    spread[spread == 0] = 1.0
    features /= spread
    users = len(features)
    chosen = features[np.arange(users), places]
    ridge = 1e-6

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        logits = features @ weights
        chances = softmax(logits, axis=1)
        fit = -log_softmax(logits, axis=1)[np.arange(users), places].mean()
        gradient = np.einsum("uc,ucs->s", chances, features) / users - chosen.mean(axis=0)
        return fit + ridge * float(weights @ weights) / 2, gradient + ridge * weights

    size = features.shape[-1]
    found = minimize(
        loss, np.zeros(size), jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}
    ).x
    logits = features @ found
    chances = softmax(logits, axis=1)
    expected = np.einsum("uc,ucs->us", chances, features)
    second = np.einsum("uc,ucs,uct->st", chances, features, features)
    hessian = second - expected.T @ expected + users * ridge * np.eye(size)
    return ConditionalLogit(
        weights=found / spread,
        covariance=np.linalg.inv(hessian) / np.outer(spread, spread),
        log_loss=float(-log_softmax(logits, axis=1)[np.arange(users), places].mean()),
    )
