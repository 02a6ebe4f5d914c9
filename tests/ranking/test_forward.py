"""Log-probabilities come out of slices as they come out of the backbone's own logits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from delrec_hf.ranking import budget
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.separate import row_by_row

PROMPTS = [list(range(20, 60)), [7, 300, 12, 45, 9], [200]]
CANDIDATES = [[[50, 51, 2], [50, 2], [90, 91, 92, 93, 94, 2]], [[70, 2]] * 4, [[5, 2], [6, 7, 2]]]
CLOSE = {"atol": 2e-5, "rtol": 1e-5}  # float32, the same sums in another layout


@pytest.mark.parametrize("slots", [1, 3, 1000])
@pytest.mark.parametrize(
    "shape", ["llama", "gemma2, softcap", "cohere, scale", "granite, scale", "gptj, bias"]
)
def test_slices_keep_what_stands_around_the_output_layer(
    tiny: Callable[..., Any],
    naive: Callable[..., list[float]],
    monkeypatch: pytest.MonkeyPatch,
    shape: str,
    slots: int,
) -> None:
    monkeypatch.setattr(budget, "LOGITS", 400 * slots)
    backbone = tiny(shape)
    found = CandidateScorer(backbone).score(PROMPTS, CANDIDATES)
    for prompt, offered, scores in zip(PROMPTS, CANDIDATES, found, strict=True):
        np.testing.assert_allclose(scores, naive(backbone, prompt, offered), **CLOSE)


@pytest.mark.parametrize("shape", ["llama", "lfm2", "recurrent_gemma"])
def test_no_more_logits_than_the_budget_are_made_at_once(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.setattr(budget, "LOGITS", 400 * 8)
    backbone, made = tiny(shape), []
    backbone.get_output_embeddings().register_forward_hook(
        lambda _, __, logits: made.append(logits.numel())
    )
    CandidateScorer(backbone).score(PROMPTS, CANDIDATES)
    assert max(made) <= 400 * 8


def test_the_output_layer_sees_each_beginning_of_a_title_once_and_no_padding(
    tiny: Callable[..., Any],
) -> None:
    backbone, made = tiny("llama"), []
    backbone.get_output_embeddings().register_forward_hook(
        lambda _, __, logits: made.append(logits.numel() // 400)
    )
    CandidateScorer(backbone).score_batch(PROMPTS, CANDIDATES)
    beginnings = {
        (row, *one[:size])
        for row, offered in enumerate(CANDIDATES)
        for one in offered
        for size in range(len(one))
    }
    assert sum(made) == len(beginnings) + 1  # and one position that tells the vocabulary's size


def test_gradients_of_a_tree_equal_those_of_separate_rows(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "LOGITS", 400 * 3)
    backbone = tiny("gemma2, softcap")
    start = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for separate in (False, True):
        soft_prompt = start.clone().requires_grad_()
        backbone.zero_grad()
        if separate:
            pairs = zip(PROMPTS, CANDIDATES, strict=True)
            found = [row_by_row(backbone, soft_prompt, *pair) for pair in pairs]
        else:
            found = CandidateScorer(backbone, soft_prompt).totals(PROMPTS, CANDIDATES)
        torch.stack([scores.logsumexp(0) for scores in found]).sum().backward()
        weight = backbone.get_input_embeddings().weight
        gradients.append((soft_prompt.grad, weight.grad.clone()))
    for tree, rows in zip(*gradients, strict=True):
        assert rows.abs().max() > 0.1
        torch.testing.assert_close(tree, rows, atol=1e-4, rtol=1e-4)


def test_a_backbone_with_hooks_of_accelerate_scores_the_same(
    tiny: Callable[..., Any],
) -> None:
    backbone = tiny("llama")
    plain = CandidateScorer(backbone).score(PROMPTS, CANDIDATES)
    for module in (backbone, backbone.base_model, backbone.get_output_embeddings()):
        add_hook_to_module(module, AlignDevicesHook(execution_device="cpu", io_same_device=True))
    hooked = CandidateScorer(backbone).score(PROMPTS, CANDIDATES)
    for one, other in zip(plain, hooked, strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)
