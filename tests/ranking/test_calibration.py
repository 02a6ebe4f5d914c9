"""What `calibrate` measures, against scores and fits taken by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState
from datasets import Dataset

from delrec_hf.errors import InputError
from delrec_hf.ranking.calibration import Calibration, calibrate
from delrec_hf.ranking.fusion import fit_conditional_logit
from delrec_hf.ranking.scoring import CandidateScorer

EMPTY = [1, 5, 6, 7]


@pytest.fixture
def rows() -> Dataset:
    generator = np.random.default_rng(0)
    titles = [generator.integers(10, 300, 1 + k % 4).tolist() for k in range(40)]
    drawn = [generator.permutation(40)[:6].tolist() for _ in range(30)]
    return Dataset.from_dict(
        {
            "prompt_ids": [generator.integers(10, 300, 8).tolist() for _ in drawn],
            "candidate_ids": [[titles[k] for k in one] for one in drawn],
            "target_place": generator.integers(0, 6, 30).tolist(),
        }
    )


@pytest.fixture
def measured(tiny: Callable[..., Any], rows: Dataset) -> tuple[Calibration, Any, list[list[int]]]:
    backbone = tiny("llama")
    answers = sorted({tuple(ids) for offered in rows["candidate_ids"] for ids in offered})
    listed = [list(ids) for ids in answers]
    return calibrate(backbone, EMPTY, listed, rows, PartialState()), backbone, listed


def test_priors_are_the_titles_log_probabilities_behind_the_empty_prompt(
    measured: tuple[Calibration, Any, list[list[int]]],
) -> None:
    calibration, backbone, answers = measured
    expected = CandidateScorer(backbone).score([EMPTY] * len(answers), [[one] for one in answers])
    np.testing.assert_allclose(calibration.log_priors, np.concatenate(expected), atol=1e-4)


def test_each_kind_of_score_is_as_likely_as_its_temperature_makes_it(
    measured: tuple[Calibration, Any, list[list[int]]], rows: Dataset
) -> None:
    calibration, backbone, answers = measured
    places = np.array(rows["target_place"])
    for kind, fit in calibration.fits.items():
        scorer = CandidateScorer(backbone, None, calibration.scoring(kind, answers))
        scores = np.array(scorer.score(rows["prompt_ids"][:], rows["candidate_ids"][:]))
        fitted = fit_conditional_logit([scores], places)
        assert fit.log_loss == pytest.approx(fitted.log_loss, abs=1e-6)
        assert fit.hr_at_1 == pytest.approx((scores.argmax(axis=1) == places).mean())
        spread = scores.std(axis=1).mean()
        says_something = fitted.weights[0] * spread > 0.1
        expected = 1 / fitted.weights[0] if says_something else spread
        assert fit.temperature == pytest.approx(expected, rel=1e-3)
        assert 0 <= fit.weight <= 2
    assert calibration.fits["calibrated"].log_loss <= calibration.fits["sum"].log_loss + 1e-6


def test_it_is_read_back_as_it_was_written(
    measured: tuple[Calibration, Any, list[list[int]]], tmp_path: Path
) -> None:
    calibration, _, _ = measured
    calibration.save(tmp_path)
    again = Calibration.load(tmp_path)
    assert again.fits == calibration.fits
    assert np.array_equal(again.log_priors, calibration.log_priors)


def test_a_folder_without_one_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `delrec calibrate` first"):
        Calibration.load(tmp_path)
