"""What all prompts begin with is read once, and their candidates score as if it were not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from datasets import Dataset

from delrec_hf.ranking.prefix import common_beginning
from delrec_hf.ranking.rows import score_rows
from delrec_hf.ranking.scoring import CandidateScorer

SOFT = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
SHARED = list(range(100, 130))  # beyond the windows of 16
PROMPTS = [[*SHARED, *own] for own in ([7, 300, 12], [8], [9, 10, *range(40, 60)], [7, 301])]
CANDIDATES = [
    [[50, 51, 2], [50, 51, 60, 2], [50, 2], [50]],
    [[70], [71, 72, 2]],
    [[9, 8, 7, 2], [9, 8, 2]],
    [[5, 2], [5, 2], [6, 2]],
]
SHAPES = ["llama", "qwen3", "mistral, window", "gemma2, window", "gemma2, softcap", "gpt_neox"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("soft", [SOFT, None], ids=["soft prompt", "no prompt"])
def test_scores_behind_a_prefix_are_those_of_separate_forwards(
    tiny: Callable[..., Any],
    naive: Callable[..., list[float]],
    shape: str,
    soft: torch.Tensor | None,
) -> None:
    backbone = tiny(shape)
    scorer = CandidateScorer(backbone, soft).with_prefix(PROMPTS)
    assert scorer.prefix is not None
    assert scorer.prefix.tokens == SHARED
    assert scorer.prefix.length == len(SHARED) + scorer.virtual_tokens
    for _ in range(2):  # the second time, too: the prefix is left as it was
        found = scorer.score(PROMPTS, CANDIDATES)
        for prompt, offered, scores in zip(PROMPTS, CANDIDATES, found, strict=True):
            np.testing.assert_allclose(scores, naive(backbone, prompt, offered, soft), atol=1e-4)


def test_what_is_read_once_is_not_read_again(
    tiny: Callable[..., Any], reading: Callable[..., Any]
) -> None:
    backbone = tiny("llama")
    read = reading(backbone)
    scorer = CandidateScorer(backbone, SOFT).with_prefix(PROMPTS)
    assert (read.forwards, read.tokens) == (1, len(SOFT) + len(SHARED))
    scorer.score_batch(PROMPTS[:1], CANDIDATES[:1])
    assert read.tokens == len(SOFT) + len(SHARED) + 2 + 1 + 3  # [7, 300], [12], [50], [51], [60]


def test_ranking_rows_share_what_they_begin_with(
    tiny: Callable[..., Any], reading: Callable[..., Any], tmp_path: Path
) -> None:
    backbone = tiny("llama")
    rows = Dataset.from_dict({"prompt_ids": PROMPTS, "candidate_ids": CANDIDATES})
    scorer = CandidateScorer(backbone, SOFT)
    read = reading(backbone)
    expected, alone = scorer.score(PROMPTS, CANDIDATES), read.tokens
    read = reading(backbone)
    found = score_rows(scorer, rows, PartialState(), keep_in=tmp_path, disable_tqdm=True)
    shared = len(SOFT) + len(SHARED)
    assert read.tokens == alone - 3 * shared
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    before = read.forwards
    score_rows(scorer, rows, PartialState(), keep_in=tmp_path, disable_tqdm=True)
    assert read.forwards == before  # everything is kept: not even the beginning is read


def test_a_prompt_that_begins_otherwise_is_read_in_full(
    tiny: Callable[..., Any], naive: Callable[..., list[float]]
) -> None:
    backbone = tiny("llama")
    scorer = CandidateScorer(backbone, SOFT).with_prefix(PROMPTS)
    for other in ([1, 2, 3], SHARED, SHARED[:4]):
        found = scorer.score([other], CANDIDATES[:1])[0]
        np.testing.assert_allclose(found, naive(backbone, other, CANDIDATES[0], SOFT), atol=1e-4)


def test_gradients_reach_the_soft_prompt_past_a_prefix(tiny: Callable[..., Any]) -> None:
    soft_prompt = SOFT.clone().requires_grad_()
    scorer = CandidateScorer(tiny("llama"), soft_prompt).with_prefix(PROMPTS)
    scorer.totals(PROMPTS, CANDIDATES)[0].sum().backward()
    assert soft_prompt.grad is not None
    assert soft_prompt.grad.abs().max() > 0


def test_half_precision_goes_on_from_a_prefix(
    tiny: Callable[..., Any], naive: Callable[..., list[float]]
) -> None:
    exact = naive(tiny("llama"), PROMPTS[2], CANDIDATES[2], SOFT)
    backbone = tiny("llama").bfloat16()
    noise = np.abs(np.subtract(naive(backbone, PROMPTS[2], CANDIDATES[2], SOFT.bfloat16()), exact))
    found = CandidateScorer(backbone, SOFT).with_prefix(PROMPTS).score(PROMPTS, CANDIDATES)[2]
    assert np.abs(found - exact).max() < 3 * noise.max()


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ([[1, 2, 3], [1, 2, 4]], [1, 2]),
        ([[1, 2, 3], [1, 2, 3, 4]], [1, 2]),  # the last token of a prompt predicts
        ([[1, 2, 3]], [1, 2]),
        ([[1, 2, 3], [2, 2, 3]], []),
        ([[1], [1, 2]], []),
        ([], []),
    ],
)
def test_the_common_beginning(prompts: list[list[int]], expected: list[int]) -> None:
    assert common_beginning(prompts) == expected
