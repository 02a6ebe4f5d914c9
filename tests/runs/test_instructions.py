"""What stage 2 shows: the teacher, if it has not learned from whom it speaks of; a chat."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from delrec_hf import Recommender
from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.modeling.artefact import ArtefactConfig
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from tests.runs.films import BACKBONE, STAGES, sections, stages_run, write_films


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("data") / "films", users=24)


SHOWN: dict[str, dict[str, Any]] = {
    "none": {},
    "list": {"teacher": "list"},
    "order": {"teacher": "order"},
    "turns": {"turns": True, "candidates": "unlisted"},
}


def recipe(films: Path, folder: Path, shown: str) -> Recipe:
    short = {"finetune": {"controls": []}, "instructions": SHOWN[shown]}
    return Recipe(folder, sections(films, teacher={"folds": 2}, **short))


def test_in_sample_lists_are_refused(films: Path, tmp_path: Path) -> None:
    wanted = recipe(films, tmp_path, "list")
    run_recipe(wanted, "prepare")
    with pytest.raises(InputError, match="holds no teacher"):
        run_recipe(wanted, "calibrate")
    wanted.sections["teacher"]["folds"] = 0
    run_recipe(wanted, "teach")
    with pytest.raises(InputError, match=r"`instructions.teacher: list` shows .*teacher.folds: 5"):
        run_recipe(wanted, "calibrate")


@pytest.mark.parametrize("shown", ["list", "order", "turns"])
def test_the_recommender_asks_as_the_report_did(
    films: Path, tmp_path: Path, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in STAGES[: STAGES.index("evaluate")]:
        run_recipe(recipe(films, tmp_path, shown), stage)
    kept = ArtefactConfig.load(tmp_path / "model")
    assert (kept.prompt_teacher, kept.turns) == {
        "list": ("list", False), "order": ("order", False), "turns": ("none", True)
    }[shown]  # fmt: skip
    run = Run(recipe(films, tmp_path, shown))
    prepared = PreparedData.load(tmp_path / "data")
    examples = prepared.examples["test"].select(range(5))
    rows = run.instruction_rows(AutoTokenizer.from_pretrained(BACKBONE), 0).rows(
        "lsr", "test", examples
    )
    # As if nothing had been fitted: the teacher still speaks in the prompts.
    config = ArtefactConfig.load(tmp_path / "model")
    config.__dict__["fusion"] = None
    config.save(tmp_path / "model")
    recommender = Recommender.from_pretrained(tmp_path / "model")
    asked = []
    write = recommender.encoder.encode_prompts
    monkeypatch.setattr(
        type(recommender.encoder),
        "encode_prompts",
        lambda self, messages: asked.extend(messages) or write(messages),
    )
    for row, example in zip(rows, examples, strict=True):
        (items,) = (
            one["items"] for one in prepared.sequences if one["user_id"] == example["user_id"]
        )
        history = [prepared.items[item]["item_id"] for item in items[: example["position"]]]
        found = recommender.recommend(history, row["candidates"])
        assert all(one.teacher is None for one in found)
        assert asked[0] == row["prompt"]  # what all prompts begin with is asked for after it, once
        asked.clear()


def test_another_teacher_calibrates_again_only_where_prompts_show_it(
    films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for shown, again in (("none", ["teach"]), ("list", ["teach", "calibrate"])):
        folder = tmp_path / shown
        for stage in ("prepare", "teach", "calibrate"):
            run_recipe(recipe(films, folder, shown), stage)
        other = recipe(films, folder, shown)
        other.sections["teacher"]["seed"] = 7
        ran = [one for name in ("teach", "calibrate") for one in stages_run(other, caplog, name)]
        assert ran == again
