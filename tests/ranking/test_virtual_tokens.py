"""A soft prompt's virtual tokens: the words they point at, and what each of them does."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from delrec_hf.errors import InputError
from delrec_hf.ranking.rows import scorer_of
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.virtual_tokens import explain_prompt


@pytest.fixture
def scorer(stacked: Callable[..., Any]) -> CandidateScorer:
    own = scorer_of(stacked())
    assert own.soft_prompt is not None
    return replace(own, soft_prompt=own.soft_prompt.detach())


def test_tokens_made_of_words_are_named_by_them(
    scorer: CandidateScorer, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = [tokenizer("Alien")["input_ids"][0], tokenizer("Matrix")["input_ids"][0]]
    table = scorer.backbone.get_input_embeddings().weight.detach()
    mean = table[: len(tokenizer)].norm(dim=1).mean()
    made = replace(scorer, soft_prompt=table[ids] * torch.tensor([[1.0], [3.0]]))
    found = explain_prompt(made, tokenizer, words=3)
    for token, one, times in zip(found.tokens, ids, (1, 3), strict=True):
        assert token.words[0].text == tokenizer.decode([one]).strip()
        assert token.words[0].cosine == pytest.approx(1.0, abs=1e-5)
        assert len(token.words) == 3
        assert token.length == pytest.approx(times * float(table[one].norm() / mean), rel=1e-4)
        assert token.effect is None
    assert 0 < found.chance_cosine < 1
    assert explain_prompt(made, tokenizer).chance_cosine == found.chance_cosine


def test_a_token_does_what_the_prompt_loses_without_it(
    scorer: CandidateScorer,
    tokenizer: PreTrainedTokenizerFast,
    rows_to_rank: Callable[..., Any],
) -> None:
    rows, prompt = rows_to_rank("rps", 6), scorer.soft_prompt
    assert prompt is not None
    found = explain_prompt(scorer, tokenizer, rows, disable_tqdm=True)
    assert (len(found.tokens), found.rows) == (5, 6)

    def measured(soft_prompt: torch.Tensor | None) -> tuple[Any, Any, Any]:
        leads, places = [], []
        for one in rows:
            own = replace(scorer, soft_prompt=soft_prompt)
            scores = own.score([one["prompt_ids"]], [one["candidate_ids"]])[0]
            others = np.delete(scores, one["target_place"])
            leads.append(scores[one["target_place"]] - others.mean())
            places.append(scores.argmax())
        return np.mean(leads), np.mean(np.array(places) == rows["target_place"][:]), places

    lead, agreement, places = measured(prompt)
    assert found.agreement == agreement
    for number, token in enumerate(found.tokens):
        without = measured(torch.cat([prompt[:number], prompt[number + 1 :]]))
        assert token.effect is not None
        assert token.effect.lead == pytest.approx(lead - without[0], abs=1e-5)
        assert token.effect.agreement == pytest.approx(agreement - without[1])
        assert token.effect.changed == np.mean(np.array(places) != np.array(without[2]))
    bare = measured(None)
    assert found.whole is not None
    assert found.whole.lead == pytest.approx(lead - bare[0], abs=1e-5)
    assert found.whole.agreement == pytest.approx(agreement - bare[1])


def test_a_prompt_of_one_token_does_all_that_the_prompt_does(
    scorer: CandidateScorer,
    tokenizer: PreTrainedTokenizerFast,
    rows_to_rank: Callable[..., Any],
) -> None:
    assert scorer.soft_prompt is not None
    single = replace(scorer, soft_prompt=scorer.soft_prompt[:1])
    found = explain_prompt(single, tokenizer, rows_to_rank("lsr", 3), disable_tqdm=True)
    assert [token.effect for token in found.tokens] == [found.whole]


def test_text_dictionary_and_picture_hold_every_token(
    scorer: CandidateScorer,
    tokenizer: PreTrainedTokenizerFast,
    rows_to_rank: Callable[..., Any],
    tmp_path: Path,
) -> None:
    for rows in (None, rows_to_rank("rps", 3)):
        found = explain_prompt(scorer, tokenizer, rows, disable_tqdm=True)
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
        assert len(found.text().split("\n\n")[1].splitlines()) == 6
        found.save(tmp_path / "prompt.svg")
        root = ElementTree.parse(tmp_path / "prompt.svg").getroot()
        bars = [one for one in root.iter() if one.get("fill") == "#0072b2"]
        assert len(bars) == 5


def test_what_is_no_prompt_or_no_row_is_refused(
    scorer: CandidateScorer,
    tokenizer: PreTrainedTokenizerFast,
    rows_to_rank: Callable[..., Any],
) -> None:
    with pytest.raises(InputError, match="no soft prompt to explain"):
        explain_prompt(replace(scorer, soft_prompt=None), tokenizer)
    with pytest.raises(InputError, match="no row to measure"):
        explain_prompt(scorer, tokenizer, rows_to_rank("rps", 3).select([]))
