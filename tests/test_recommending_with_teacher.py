"""The finished model and its teacher rank together, and the result says so."""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from delrec_hf import Recommender
from delrec_hf.cli import main
from delrec_hf.errors import InputError
from delrec_hf.files import write_json
from delrec_hf.hashes import fingerprint
from delrec_hf.hub.push import artefact_files
from delrec_hf.modeling.artefact import INDEX_FILE, TEACHER_FILES, ArtefactConfig, hold_teacher
from delrec_hf.ranking.fused_teacher import best_unseen
from delrec_hf.ranking.weighing import Fusion, Part, Scale
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.index import save_index
from delrec_hf.teachers.models.sasrec import SASRecConfig, SASRecModel
from tests.film_rows import ITEMS, TITLES

HISTORY = ["Heat (1995)", "Alien (1979)"]
LM, TEACHER = 0.5, 3.0
WEIGHTS = Fusion(
    {
        "delrec": Part(LM, (0.4, 0.6), Scale()),
        "teacher": Part(TEACHER, (2.0, 4.0), Scale("raw", 0.0, -9.0)),
    }
)


@pytest.fixture
def folder(make_artefact: Callable[..., Path], tmp_path: Path) -> Path:
    """An artefact with an untrained SASRec and weights."""
    torch.manual_seed(3)
    catalogue = fingerprint(list(ITEMS))
    config = SASRecConfig(num_items=len(ITEMS), hidden_size=8, catalogue=catalogue)
    model = SASRecModel(config)
    torch.nn.init.normal_(model.item_embedding.weight)
    model.save_pretrained(tmp_path / "taught")
    write_json(tmp_path / "taught" / "teacher.json", {"type": "sasrec", "catalogue": catalogue})
    made = make_artefact(fusion=WEIGHTS.to_dict())
    hold_teacher(tmp_path / "taught", made)
    return made


@pytest.fixture
def recommender(folder: Path) -> Recommender:
    return Recommender.from_pretrained(folder)


def advice(folder: Path, history: list[int]) -> np.ndarray:
    """The teacher's scores as its own class computes them."""
    model = SASRecModel.from_pretrained(folder / "teacher").eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([history]) + 1).scores[0].numpy()


def test_scores_are_the_weighted_sum_of_both(recommender: Recommender, folder: Path) -> None:
    offered = ["i3", "i7", "i8", "i9"]
    found = recommender.recommend(HISTORY, offered)
    alone = recommender.recommend(HISTORY, offered, with_teacher=False)
    assert {one.item_id: one.language_model for one in found} == {
        one.item_id: one.score for one in alone
    }
    expected = advice(folder, [0, 2])
    for one in found:
        assert one.teacher == pytest.approx(expected[int(one.item_id[1:])], abs=1e-5)
        assert one.score == pytest.approx(LM * one.language_model + TEACHER * one.teacher)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert [one.item_id for one in found] != [one.item_id for one in alone]


def test_prompts_that_show_a_teacher_need_one(make_artefact: Callable[..., Path]) -> None:
    made = make_artefact(prompt_teacher="list")
    with pytest.raises(InputError, match="show what its teacher says, and it holds none"):
        Recommender.from_pretrained(made)


def test_the_model_alone_is_what_it_was(recommender: Recommender, folder: Path) -> None:
    alone = recommender.recommend(HISTORY, top_k=100, with_teacher=False)
    assert len(alone) == len(TITLES) - 2
    assert all(one.teacher is None and one.score == one.language_model for one in alone)
    config = ArtefactConfig.load(folder)
    for name in TEACHER_FILES:
        (folder / "teacher" / name).unlink()
    (folder / "teacher").rmdir()
    assert config.fusion is not None
    assert Recommender.from_pretrained(folder).recommend(HISTORY, top_k=100) == alone


def test_the_teacher_retrieves_what_is_ranked(recommender: Recommender, folder: Path) -> None:
    scores = advice(folder, [0, 2])
    unseen = [row for row in range(len(TITLES)) if row not in (0, 2)]
    best = sorted(unseen, key=lambda row: -scores[row])
    found = recommender.recommend(HISTORY, top_k=3)
    assert {one.item_id for one in found} < {f"i{row}" for row in best[:4]}  # of one prompt
    listed = best_unseen(scores, [0, 2], 4)  # their order in the prompt counts
    ranked = recommender.recommend(HISTORY, [f"i{row}" for row in listed], top_k=3)
    assert found == ranked
    assert [one.item_id for one in recommender.recommend(HISTORY, retrieve=1)] == [f"i{best[0]}"]
    six = recommender.recommend(HISTORY, retrieve=6)
    assert {one.item_id for one in six} == {f"i{row}" for row in best[:6]}
    assert len(recommender.recommend(HISTORY, top_k=7)) == 7
    assert len(recommender.recommend(HISTORY, retrieve=1000, top_k=1000)) == len(unseen)


def test_the_order_of_the_prompt_does_not_tell_what_the_teacher_thinks() -> None:
    scores = np.arange(40.0)
    listed = best_unseen(scores, [39], 20)
    assert sorted(listed) == list(range(19, 39))
    assert abs(np.corrcoef(listed, range(20))[0, 1]) < 0.5


def test_the_whole_history_reaches_the_teacher(recommender: Recommender, folder: Path) -> None:
    long = ["i5", "i6", "i0", "i1", "i2"]  # the prompt shows three
    found = recommender.recommend(long, ["i8", "i9"])
    expected = advice(folder, [5, 6, 0, 1, 2])
    for one in found:
        assert one.teacher == pytest.approx(expected[int(one.item_id[1:])], abs=1e-5)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"retrieve": 0}, "retrieve is 0; expected 1 or more"),
        ({"retrieve": 3, "candidates": ["i5"]}, "give it or candidates"),
        ({"retrieve": 3, "with_teacher": False}, "retrieve needs the teacher"),
    ],
)
def test_what_makes_no_sense_together_is_refused(
    recommender: Recommender, given: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        recommender.recommend(HISTORY, **given)  # type: ignore[arg-type]


def test_a_model_without_teacher_or_weights_ranks_alone(
    make_artefact: Callable[..., Path], folder: Path
) -> None:
    plain = Recommender.from_pretrained(make_artefact("llama"))
    assert plain.recommend(HISTORY)[0].teacher is None
    with pytest.raises(InputError, match="holds no teacher"):
        plain.recommend(HISTORY, with_teacher=True)
    change(folder, fusion=None)
    unweighed = Recommender.from_pretrained(folder)
    assert unweighed.recommend(HISTORY)[0].teacher is None
    with pytest.raises(InputError, match=r"no fusion with it, which `delrec evaluate` measures"):
        unweighed.recommend(HISTORY, with_teacher=True)


def change(folder: Path, **changes: object) -> None:
    path = folder / "delrec_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_model_of_the_earlier_format_ranks_alone(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "delrec_config.json"
    content = json.loads(path.read_text())
    del content["fusion"]
    path.write_text(json.dumps({**content, "format_version": 2}))
    with caplog.at_level(logging.WARNING, "delrec_hf"):
        assert Recommender.from_pretrained(folder).recommend(HISTORY)[0].teacher is None
    assert "quantisation" not in caplog.text


@pytest.mark.parametrize("broken", [{"delrec": 1}, {}, [], {"delrec": {"weight": "x"}}])
def test_broken_weights_are_named(folder: Path, broken: object) -> None:
    change(folder, fusion=broken)
    with pytest.raises(InputError, match=r"`fusion` in .*delrec_config\.json is not the weights"):
        Recommender.from_pretrained(folder)


def test_a_teacher_of_another_catalogue_or_without_weights_is_named(folder: Path) -> None:
    path = folder / "teacher" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "catalogue": "other"}))
    with pytest.raises(InputError, match="another catalogue than these 12 items"):
        Recommender.from_pretrained(folder)
    (folder / "teacher" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no teacher with weights"):
        Recommender.from_pretrained(folder)


def test_teachers_without_weights_are_not_held(
    make_artefact: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taught = tmp_path / "taught"
    taught.mkdir()
    write_json(taught / "teacher.json", {"type": "markov"})
    made = make_artefact()
    with caplog.at_level(logging.INFO, "delrec_hf"):
        hold_teacher(taught, made)
    assert not (made / "teacher").exists()
    assert "goes without its teacher" in caplog.text


@pytest.mark.parametrize("candidates", ["listed", "unlisted"])
def test_several_users_at_once_get_what_each_gets_alone(folder: Path, candidates: str) -> None:
    facts = json.loads((folder / "delrec_config.json").read_text())
    write_json(folder / "delrec_config.json", {**facts, "candidates": candidates})
    recommender = Recommender.from_pretrained(folder)
    histories = [HISTORY, ["i5"], ["i9", "i0", "i3", "i4", "i6"]]
    together = recommender.recommend_many(histories, top_k=4)
    for history, found in zip(histories, together, strict=True):
        alone = recommender.recommend(history, top_k=4)
        assert [one.item_id for one in found] == [one.item_id for one in alone]
        scores = [one.score for one in found]
        assert scores == pytest.approx([one.score for one in alone], abs=1e-4)
        assert not {recommender.item_ids[recommender.find(one)] for one in history} & {
            one.item_id for one in found
        }


@pytest.mark.parametrize("scoring", ["sum", "calibrated"])
def test_new_items_are_ranked_by_the_language_model_alone_and_marked(
    folder: Path, scoring: str
) -> None:
    facts = json.loads((folder / "delrec_config.json").read_text())
    facts |= {"candidates": "unlisted", "scoring": scoring, "calibration_weight": 0.5}
    write_json(folder / "delrec_config.json", facts)
    before = Recommender.from_pretrained(folder)
    before = replace(before, log_priors=[-9.0] * len(before.titles))
    after = before.add_items({"new1": "Dark  City, The (1998)", "new2": TITLES[0]})
    assert after.titles[-2:] == ["The Dark City (1998)", f"{TITLES[0]} [2]"]
    known = [f"i{row}" for row in range(3, 10)]
    found = {one.item_id: one for one in after.recommend(HISTORY, [*known, "new1"], top_k=20)}
    assert {one: found[one].language_model for one in known} == pytest.approx(
        {one.item_id: one.language_model for one in before.recommend(HISTORY, known)}, abs=1e-4
    )
    new = found["new1"]
    assert (new.is_new, new.teacher, new.teacher_rank) == (True, None, None)
    assert not any(found[one].is_new for one in known)
    mean = np.mean([found[one].teacher for one in known])
    assert new.score == pytest.approx(LM * new.language_model + TEACHER * mean, abs=1e-4)
    retrieved = {one.item_id for one in after.recommend(HISTORY, top_k=20, retrieve=2)}
    assert len(retrieved) == 4
    assert {"new1", "new2"} < retrieved
    for one, other in zip(
        after.recommend(["new1", *HISTORY], known), before.recommend(HISTORY, known), strict=True
    ):
        assert one.teacher == pytest.approx(other.teacher, abs=1e-5) or one.item_id != other.item_id
    with pytest.raises(InputError, match="`new1` is in the catalogue already"):
        after.add_items({"new1": "Again"})
    with pytest.raises(InputError, match="item `x` has an empty title"):
        after.add_items({"x": " "})


def test_co_occurrence_stands_in_for_a_teacher_without_weights_and_is_named(
    make_artefact: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = Fusion(
        {
            "delrec": Part(LM, (0.4, 0.6), Scale()),
            "co-occurrence": Part(TEACHER, (2.0, 4.0), Scale("log", 0.01, 0.0)),
        }
    )
    made = make_artefact(fusion=weights.to_dict(), teacher={"type": "ranked_lists"})
    follows = np.random.default_rng(0).random((len(ITEMS), len(ITEMS)))
    counts = CoOccurrence(csr_array(follows), np.zeros(len(ITEMS)))
    save_index(counts, list(ITEMS), made / INDEX_FILE)
    recommender = Recommender.from_pretrained(made)
    expected = follows[2] + follows[0] / 2
    best = sorted(
        (row for row in range(len(TITLES)) if row not in (0, 2)), key=lambda row: -expected[row]
    )
    found = recommender.recommend(HISTORY, retrieve=5)
    assert {one.item_id for one in found} == {f"i{row}" for row in best[:5]}
    for one in found:
        counted = expected[int(one.item_id[1:])]
        assert one.teacher == pytest.approx(counted, rel=1e-6)
        log = np.log(counted + 0.01)
        assert one.score == pytest.approx(LM * one.language_model + TEACHER * log, rel=1e-6)
    assert INDEX_FILE in artefact_files(made)
    explained = recommender.explain(HISTORY, found[1].item_id, [one.item_id for one in found[:4]])
    assert set(explained.standing.parts) == {"language_model", "co-occurrence"}
    assert "Co-occurrence ranks it" in explained.text()
    log = np.log(expected[int(found[1].item_id[1:])] + 0.01)
    own = explained.standing.language_model
    assert explained.standing.score == pytest.approx(LM * own + TEACHER * log, rel=1e-6)
    capsys.readouterr()
    assert main(["recommend", "--model", str(made), "--history", *HISTORY]) == 0
    told = "retrieved by co-occurrence, ranked by the language model and co-occurrence: "
    assert capsys.readouterr().out.startswith(told)
    (made / INDEX_FILE).unlink()
    with pytest.raises(InputError, match="no index that stands in"):
        Recommender.from_pretrained(made).recommend(HISTORY, with_teacher=True)


def test_each_part_gives_its_own_ranks_among_all_that_were_ranked(recommender: Recommender) -> None:
    found = recommender.recommend(HISTORY, ["i3", "i7", "i8", "i9"])
    for score, rank in (("language_model", "language_model_rank"), ("teacher", "teacher_rank")):
        ordered = sorted(found, key=lambda one: -getattr(one, score))
        assert [getattr(one, rank) for one in ordered] == [1, 2, 3, 4]


def test_the_command_says_who_ranked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recommend", "--model", str(folder), "--history", *HISTORY, "--candidates", "i6", "i7"]
    capsys.readouterr()
    assert main(words) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert "the language model and its teacher" in first
    number = r" +-?\d+\.\d{3}"
    assert re.match(rf"  1 {number}{number} \(\d\){number} \(\d\)  \w", rows[0])
    assert main([*words, "--with_teacher", "false"]) == 0
    assert capsys.readouterr().out.startswith("ranked by the language model alone\n")
    assert main([*words, "--with_teacher", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(one["teacher"] is not None for one in found)
    assert main([*words[:-3], "--retrieve", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_the_teacher_is_sent_with_the_model(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "teacher" / "optimizer.pt").write_text("stray")
    with caplog.at_level(logging.WARNING, "delrec_hf"):
        names = artefact_files(folder)
    assert {f"teacher/{name}" for name in TEACHER_FILES} <= set(names)
    assert "teacher/optimizer.pt" in caplog.text
    assert "teacher/config.json" not in caplog.text
