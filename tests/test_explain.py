"""What moved a score is measured by leaving it out, and changes nothing in the model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from delrec_hf import Recommender
from delrec_hf.errors import InputError
from delrec_hf.explain import explain
from delrec_hf.files import write_json
from delrec_hf.hashes import fingerprint
from delrec_hf.modeling.adapters import without_lora
from delrec_hf.modeling.artefact import hold_teacher
from delrec_hf.ranking.explanation import Explanation
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.weighing import Fusion, Part, Scale
from delrec_hf.teachers.models.sasrec import SASRecConfig, SASRecModel
from tests.film_rows import ITEMS, TITLES

Make = Callable[..., Path]
HISTORY = ["i0", "i2", "i4"]
OTHERS = ["i7", "i8", "i9"]
WEIGHTS = Fusion(
    {
        "delrec": Part(0.5, (0.4, 0.6), Scale()),
        "teacher": Part(3.0, (2.0, 4.0), Scale("raw", 0.0, -9.0)),
    }
)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def recommender(make_artefact: Make) -> Recommender:
    return Recommender.from_pretrained(make_artefact(candidates="unlisted"))


@pytest.fixture
def make_taught(make_artefact: Make, tmp_path: Path) -> Callable[..., Recommender]:
    """A function that returns a model with an untrained SASRec and weights."""

    def make(**facts: Any) -> Recommender:
        torch.manual_seed(3)
        catalogue = fingerprint(list(ITEMS))
        model = SASRecModel(SASRecConfig(num_items=12, hidden_size=8, catalogue=catalogue))
        torch.nn.init.normal_(model.item_embedding.weight)
        model.save_pretrained(tmp_path / "taught")
        write_json(tmp_path / "taught" / "teacher.json", {"type": "sasrec", "catalogue": catalogue})
        made = make_artefact(fusion=WEIGHTS.to_dict(), **facts)
        hold_teacher(tmp_path / "taught", made)
        return Recommender.from_pretrained(made)

    return make


def score_of(recommender: Recommender, history: list[str], item: str, others: list[str]) -> Any:
    found = recommender.recommend(history, [*others, item], top_k=20)
    return next(one for one in found if one.item_id == item)


@pytest.mark.parametrize("scoring", ["sum", "mean"])
def test_leaving_an_item_out_is_recommending_after_the_shorter_history(
    make_artefact: Make, scoring: str
) -> None:
    made = make_artefact(candidates="unlisted", scoring=scoring)
    recommender = Recommender.from_pretrained(made)
    found = explain(recommender, HISTORY, "i6", OTHERS)
    now = score_of(recommender, HISTORY, "i6", OTHERS).score
    assert found.standing.score == pytest.approx(now, abs=1e-5)
    assert [one.item_id for one in found.history] == HISTORY
    for place, one in enumerate(found.history):
        shorter = HISTORY[:place] + HISTORY[place + 1 :]
        alone = score_of(recommender, shorter, "i6", OTHERS).score
        assert one.without.score == pytest.approx(alone, abs=1e-5)
        assert one.change.score == pytest.approx(now - alone, abs=1e-5)
        assert one.change.score != 0


@pytest.mark.parametrize("says", ["none", "order", "list"])
def test_the_same_holds_for_a_fusion_and_for_prompts_that_show_the_teacher(
    make_taught: Callable[..., Recommender], says: str
) -> None:
    recommender = make_taught(prompt_teacher=says, teacher={"type": "sasrec", "top_h": 2})
    found = explain(recommender, HISTORY, "i6", OTHERS)
    for history, standing in [
        (HISTORY, found.standing),
        *((HISTORY[:k] + HISTORY[k + 1 :], one.without) for k, one in enumerate(found.history)),
    ]:
        alone = score_of(recommender, history, "i6", OTHERS)
        assert standing.score == pytest.approx(alone.score, abs=1e-5)
        assert standing.language_model == pytest.approx(alone.language_model, abs=1e-5)
        assert standing.teacher == pytest.approx(alone.teacher, abs=1e-5)


def test_the_lead_is_over_the_mean_of_the_others_and_its_parts_add_up(
    make_taught: Callable[..., Recommender],
) -> None:
    recommender = make_taught(candidates="unlisted")
    found = explain(recommender, HISTORY, "i6", OTHERS)
    scores = {one.item_id: one.score for one in found.candidates}
    assert set(scores) == {"i6", *OTHERS}
    mean = np.mean([scores[one] for one in OTHERS])
    standing = found.standing
    assert standing.lead == pytest.approx(scores["i6"] - mean)
    assert set(standing.parts) == {"language_model", "teacher"}
    assert sum(standing.parts.values()) == pytest.approx(standing.lead)
    assert standing.rank == 1 + sum(score > scores["i6"] for score in scores.values())
    assert [one.score for one in found.candidates] == sorted(scores.values(), reverse=True)
    for one in found.history:
        assert sum(one.change.parts.values()) == pytest.approx(one.change.lead)


def test_the_teacher_says_its_score_and_rank_among_unseen_items(
    make_taught: Callable[..., Recommender],
) -> None:
    recommender = make_taught()
    assert recommender.teacher is not None
    scores = recommender.teacher.score([[0, 2, 4]])[0]
    unseen = sorted(set(range(12)) - {0, 2, 4}, key=lambda row: -scores[row])
    for rank, row in enumerate(unseen, start=1):
        says = explain(recommender, HISTORY, f"i{row}").teacher
        assert says is not None
        assert says.score == pytest.approx(scores[row], abs=1e-5)
        assert (says.rank, says.unseen) == (rank, 9)


def test_what_recommend_puts_first_is_explained_among_what_it_ranked(
    make_taught: Callable[..., Recommender],
) -> None:
    recommender = make_taught()  # listed: the order of candidates in the prompt counts
    ranked = recommender.recommend(HISTORY)
    for one in ranked:
        found = explain(recommender, HISTORY, one.item_id)
        assert {other.item_id for other in found.candidates} <= {o.item_id for o in ranked}
    found = explain(recommender, HISTORY, recommender.recommend(HISTORY, top_k=4)[0].item_id)
    assert found.standing.rank == 1
    assert [c.title for c in found.candidates] == [
        one.title for one in recommender.recommend(HISTORY, top_k=4)
    ]


def test_the_teacher_can_be_left_out_and_still_says_what_it_thinks(
    make_taught: Callable[..., Recommender],
) -> None:
    recommender = make_taught(candidates="unlisted")
    found = explain(recommender, HISTORY, "i6", OTHERS, with_teacher=False)
    assert found.weights is None
    assert found.standing.score == found.standing.language_model
    assert set(found.standing.parts) == {"language_model"}
    assert found.teacher is not None


def test_adapters_are_left_out_one_by_one_and_together(recommender: Recommender) -> None:
    found = explain(recommender, HISTORY, "i6", OTHERS).adapters
    scores = [one.score for one in (found.both, found.without_prompt, found.without_lora)]
    assert len({*scores, found.neither.score}) == 4
    plain = recommender.scorer
    prompt = recommender.encoder.encode_prompts([_message(recommender)])
    answers = [recommender.answers[6]]
    with without_lora(plain.backbone):
        bare = replace(plain, soft_prompt=None).score(prompt, [answers])[0]
    assert found.neither.score == pytest.approx(float(bare[0]), abs=1e-5)
    assert found.together.score == pytest.approx(found.both.score - found.neither.score)
    assert found.soft_prompt.lead == pytest.approx(found.both.lead - found.without_prompt.lead)
    assert found.lora.lead == pytest.approx(found.both.lead - found.without_lora.lead)


def _message(recommender: Recommender) -> list[dict[str, str]]:
    from delrec_hf.instructions.templates import DOMAINS, lsr_messages

    return lsr_messages(DOMAINS["movie"], [TITLES[0], TITLES[2], TITLES[4]])


def test_a_lora_of_zeros_moves_nothing(recommender: Recommender) -> None:
    for name, parameter in recommender.model.named_parameters():
        if ".lora_B." in name:
            parameter.data.zero_()
    found = explain(recommender, HISTORY, "i6", OTHERS).adapters
    assert found.lora.score == found.lora.lead == 0  # exact: the same forward, plus zeros
    assert found.soft_prompt.score != 0
    assert found.together.score == found.soft_prompt.score


def test_the_model_is_what_it_was_also_after_an_error(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state() -> tuple[Any, ...]:
        ranked = recommender.recommend(HISTORY, OTHERS)
        return ranked, [one.requires_grad for one in recommender.model.parameters()]

    before = state()
    explain(recommender, HISTORY, "i6", OTHERS)
    assert state() == before
    own, calls = CandidateScorer.score, []

    def score(scorer: CandidateScorer, *asked: Any) -> Any:
        calls.append(scorer)
        if len(calls) == 3:  # the first one without LoRA
            assert any(getattr(m, "disable_adapters", False) for m in scorer.backbone.modules())
            raise RuntimeError("out of memory")
        return own(scorer, *asked)

    with monkeypatch.context() as patch:
        patch.setattr(CandidateScorer, "score", score)
        with pytest.raises(RuntimeError, match="out of memory"):
            explain(recommender, HISTORY, "i6", OTHERS)
    assert state() == before


def test_a_history_of_one_item_is_compared_with_none(
    make_taught: Callable[..., Recommender],
) -> None:
    found = explain(make_taught(), ["i0"], "i6", OTHERS)
    assert len(found.history) == 1
    assert np.isfinite(found.history[0].change.lead)
    assert "history is empty" in found.text()


def test_items_too_old_for_the_prompt_are_marked(recommender: Recommender) -> None:
    found = explain(recommender, ["i1", "i3", *HISTORY], "i6", OTHERS)  # prompts show three
    assert [one.is_read for one in found.history] == [False, False, True, True, True]
    assert [one.change.score for one in found.history[:2]] == [0, 0]
    assert "* Heathers (1988)" in found.text()
    assert found.standing == explain(recommender, HISTORY, "i6", OTHERS).standing


def test_without_a_teacher_the_candidates_are_drawn_and_stay_the_same(
    recommender: Recommender,
) -> None:
    drawn = explain(recommender, HISTORY, "i6").candidates
    assert len(drawn) == 4
    assert {"i6"} < {one.item_id for one in drawn} <= set(ITEMS) - set(HISTORY)
    assert explain(recommender, HISTORY, "i6").candidates == drawn


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"history": []}, "the history is empty"),
        ({"candidate": "The Matrx (1999)"}, r'did you mean "The Matrix \(1999\)"'),
        ({"history": ["zzzzzzzzz"]}, "is not among the 12 known items"),
        ({"candidates": []}, "nothing to compare the candidate with"),
        ({"candidates": ["i6"]}, "nothing to compare the candidate with"),
        ({"with_teacher": True}, "holds no teacher"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    recommender: Recommender, given: dict[str, Any], reason: str
) -> None:
    arguments = {"history": HISTORY, "candidate": "i6", **given}
    with pytest.raises(InputError, match=reason) as refused:
        explain(recommender, **arguments)
    assert "\n" not in str(refused.value)


def test_more_candidates_than_a_prompt_lists_are_refused(make_artefact: Make) -> None:
    recommender = Recommender.from_pretrained(make_artefact())
    with pytest.raises(InputError, match="5 candidates are compared, and this model's prompts"):
        explain(recommender, HISTORY, "i6", [*OTHERS, "i10"])


def test_the_dictionary_goes_through_json(
    make_taught: Callable[..., Recommender], tmp_path: Path
) -> None:
    found = explain(make_taught(), HISTORY, "i6")
    whole = found.to_dict()
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert whole["history"][0]["change"]["lead"] == found.history[0].change.lead
    found.save(tmp_path / "why.json")
    assert json.loads((tmp_path / "why.json").read_text(encoding="utf-8")) == whole


def test_the_picture_is_xml_and_holds_every_title(make_artefact: Make, tmp_path: Path) -> None:
    hard = ["<b>&amp;\"Quoted\"</b> & 'more'", "Tab\tand\x07bell", "A title of " + "many " * 20]
    titles = {**ITEMS, **{f"i{place}": title for place, title in enumerate(hard)}}
    made = make_artefact(candidates="unlisted", titles=titles)
    recommender = Recommender.from_pretrained(made)
    found = explain(recommender, ["i0", "i1", "i2"], "i6", ["i0", *OTHERS])
    found.save(tmp_path / "why.svg")
    root = ElementTree.parse(tmp_path / "why.svg").getroot()
    assert root.tag == f"{SVG}svg"
    written = {text for one in root.iter() for text in [one.text] if text}
    assert {hard[0], "Tab and bell", hard[2], 'Why "Fargo (1996)"?'} <= written
    bars = [one for one in root.iter(f"{SVG}rect") if one.get("fill") == "#0072b2"]
    assert len(bars) == len(found.history) + 4
    assert explain(recommender, ["i1"], "i0", OTHERS).figure().count("<b>") == 0


def test_the_text_says_what_was_measured(make_taught: Callable[..., Recommender]) -> None:
    text = explain(make_taught(), HISTORY, "i6").text()
    for shown in ('Why "Fargo (1996)" (i6)?', "Heat (1995)", "LoRA alone", "do not add up"):
        assert shown in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_file_of_another_kind_is_refused(recommender: Recommender, tmp_path: Path) -> None:
    found: Explanation = explain(recommender, HISTORY, "i6", OTHERS)
    with pytest.raises(InputError, match=r"expected a name that ends in \.svg"):
        found.save(tmp_path / "why.png")
    found.save(tmp_path / "why.txt")
    assert (tmp_path / "why.txt").read_text(encoding="utf-8") == found.text() + "\n"
