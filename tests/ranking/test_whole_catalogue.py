"""A catalogue scored through its trie: what one by one gives, and the best of it found."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from delrec_hf.errors import InputError
from delrec_hf.ranking import budget
from delrec_hf.ranking.scoring import CandidateScorer, Scoring
from delrec_hf.ranking.whole_catalogue import CatalogueScorer

TREES = [
    "llama",
    "qwen3",
    "mistral, window",
    "gemma2, window",
    "gemma2, softcap",
    "gemma3, window",
    "gpt_neox",
    "gptj, bias",
]
SOFT = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
PROMPT = [7, 300, 12, 45, 9, 88, 120, 31, 6, *range(20, 40)]  # beyond the windows of 16


def catalogue(seed: int, items: int = 60) -> list[list[int]]:
    """Return distinct titles: shared beginnings, one the beginning of another, single tokens."""
    generator = np.random.default_rng(seed)
    found = {(5,), (5, 6), (5, 6, 7, 8, 9), (11,)}
    while len(found) < items:
        size = int(generator.integers(1, 9))
        found.add(tuple(generator.integers(5, 12, size).tolist()))
    titles = sorted(found)
    return [list(titles[place]) for place in generator.permutation(len(titles))]


@pytest.mark.parametrize("shape", TREES)
@pytest.mark.parametrize("soft", [SOFT, None], ids=["soft prompt", "no prompt"])
def test_the_trie_scores_as_one_by_one(
    tiny: Callable[..., Any],
    naive: Callable[..., list[float]],
    monkeypatch: pytest.MonkeyPatch,
    shape: str,
    soft: torch.Tensor | None,
) -> None:
    backbone, answers = tiny(shape), catalogue(0)
    expected = naive(backbone, PROMPT, answers, soft)
    scorer = CandidateScorer(backbone, soft)
    for chunk in (1 << 8, 16, 1):
        monkeypatch.setattr(budget, "CHUNK", chunk)
        found = CatalogueScorer(scorer, answers).score(PROMPT)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    behind = scorer.with_prefix([PROMPT, PROMPT[:12]])
    assert behind.prefix is not None
    found = CatalogueScorer(behind, answers).score(PROMPT)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_half_precision_stays_as_near_as_it_is_one_by_one(
    tiny: Callable[..., Any], naive: Callable[..., list[float]]
) -> None:
    answers = catalogue(1)
    exact = np.array(naive(tiny("llama"), PROMPT, answers, SOFT))
    backbone = tiny("llama").bfloat16()
    one_by_one = naive(backbone, PROMPT, answers, SOFT.bfloat16())
    found = CatalogueScorer(CandidateScorer(backbone, SOFT), answers).score(PROMPT)
    noise = np.abs(one_by_one - exact)
    assert np.abs(found - exact).mean() < 1.5 * noise.mean()
    assert np.abs(found - exact).max() < 2 * noise.max()


def _scoring(kind: str, answers: list[list[int]]) -> Scoring:
    priors = np.random.default_rng(2).normal(-30, 10, len(answers))
    return Scoring(kind, 0.7, dict(zip(map(tuple, answers), priors.tolist(), strict=True)))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sum", "mean", "calibrated"])
@pytest.mark.parametrize("shape", ["llama", "gemma2, window"])
def test_scores_of_every_kind_are_those_of_candidates(
    tiny: Callable[..., Any], shape: str, kind: str
) -> None:
    answers = catalogue(3)
    scorer = CandidateScorer(tiny(shape), SOFT, _scoring(kind, answers))
    expected = scorer.score([PROMPT], [answers])[0]
    np.testing.assert_allclose(CatalogueScorer(scorer, answers).score(PROMPT), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["sum", "mean", "calibrated"])
@pytest.mark.parametrize("shape", ["llama", "gemma2, window", "gpt_neox"])
def test_the_best_found_are_the_best_of_all(
    tiny: Callable[..., Any], shape: str, kind: str
) -> None:
    for seed in range(3):
        answers = catalogue(seed)
        scorer = CandidateScorer(tiny(shape), SOFT, _scoring(kind, answers))
        whole = CatalogueScorer(scorer.with_prefix([PROMPT, PROMPT[:9]]), answers)
        scores, seen = whole.score(PROMPT), set(range(0, 60, 7))
        best = [item for item in np.argsort(-scores).tolist() if item not in seen]
        for k in (1, 10, len(best), 100):
            found = whole.top(PROMPT, k, seen)
            assert [item for item, _ in found] == best[:k]
            np.testing.assert_allclose([score for _, score in found], scores[best[:k]], atol=1e-4)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_beam_gives_distinct_unseen_items_however_narrow_it_is(
    tiny: Callable[..., Any], width: int
) -> None:
    answers = catalogue(4)
    whole = CatalogueScorer(CandidateScorer(tiny("llama"), SOFT), answers)
    whole = whole.with_outlook([9, *PROMPT[5:]])
    scores, seen = whole.score(PROMPT), set(range(20))
    for k in (1, 10, 40):
        found = whole.top(PROMPT, k, seen, width=width)
        items = [item for item, _ in found]
        assert len(set(items)) == k
        assert not seen & set(items)
        assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)
        np.testing.assert_allclose([score for _, score in found], scores[items], atol=1e-4)


@pytest.mark.parametrize("kind", ["sum", "mean", "calibrated"])
def test_a_beam_finds_nearly_all_by_the_outlook_of_another_prompt(
    tiny: Callable[..., Any], kind: str
) -> None:
    # Each begins with a token of its own, which says little of how it goes on.
    answers = [[100 + place, *one] for place, one in enumerate(catalogue(12, 200))]
    scorer = CandidateScorer(tiny("llama"), SOFT, _scoring(kind, answers))
    whole = CatalogueScorer(scorer, answers).with_outlook([9, *PROMPT[5:]])
    hits = 0
    for last in range(50, 60):
        prompt = [*PROMPT, last]
        scores = whole.score(prompt)
        best = np.argsort(-scores)[:10].tolist()
        assert [item for item, _ in whole.top(prompt, 10)] == best  # exact with an outlook too
        found = whole.top(prompt, 10, width=5)
        items = [item for item, _ in found]
        np.testing.assert_allclose([score for _, score in found], scores[items], atol=1e-4)
        hits += len(set(items) & set(best))
    assert hits > 80
    same = whole.with_outlook(PROMPT)  # of the very prompt: each step knows the best way
    best = np.argsort(-whole.score(PROMPT))[:3].tolist()
    assert [item for item, _ in same.top(PROMPT, 3, width=3)] == best


def test_a_beam_without_an_outlook_is_refused(tiny: Callable[..., Any]) -> None:
    whole = CatalogueScorer(CandidateScorer(tiny("llama")), catalogue(4))
    with pytest.raises(InputError, match="a beam of 4 has no outlook"):
        whole.top(PROMPT, 3, width=4)


def test_what_is_sought_is_read_sparingly(
    tiny: Callable[..., Any], reading: Callable[..., Any]
) -> None:
    backbone, answers = tiny("llama"), catalogue(5, 400)
    whole = CatalogueScorer(CandidateScorer(backbone, SOFT), answers)
    whole = whole.with_outlook([9, *PROMPT[5:]])
    tokens = {}
    for width in (None, 4):
        read = reading(backbone)
        whole.top(PROMPT, 20, width=width)
        tokens[width] = read.tokens
    read = reading(backbone)
    whole.score(PROMPT)
    assert tokens[4] < tokens[None] < read.tokens / 2


def test_the_prompt_and_each_beginning_are_read_once_within_the_budget(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, answers, widths = tiny("llama"), catalogue(6, 400), []
    backbone.base_model.register_forward_pre_hook(
        lambda _, __, given: widths.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    monkeypatch.setattr(budget, "CHUNK", 50)
    CatalogueScorer(CandidateScorer(backbone, SOFT), answers).score(PROMPT)
    beginnings = {tuple(one[:size]) for one in answers for size in range(len(one))}
    assert widths[0] == len(SOFT) + len(PROMPT) - 1
    assert max(widths[1:]) <= 50
    # Each chunk reads the way that leads into it again, at most seven tokens.
    assert len(beginnings) <= sum(widths[1:]) + 400 <= len(beginnings) + 400 + 8 * len(widths)


def test_a_search_beyond_the_budget_reads_everything_instead(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = catalogue(7)
    whole = CatalogueScorer(CandidateScorer(tiny("llama"), SOFT), answers)
    expected = whole.top(PROMPT, 10)
    monkeypatch.setattr(budget, "TOKENS", 20)
    found = whole.top(PROMPT, 10)
    assert [item for item, _ in found] == [item for item, _ in expected]


@pytest.mark.parametrize("shape", ["bloom", "lfm2"])
def test_backbones_that_go_on_from_nothing_score_and_find_all_the_same(
    tiny: Callable[..., Any],
    naive: Callable[..., list[float]],
    caplog: pytest.LogCaptureFixture,
    shape: str,
) -> None:
    backbone, answers = tiny(shape), catalogue(8, 12)
    expected = np.array(naive(backbone, PROMPT, answers, SOFT))
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        whole = CatalogueScorer(CandidateScorer(backbone, SOFT).with_prefix([PROMPT] * 2), answers)
        np.testing.assert_allclose(whole.score(PROMPT), expected, atol=1e-4)
        found = whole.top(PROMPT, 5, {3}, width=2)
    assert [item for item, _ in found] == [k for k in np.argsort(-expected) if k != 3][:5]
    said = [one for one in caplog.messages if "reads each prompt from its beginning" in one]
    assert len(said) == 1


def test_a_prompt_of_one_token_has_nothing_before_the_root(
    tiny: Callable[..., Any], naive: Callable[..., list[float]]
) -> None:
    backbone, answers = tiny("llama"), catalogue(9)
    whole = CatalogueScorer(CandidateScorer(backbone), answers)
    expected = naive(backbone, [7], answers)
    np.testing.assert_allclose(whole.score([7]), expected, atol=1e-4)
    assert whole.top([7], 1)[0][0] == int(np.argmax(expected))


def test_candidates_beyond_the_budget_go_on_from_one_reading_of_their_prompt(
    tiny: Callable[..., Any],
    reading: Callable[..., Any],
    naive: Callable[..., list[float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone, answers = tiny("gemma2, window"), catalogue(11)
    expected = naive(backbone, PROMPT, answers, SOFT)
    monkeypatch.setattr(budget, "TREE", 80)
    monkeypatch.setattr(budget, "CHUNK", 40)
    read = reading(backbone)
    few = answers[:3]
    found = CandidateScorer(backbone, SOFT).score([PROMPT, PROMPT], [answers, few])
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    np.testing.assert_allclose(found[1], expected[:3], atol=1e-4)
    beginnings = {tuple(one[:size]) for one in answers for size in range(len(one))}
    assert read.tokens < 2 * (len(SOFT) + len(PROMPT)) + 1.5 * len(beginnings)


def test_scores_that_are_no_numbers_are_refused(tiny: Callable[..., Any]) -> None:
    backbone = tiny("llama")
    backbone.get_output_embeddings().weight.data[8] = torch.nan
    whole = CatalogueScorer(CandidateScorer(backbone), catalogue(10))
    for act in (whole.score, lambda prompt: whole.top(prompt, 3)):
        with pytest.raises(InputError, match="not finite"):
            act(PROMPT)
