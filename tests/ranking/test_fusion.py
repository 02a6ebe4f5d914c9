"""The conditional logit against its definition, and against weights that are known."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import log_softmax

from delrec_hf.errors import InputError
from delrec_hf.ranking.fusion import fit_conditional_logit


def drawn(users, candidates, weights, seed=0):
    """Scores of several systems, and targets drawn by their true weights."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(len(weights), users, candidates))
    logits = np.tensordot(weights, scores, axes=1)
    targets = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    return list(scores), targets


def test_weights_that_made_the_targets_are_found():
    scores, targets = drawn(20_000, 10, [1.5, 0.0, -0.4])
    fitted = fit_conditional_logit(scores, targets)
    assert np.allclose(fitted.weights, [1.5, 0.0, -0.4], atol=0.03)
    assert (fitted.ci95[:, 0] <= [1.5, 0.0, -0.4]).all()
    assert (fitted.ci95[:, 1] >= [1.5, 0.0, -0.4]).all()


def test_the_fit_is_the_minimum_of_the_log_loss():
    scores, targets = drawn(500, 8, [0.7, 0.3], seed=1)

    def log_loss(weights):
        logits = np.tensordot(weights, scores, axes=1)
        return -log_softmax(logits, axis=1)[np.arange(500), targets].mean()

    fitted = fit_conditional_logit(scores, targets)
    assert fitted.log_loss == pytest.approx(log_loss(fitted.weights), abs=1e-12)
    assert np.abs(approx_fprime(fitted.weights, log_loss, 1e-6)).max() < 1e-4


def test_intervals_hold_the_truth_as_often_as_they_say():
    inside = []
    for seed in range(200):
        scores, targets = drawn(300, 6, [1.0], seed=seed)
        (low, high) = fit_conditional_logit(scores, targets).ci95[0]
        inside.append(low <= 1.0 <= high)
    assert 0.9 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_of_the_scores_and_what_is_added_per_user_change_nothing(scale):
    (one,), targets = drawn(400, 10, [1.0])
    plain = fit_conditional_logit([one], targets)
    other = fit_conditional_logit([scale * (one + np.arange(400)[:, None])], targets)
    assert other.weights[0] * scale == pytest.approx(plain.weights[0], rel=1e-4)
    assert np.allclose(other.fuse([scale * one]), plain.fuse([one]), atol=1e-4)


def test_a_system_that_says_nothing_or_the_same_twice_breaks_nothing():
    (one,), targets = drawn(400, 10, [1.0])
    alone = fit_conditional_logit([one], targets)
    silent = fit_conditional_logit([one, np.zeros_like(one)], targets)
    assert silent.weights == pytest.approx([alone.weights[0], 0.0], abs=1e-5)
    twice = fit_conditional_logit([one, one], targets)
    assert twice.weights.sum() == pytest.approx(alone.weights[0], abs=1e-4)
    assert twice.log_loss == pytest.approx(alone.log_loss, abs=1e-8)


def test_fused_scores_are_log_chances():
    scores, targets = drawn(50, 6, [1.0, 0.5])
    fused = fit_conditional_logit(scores, targets).fuse(scores)
    assert np.allclose(np.exp(fused).sum(axis=1), 1)


@pytest.mark.parametrize("bad", [np.full((3, 4), np.nan), np.empty((0, 4))])
def test_scores_that_cannot_be_weighed_are_refused(bad):
    with pytest.raises(InputError, match="cannot be weighed"):
        fit_conditional_logit([bad], np.zeros(len(bad), dtype=int))
