"""Backbones that take no tree read a prompt once, score as separate rows do, and say so."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from delrec_hf.ranking import budget
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.separate import row_by_row

PROMPT = [3 + (7 * k) % 390 for k in range(45)]
CANDIDATES = [[50, 51, 2], [50, 2], [90, 91, 92, 93, 94, 2], [50, 51, 2], [70]]
SOFT = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
HYBRID = ["qwen3_next", "lfm2", "falcon_h1", "bamba", "jamba", "mamba2", "bloom"]
CLOSE = {"atol": 1e-4, "rtol": 1e-5}  # states are carried token by token instead of in blocks


@pytest.mark.parametrize("soft", [SOFT, None], ids=["soft prompt", "no prompt"])
@pytest.mark.parametrize("shape", HYBRID)
def test_a_backbone_with_states_reads_the_prompt_once(
    tiny: Callable[..., Any],
    reading: Callable[..., Any],
    naive: Callable[..., list[float]],
    shape: str,
    soft: torch.Tensor | None,
) -> None:
    backbone = tiny(shape)
    expected = naive(backbone, PROMPT, CANDIDATES, soft)
    read = reading(backbone)
    found = CandidateScorer(backbone, soft).score([PROMPT], [CANDIDATES])[0]
    np.testing.assert_allclose(found, expected, **CLOSE)
    trunk = len(PROMPT) - 1 + (0 if soft is None else len(soft))
    assert read.tokens == trunk + len(CANDIDATES) * max(map(len, CANDIDATES))


@pytest.mark.parametrize("shape", ["lfm2", "jamba"])
def test_many_candidates_go_on_from_the_cache_in_chunks(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    scorer = CandidateScorer(tiny(shape), SOFT)
    whole = scorer.score([PROMPT], [CANDIDATES])[0]
    monkeypatch.setattr(budget, "TOKENS", 120)  # two rows at once
    np.testing.assert_allclose(scorer.score([PROMPT], [CANDIDATES])[0], whole, **CLOSE)


def test_many_candidates_are_read_in_full_in_chunks(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny("llama")
    with torch.inference_mode():
        whole = row_by_row(backbone, SOFT, PROMPT, CANDIDATES)
        monkeypatch.setattr(budget, "TOKENS", 120)
        chunks = row_by_row(backbone, SOFT, PROMPT, CANDIDATES)
    np.testing.assert_allclose(chunks, whole, atol=1e-5)


@pytest.mark.parametrize("shape", ["lfm2", "recurrent_gemma"])
def test_a_prompt_of_one_token_is_scored_too(
    tiny: Callable[..., Any], naive: Callable[..., list[float]], shape: str
) -> None:
    backbone = tiny(shape)
    found = CandidateScorer(backbone).score([[7]], [CANDIDATES])[0]
    np.testing.assert_allclose(found, naive(backbone, [7], CANDIDATES), **CLOSE)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("lfm2", "Lfm2ForCausalLM cannot score candidates in one forward: it has layers of conv;"),
        ("falcon_h1", "the prompt is read once, then one token a forward, 6 of them"),
        # (44 + 6) * 5 tokens in rows, 45 + 7 in a tree
        ("recurrent_gemma", "each is read with its prompt, about 4.8 times the tokens"),
    ],
)
def test_a_slower_way_is_said_once(
    tiny: Callable[..., Any], caplog: pytest.LogCaptureFixture, shape: str, words: str
) -> None:
    backbone = tiny(shape)
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        for soft in (None, SOFT):  # another scorer of the same backbone says nothing new
            CandidateScorer(backbone, soft).score([PROMPT] * 3, [CANDIDATES] * 3)
    said = [record.getMessage() for record in caplog.records if "one forward" in record.message]
    assert len(said) == 1
    assert words in said[0]


def test_the_tree_needs_no_words(
    tiny: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        CandidateScorer(tiny("gemma3, window")).score([PROMPT], [CANDIDATES])
    assert not caplog.records


def test_gradients_go_through_a_backbone_with_states(tiny: Callable[..., Any]) -> None:
    backbone, soft_prompt = tiny("lfm2"), SOFT.clone().requires_grad_()
    found = CandidateScorer(backbone, soft_prompt).totals([PROMPT], [CANDIDATES])
    found[0].logsumexp(0).backward()
    assert soft_prompt.grad is not None
    assert soft_prompt.grad.abs().max() > 0
