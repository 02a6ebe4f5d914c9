"""All candidates of a prompt together score as each of them does alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from delrec_hf.devices import counts_memory
from delrec_hf.errors import InputError
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking import budget
from delrec_hf.ranking.batches import make_batches
from delrec_hf.ranking.scoring import CandidateScorer, Scoring
from delrec_hf.ranking.separate import row_by_row

SHAPES = ["qwen2", "llama", "mistral", "gemma2", "gemma3", "gpt_neox", "gpt2"]
PROMPTS = [[7, 300, 12, 45, 9, 88, 120, 31, 6], [15, 16], [200], list(range(20, 60))]
CANDIDATES = [
    [[50, 51, 2], [50, 51, 60, 2], [50, 2], [90, 91, 92, 93, 94, 95, 2]],  # shared prefixes
    [[70], [71], [70, 71]],  # single tokens
    [[5, 2], [5, 2], [6, 2]],  # the same twice
    [[9, 8, 7, 2]],  # no company
]


def _naive(
    model: DelRecModel, prompt: list[int], candidate: list[int], *, soft: bool, kind: str
) -> float:
    """Score by log_softmax over one plain forward of the whole row."""
    ids = torch.tensor([prompt + candidate])
    forward = model if soft else model.backbone
    with torch.inference_mode():
        logits = forward(input_ids=ids).logits[0, -len(candidate) - 1 : -1]
    found = [
        float(row.log_softmax(-1)[token]) for row, token in zip(logits, candidate, strict=True)
    ]
    return sum(found) / len(found) if kind == "mean" else sum(found)


def _scorer(model: DelRecModel, *, soft: bool = True, kind: Any = "sum") -> CandidateScorer:
    return CandidateScorer(
        model.backbone, model.soft_prompt.detach() if soft else None, Scoring(kind)
    )


@pytest.mark.parametrize("soft", [True, False], ids=["soft prompt", "no prompt"])
@pytest.mark.parametrize("kind", ["sum", "mean"])
@pytest.mark.parametrize("shape", SHAPES)
def test_tree_score_equals_naive_score(
    stacked: Callable[..., DelRecModel], shape: str, kind: str, soft: bool
) -> None:
    model = stacked(shape)
    scorer = _scorer(model, soft=soft, kind=kind)
    found = scorer.score(PROMPTS, CANDIDATES)
    for prompt, offered, scores in zip(PROMPTS, CANDIDATES, found, strict=True):
        expected = [_naive(model, prompt, one, soft=soft, kind=kind) for one in offered]
        np.testing.assert_allclose(scores, expected, atol=2e-5, rtol=1e-5)
        if kind == "sum":
            with torch.inference_mode():
                rows = row_by_row(scorer.backbone, scorer.soft_prompt, prompt, offered)
            np.testing.assert_allclose(rows, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager", "flex_attention"])
def test_every_kind_of_attention_takes_the_tree(
    stacked: Callable[..., DelRecModel], reading: Callable[..., Any], implementation: str
) -> None:
    model = stacked("qwen2", attn_implementation="sdpa")
    expected = [_naive(model, PROMPTS[0], one, soft=True, kind="sum") for one in CANDIDATES[0]]
    model.backbone.set_attn_implementation(implementation)
    read = reading(model.backbone)
    found = _scorer(model).score(PROMPTS, CANDIDATES)
    assert read.forwards == 2  # all prompts, then all their candidates
    np.testing.assert_allclose(found[0], expected, atol=2e-5, rtol=1e-5)
    assert model.backbone.config._attn_implementation == implementation


@pytest.mark.parametrize(
    "shape", ["mistral, window", "gemma2, window", "gemma3, window", "qwen2, window"]
)
@pytest.mark.parametrize("length", [1, 6, 7, 60])  # with 6 the last token just sees 16 back
def test_histories_beyond_a_sliding_window_are_scored_together(
    tiny: Callable[..., Any],
    reading: Callable[..., Any],
    naive: Callable[..., list[float]],
    shape: str,
    length: int,
) -> None:
    backbone = tiny(shape)
    soft_prompt = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    prompts = [list(range(20, 20 + length)), [7, 300, 12]]
    candidates = [CANDIDATES[0], [[9] * 18 + [2], [9, 8, 2]]]  # one longer than the window itself
    expected = [
        naive(backbone, prompt, offered, soft_prompt)
        for prompt, offered in zip(prompts, candidates, strict=True)
    ]
    scorer, read = CandidateScorer(backbone, soft_prompt), reading(backbone)
    found = scorer.score_batch(prompts, candidates)
    assert read.forwards == 2  # all prompts, then all their candidates
    for scores, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(scores, right, atol=2e-5, rtol=1e-5)
    alone = scorer.score_batch(prompts[:1], candidates[:1])[0]
    np.testing.assert_allclose(alone, expected[0], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", ["qwen2", "gemma3", "gpt2"])
def test_scores_do_not_depend_on_the_company_in_a_batch(
    stacked: Callable[..., DelRecModel], shape: str
) -> None:
    scorer = _scorer(stacked(shape))
    together = scorer.score_batch(PROMPTS, CANDIDATES)
    for prompt, offered, scores in zip(PROMPTS, CANDIDATES, together, strict=True):
        alone = scorer.score_batch([prompt], [offered])[0]
        np.testing.assert_allclose(scores, alone, atol=1e-5, rtol=0)
        turned = scorer.score_batch([prompt], [offered[::-1]])[0][::-1]
        np.testing.assert_allclose(scores, turned, atol=1e-5, rtol=0)


def test_batches_hold_every_row_once_within_the_budget(
    tiny: Callable[..., Any], reading: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "TOKENS", 400)
    generator = np.random.default_rng(0)
    prompts = [[1] * int(n) for n in generator.integers(1, 60, 50)]
    prompts.append([1] * 450)  # one that breaks the budget by itself still has a place
    candidates = [[[2] * 3, [3] * 2]] * len(prompts)
    scorer = CandidateScorer(tiny("llama"), torch.zeros(40, 32))
    batches = make_batches(prompts, candidates, scorer.virtual_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(51))
    assert batches == make_batches(prompts, candidates, scorer.virtual_tokens)
    for batch in batches:
        read = reading(scorer.backbone)
        scorer.score_batch([prompts[row] for row in batch], [candidates[row] for row in batch])
        assert len(batch) == 1 or read.tokens <= 400
    # Single rows would keep the budget too: no batch but the last could have taken another row.
    widths = [40 + len(prompts[batch[0]]) - 1 + 5 for batch in batches]
    assert all((len(b) + 1) * w > 400 for b, w in zip(batches[:-1], widths[:-1], strict=True))


def test_two_processes_score_what_one_does_to_the_last_bit(
    stacked: Callable[..., DelRecModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "TOKENS", 60)
    scorer = _scorer(stacked())
    prompts, candidates = PROMPTS * 3, CANDIDATES * 3
    whole = scorer.score(prompts, candidates)
    batches = make_batches(prompts, candidates, scorer.virtual_tokens)
    assert 2 < len(batches) < len(prompts)
    for process in range(2):
        for rows in batches[process::2]:
            own = scorer.score_batch([prompts[r] for r in rows], [candidates[r] for r in rows])
            # Exact: the same batch goes through the same kernels, whoever scores it.
            assert all(np.array_equal(whole[r], found) for r, found in zip(rows, own, strict=True))


def test_no_prompts_give_no_scores(stacked: Callable[..., DelRecModel]) -> None:
    assert _scorer(stacked()).score([], []) == []


def test_a_candidate_without_tokens_is_refused(stacked: Callable[..., DelRecModel]) -> None:
    with pytest.raises(InputError, match="has no tokens"):
        _scorer(stacked()).score([[5, 6]], [[[1], []]])


@pytest.mark.parametrize("soft", [True, False], ids=["soft prompt", "no prompt"])
def test_scoring_leaves_the_model_as_it_was(
    stacked: Callable[..., DelRecModel], soft: bool
) -> None:
    model = stacked()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _scorer(model, soft=soft).score(PROMPTS, CANDIDATES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_gpus_memory_says_how_many_tokens_a_training_holds_and_no_other_is_asked(
    tiny: Callable[..., Any],
) -> None:
    backbone = tiny("llama")
    few, many = (budget.tokens_within(n, backbone.config, torch.float32) for n in (10**8, 10**9))
    assert 9.9 < many / few < 10.1
    assert budget.tokens_within(10**9, backbone.config, torch.bfloat16) == pytest.approx(
        2 * many, abs=1
    )
    for kind in ("cpu", "mps"):  # Apple's counts nothing
        assert budget.logits(torch.device(kind)) == budget.LOGITS
        assert not counts_memory(torch.device(kind))
    assert budget.tokens(backbone) == budget.TOKENS
