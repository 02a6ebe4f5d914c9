"""What a model has said of a row is kept and found again, and only that."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel

from delrec_hf.ranking import budget
from delrec_hf.ranking.kept import folder_of, model_print
from delrec_hf.ranking.rows import score_rows
from delrec_hf.ranking.scoring import CandidateScorer, Scoring


@pytest.fixture
def rows() -> Dataset:
    generator = np.random.default_rng(0)
    prompts = [generator.integers(10, 300, 5 + k).tolist() for k in range(12)]
    offered = [[generator.integers(10, 300, 1 + k).tolist() for k in range(4)] for _ in prompts]
    return Dataset.from_dict({"prompt_ids": prompts, "candidate_ids": offered})


@pytest.fixture
def score(tmp_path: Path) -> Callable[..., np.ndarray]:
    def make(scorer: CandidateScorer, rows: Dataset) -> np.ndarray:
        kept = folder_of(scorer, tmp_path)
        return np.array(score_rows(scorer, rows, PartialState(), keep_in=kept))

    return make


def test_what_was_read_once_is_not_read_again(
    tiny: Callable[..., PreTrainedModel],
    reading: Callable[..., Any],
    rows: Dataset,
    score: Callable[..., np.ndarray],
) -> None:
    backbone = tiny("llama")
    scorer = CandidateScorer(backbone)
    few = score(scorer, rows.select(range(4)))
    counted = reading(backbone)
    everything = score(scorer, rows)
    read = counted.tokens
    assert read > 0
    np.testing.assert_array_equal(everything[:4], few)
    np.testing.assert_array_equal(score(scorer, rows), everything)
    assert counted.tokens == read
    plain = np.array(score_rows(scorer, rows, PartialState()))
    np.testing.assert_allclose(everything, plain, atol=1e-4)
    means = score(CandidateScorer(backbone, None, Scoring("mean")), rows)
    np.testing.assert_allclose(means, everything / np.arange(1, 5), rtol=1e-12)


def test_other_weights_are_another_model(
    tiny: Callable[..., PreTrainedModel], rows: Dataset, score: Callable[..., np.ndarray]
) -> None:
    backbone = tiny("llama")
    first = score(CandidateScorer(backbone), rows)
    prompt = torch.full((2, 32), 0.5)
    prompted = score(CandidateScorer(backbone, prompt), rows)
    prompt[0, 0] += 0.25
    again = score(CandidateScorer(backbone, prompt), rows)
    next(iter(backbone.parameters())).data.add_(0.1)
    changed = score(CandidateScorer(backbone), rows)
    scores = (first, prompted, again, changed)
    assert all((a != b).any() for k, a in enumerate(scores) for b in scores[:k])
    assert model_print(CandidateScorer(backbone)) != model_print(CandidateScorer(tiny("llama")))
    in_half = tiny("llama").bfloat16()
    assert model_print(CandidateScorer(in_half)) != model_print(CandidateScorer(tiny("llama")))


def test_a_killed_process_loses_what_it_was_writing_and_no_more(
    tiny: Callable[..., PreTrainedModel],
    reading: Callable[..., Any],
    rows: Dataset,
    score: Callable[..., np.ndarray],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "TOKENS", 100)
    backbone = tiny("llama")
    expected = score(CandidateScorer(backbone), rows)
    (file,) = tmp_path.glob("*/*.jsonl")
    batches = len(file.read_bytes().splitlines())
    assert 1 < batches < len(rows)
    file.write_bytes(file.read_bytes()[:-20])
    counted = reading(backbone)
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        again = score(CandidateScorer(backbone), rows)
    np.testing.assert_array_equal(again, expected)  # exact: in the same company as before
    read = counted.forwards
    assert read == 2  # the prompts of a batch, and their candidates
    assert "1 batches that were kept cannot be read, and are scored again" in caplog.messages
    score(CandidateScorer(backbone), rows)
    assert counted.forwards == read


def test_scores_that_rank_nothing_are_not_kept(
    tiny: Callable[..., PreTrainedModel], rows: Dataset, tmp_path: Path
) -> None:
    backbone = tiny("llama")
    backbone.get_output_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(Exception, match="not finite"):
        score_rows(CandidateScorer(backbone), rows, PartialState(), keep_in=tmp_path)
    assert all(not file.read_bytes() for file in tmp_path.iterdir())


def test_rows_that_differ_in_prompt_or_candidates_alone_are_others(
    tiny: Callable[..., PreTrainedModel], score: Callable[..., np.ndarray]
) -> None:
    scorer = CandidateScorer(tiny("llama"))
    prompts = [[5, 6, 7], [5, 6, 8], [5, 6, 7]]
    offered = [[[20], [21]], [[20], [21]], [[20], [22]]]
    for prompt, candidates in zip(prompts, offered, strict=True):
        row = Dataset.from_dict({"prompt_ids": [prompt], "candidate_ids": [candidates]})
        expected = scorer.score([prompt], [candidates])[0]
        np.testing.assert_allclose(score(scorer, row)[0], expected, atol=1e-5)
