"""A finished model as one object: histories in, ranked items out."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from delrec_hf import Recommender
from delrec_hf.cli import main
from delrec_hf.errors import InputError
from delrec_hf.instructions.templates import DOMAINS, lsr_prompt
from delrec_hf.ranking import ranker

Make = Callable[..., Path]
HISTORY = ["Heat (1995)", "Alien (1979)"]


@pytest.fixture
def recommender(make_artefact: Make) -> Recommender:
    return Recommender.from_pretrained(make_artefact())


def _ids(found: list[Any]) -> list[str]:
    return [one.item_id for one in found]


def test_titles_and_ids_name_the_same_items(recommender: Recommender) -> None:
    by_title = recommender.recommend(HISTORY, ["Fargo (1996)", "M (1931)"])
    by_id = recommender.recommend(["i0", "i2"], ["i6", "i7"])
    assert by_title == by_id  # exact, here and below: the same prompts in the same batches
    assert {one.item_id: one.title for one in by_id} == {"i6": "Fargo (1996)", "i7": "M (1931)"}
    assert by_id[0].score >= by_id[1].score


@pytest.mark.parametrize(
    ("given", "item_id"),
    [
        ("the matrix (1999)", "i4"),
        ("Matrix, The (1999)", "i4"),
        ("  MATRIX, THE (1999) ", "i4"),
        ("a bug's  life (1998)", "i11"),
        ("Bug's Life, A (1998)", "i11"),
        ("bug's life, a (1998)", "i11"),
        ("A Bug&#39;s <i>Life</i>\n(1998)", "i11"),
        ("\ufeffA Bug's\u200b Life (1998)", "i11"),
        ("i7", "i7"),
        ("id:i7", "i7"),
        ("title:m (1931)", "i7"),
    ],
)
def test_titles_are_found_however_they_are_written(
    recommender: Recommender, given: str, item_id: str
) -> None:
    assert recommender.item_ids[recommender.find(given)] == item_id


def test_a_name_of_several_items_is_refused_in_history_and_candidates(make_artefact: Make) -> None:
    titles = {"7": "21", "21": "Amber Piano", "a": "Emma", "b": "Emma [2]", "c": "Heat"}
    recommender = Recommender.from_pretrained(make_artefact(titles=titles))
    with pytest.raises(InputError, match=r'"Amber Piano" \(id 21\) or "21" \(id 7\)'):
        recommender.recommend(["21"])
    with pytest.raises(InputError, match=r'"Emma" \(id a\) or "Emma \[2\]" \(id b\)'):
        recommender.recommend(["Heat"], ["emma", "21"])
    found = recommender.recommend(["Heat"], ["id:21", "title:21", "Emma", "id:b"])
    assert sorted(_ids(found)) == ["21", "7", "a", "b"]


def test_an_unknown_title_suggests_the_nearest(recommender: Recommender) -> None:
    with pytest.raises(InputError) as refused:
        recommender.recommend(["The Matrx (1999)"])
    message = str(refused.value)
    assert '"The Matrx (1999)"' in message
    assert 'did you mean "The Matrix (1999)"' in message
    assert "\n" not in message
    with pytest.raises(InputError, match="give a title or id"):
        recommender.recommend(HISTORY, ["zzzzzzzzzzzz"])


def test_scores_are_log_probabilities_of_the_titles_as_answers(recommender: Recommender) -> None:
    candidates = ["Fargo (1996)", "M (1931)", "Toy Story (1995)"]
    found = {one.title: one.score for one in recommender.recommend(HISTORY, candidates)}
    # The tournament draws the order in which the prompt lists its candidates.
    orders = itertools.permutations(candidates)
    assert any(found == pytest.approx(_by_hand(recommender, order), abs=1e-3) for order in orders)


def _by_hand(recommender: Recommender, candidates: Sequence[str]) -> dict[str, float]:
    tokenizer = recommender.encoder.tokenizer
    messages = [{"role": "user", "content": lsr_prompt(DOMAINS["movie"], HISTORY, candidates)}]
    head = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    scores = {}
    for title in candidates:
        answer = [*tokenizer(title)["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([tokenizer(head)["input_ids"] + answer])
        with torch.inference_mode():
            rows = recommender.model(input_ids=ids).logits[0, -len(answer) - 1 : -1]
        scores[title] = float(rows.log_softmax(-1)[range(len(answer)), answer].sum())
    return scores


def test_without_candidates_the_catalogue_is_ranked_but_for_the_history(
    recommender: Recommender,
) -> None:
    found = recommender.recommend(HISTORY, top_k=1000, disable_tqdm=True)
    assert sorted(_ids(found)) == sorted(set(recommender.item_ids) - {"i0", "i2"})


def test_the_whole_catalogue_as_candidates_is_the_catalogue(recommender: Recommender) -> None:
    others = [title for title in recommender.titles if title not in HISTORY]
    assert recommender.recommend(HISTORY, others) == recommender.recommend(HISTORY)


def test_top_k_cuts_the_list(recommender: Recommender) -> None:
    everything = recommender.recommend(HISTORY, top_k=100)
    assert recommender.recommend(HISTORY, top_k=3) == everything[:3]
    candidates = ["i5", "i6"]
    assert len(recommender.recommend(HISTORY, candidates, top_k=5)) == 2


def test_only_the_last_items_of_a_long_history_are_shown(recommender: Recommender) -> None:
    candidates = ["i8", "i9", "i10"]
    long = recommender.recommend(["i3", "i4", "i0", "i1", "i2"], candidates)
    assert long == recommender.recommend(["i0", "i1", "i2"], candidates)
    assert long != recommender.recommend(["i1", "i2"], candidates)
    assert {"i3", "i4"}.isdisjoint(_ids(recommender.recommend(["i3", "i4", "i0", "i1", "i2"])))


def test_a_candidate_named_twice_is_ranked_once(recommender: Recommender) -> None:
    assert len(recommender.recommend(HISTORY, ["i6", "Fargo (1996)", "fargo (1996)", "i7"])) == 2


def test_the_history_matters(recommender: Recommender) -> None:
    candidates = ["i8", "i9"]
    assert recommender.recommend(["i0"], candidates) != recommender.recommend(["i1"], candidates)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"history": []}, "history is empty"),
        ({"history": ["i0"], "top_k": 0}, "expected 1 or more"),
        ({"history": ["i0"], "candidates": []}, "no candidate"),
        ({"history": [f"i{number}" for number in range(12)]}, "no candidate"),
    ],
)
def test_nothing_to_rank_is_refused(
    recommender: Recommender, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        recommender.recommend(**arguments)


def test_the_mean_is_used_where_the_artefact_says_so(make_artefact: Make) -> None:
    folder = make_artefact()
    by_sum = Recommender.from_pretrained(folder).recommend(HISTORY, ["i6"])[0].score
    path = folder / "delrec_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "scoring": "mean"}))
    recommender = Recommender.from_pretrained(folder)
    by_mean = recommender.recommend(HISTORY, ["i6"])[0].score
    answer = recommender.encoder.encode_answers(["Fargo (1996)"])[0]
    assert by_mean == pytest.approx(by_sum / len(answer), rel=1e-5)


def test_two_items_that_differ_in_case_alone_are_both_found(make_artefact: Make) -> None:
    titles = {"a": "Heat", "b": "HEAT", "c": "Alien"}
    recommender = Recommender.from_pretrained(make_artefact(titles=titles))
    assert [recommender.item_ids[recommender.find(title)] for title in titles.values()] == [
        "a",
        "b",
        "c",
    ]


def test_a_missing_catalogue_is_named(make_artefact: Make) -> None:
    folder = make_artefact()
    (folder / "catalogue.parquet").unlink()
    with pytest.raises(InputError, match=r"catalogue\.parquet"):
        Recommender.from_pretrained(folder)


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        ([], {}),
        (["--torch_dtype", "float32", "--device", "cpu"], {"torch_dtype": "float32"}),
        (["--load_in_4bit", "false"], {"load_in_4bit": False}),
        (["--torch_dtype", "float32", "--load_in_4bit"], {"torch_dtype": "float32"}),
    ],
)
def test_the_command_recommends_in_the_precision_of_training_or_the_one_asked_for(
    make_artefact: Make,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    given: dict[str, Any],
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = make_artefact("qwen2-wide", loading={"load_in_4bit": True, "torch_dtype": "bfloat16"})
    words = ["--model", str(folder), "--history", *HISTORY, "--candidates", "i6", "i7", "--json"]
    assert main(["recommend", *words, *flags]) == 0
    found = {one["item_id"]: one["score"] for one in json.loads(capsys.readouterr().out)}
    recommender = Recommender.from_pretrained(folder, **given)
    expected = recommender.recommend(HISTORY, ["i6", "i7"])
    # The same computation twice; where tensors lie in memory may change the last bits.
    assert found == pytest.approx({one.item_id: one.score for one in expected}, abs=1e-4)
    if given:
        as_trained = Recommender.from_pretrained(folder).recommend(HISTORY, ["i6", "i7"])
        assert found != pytest.approx({one.item_id: one.score for one in as_trained}, abs=1e-4)


def test_a_flag_of_loading_that_cannot_be_read_is_one_line(
    make_artefact: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recommend", "--model", str(make_artefact()), "--history", *HISTORY]
    capsys.readouterr()
    for flags, reason in (
        (["--load_in_4bit", "maybe"], "`maybe` is neither true nor false"),
        (["--torch_dtype", "float8"], "float8"),
        (["--device", "gpu"], "device `gpu` cannot be used here"),
    ):
        assert main([*words, *flags]) == 2
        error = capsys.readouterr().err.strip()
        assert reason in error
        assert "\n" not in error


def test_the_whole_catalogue_at_once_ranks_as_its_items_do_as_candidates(
    make_artefact: Callable[..., Path],
) -> None:
    recommender = Recommender.from_pretrained(make_artefact(candidates="unlisted"))
    history = [recommender.titles[0], recommender.titles[4]]
    unseen = [one for one in recommender.item_ids if recommender.find(f"id:{one}") not in (0, 4)]
    everything = recommender.recommend(history, top_k=len(unseen))
    one_by_one = recommender.recommend(history, unseen, top_k=len(unseen))
    assert [one.item_id for one in everything] == [one.item_id for one in one_by_one]
    for one, other in zip(everything, one_by_one, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_looking_for_the_best_of_a_large_catalogue_finds_those_of_scoring_it(
    make_artefact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = Recommender.from_pretrained(make_artefact(candidates="unlisted"))
    scored = recommender.recommend(HISTORY, top_k=4)
    monkeypatch.setattr(ranker, "_SEARCHED", 0)
    looked_for = recommender.recommend(HISTORY, top_k=4)
    assert _ids(looked_for) == _ids(scored)
    assert [one.language_model_rank for one in looked_for] == [1, 2, 3, 4]
    for one, other in zip(looked_for, scored, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
    assert len(recommender.recommend(HISTORY, top_k=100)) == len(recommender.titles) - 2
