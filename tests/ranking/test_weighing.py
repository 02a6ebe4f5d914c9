"""Scales and weights of fusions against chances that are known."""

import json

import numpy as np
import pytest
from scipy.special import log_softmax

from delrec_hf.ranking.weighing import Fusion, Part, Scale, fit_fusion

USERS, CANDIDATES = 4000, 8


def drawn(logits: np.ndarray, seed: int = 1) -> np.ndarray:
    """Targets drawn by their true logits."""
    noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    return (logits + noise).argmax(axis=1)


def loss(fusion: Fusion, scores: dict[str, np.ndarray], targets: np.ndarray) -> float:
    return -fusion.log_chances(scores)[np.arange(len(targets)), targets].mean()


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).poisson(3.0, size=(USERS, CANDIDATES)).astype(float)


def test_counts_whose_ratios_matter_are_taken_as_logarithms(counts: np.ndarray) -> None:
    targets = drawn(np.log(counts + 0.3))
    found = fit_fusion({"popularity": counts}, targets)
    part = found.parts["popularity"]
    assert part.scale.kind == "log"
    assert part.weight == pytest.approx(1.0, abs=0.1)
    assert part.scale.smoothing == pytest.approx(0.3, abs=0.1)
    truth = -log_softmax(np.log(counts + 0.3), axis=1)[np.arange(USERS), targets].mean()
    assert loss(found, {"popularity": counts}, targets) == pytest.approx(truth, abs=1e-3)


def test_counts_whose_squares_matter_stay_as_they_are(counts: np.ndarray) -> None:
    part = fit_fusion({"markov": counts**2}, drawn(0.1 * counts**2)).parts["markov"]
    assert part.scale == Scale("raw", floor=0.0)
    assert part.ci95[0] < 0.1 < part.ci95[1]


def test_scores_that_can_be_negative_are_logits(counts: np.ndarray) -> None:
    centred = counts - 3
    part = fit_fusion({"zero-shot": centred}, drawn(np.log(counts + 0.3))).parts["zero-shot"]
    assert part.scale.kind == "raw"


def test_one_system_that_is_wrong_gets_weight_zero(counts: np.ndarray) -> None:
    found = fit_fusion({"wrong": counts}, drawn(-counts))
    assert found.parts["wrong"].weight == 0
    assert found.parts["wrong"].ci95[1] < 0
    assert np.allclose(found.log_chances({"wrong": counts}), -np.log(CANDIDATES))


def test_a_negative_weight_in_a_fusion_is_kept() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, USERS, CANDIDATES))
    found = fit_fusion({"first": first, "second": second}, drawn(first - 0.5 * second))
    assert found.parts["first"].weight == pytest.approx(1.0, abs=0.1)
    assert found.parts["second"].weight == pytest.approx(-0.5, abs=0.1)


def test_a_part_keeps_the_scale_that_suits_the_fusion(counts: np.ndarray) -> None:
    logits = np.random.default_rng(2).normal(size=counts.shape)
    parts = {"lm": logits, "popularity": counts}
    targets = drawn(logits + np.log(counts + 0.3))
    found = fit_fusion(parts, targets)
    assert found.parts["lm"].scale.kind == "raw"
    assert found.parts["popularity"].scale.kind == "log"
    for name, scores in parts.items():
        assert loss(found, parts, targets) < loss(
            fit_fusion({name: scores}, targets), parts, targets
        )


def test_what_is_never_recommended_stands_level_with_the_lowest_score() -> None:
    scores = np.array([[0.5, -np.inf, -2.0], [np.nan, 1.0, 0.0], [3.0, 2.0, -np.inf]])
    found = fit_fusion({"teacher": scores}, np.array([0, 1, 0]))
    assert found.parts["teacher"].scale == Scale("raw", floor=-2.0)
    whole = np.where(np.isfinite(scores), scores, -2.0)
    assert np.array_equal(found.logits({"teacher": scores}), found.logits({"teacher": whole}))
    # Where it is applied, a score may lie below every one that it was fitted on.
    assert np.isfinite(Scale("log", 0.1, 0.0).apply([-5.0, 0.0, -np.inf])).all()


def test_a_fusion_comes_back_from_json() -> None:
    part = Part(0.5, (0.25, 0.75), Scale("log", 0.1, 0.0))
    fusion = Fusion({"delrec": Part(1.0, (0.5, 1.5), Scale()), "teacher": part})
    assert Fusion.from_dict(json.loads(json.dumps(fusion.to_dict()))) == fusion
