"""A recipe and its variants: what is made once, what is compared, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from delrec_hf.cli import main
from delrec_hf.errors import InputError
from delrec_hf.runs.recipe import Recipe, load_recipe
from delrec_hf.runs.study import run_study, variants_of
from tests.runs.films import sections, write_recipe

STUDY: dict[str, Any] = {
    "distil.num_virtual_tokens": [4, 5],
    "by hand": {"teacher.type": "markov", "finetune.controls": []},
}


def recipe(folder: Path, study: Any, **changes: dict[str, Any]) -> Recipe:
    return Recipe(folder / "run", sections(folder / "films", **changes), study=study)


def test_a_list_makes_a_variant_of_each_value_but_the_recipes_own(tmp_path: Path) -> None:
    found = variants_of(recipe(tmp_path, STUDY))
    assert [one.name for one in found] == ["distil.num_virtual_tokens=5", "by hand"]
    tokens, by_hand = (one.recipe for one in found)
    assert tokens.output_dir == tmp_path / "run/study/distil.num_virtual_tokens=5"
    assert tokens.sections["distil"]["num_virtual_tokens"] == 5
    assert by_hand.output_dir == tmp_path / "run/study/by-hand"
    assert by_hand.sections["teacher"]["type"] == "markov"
    assert by_hand.siblings == (tmp_path / "run", tokens.output_dir)


def test_a_variant_trains_lora_alone_of_the_controls_unless_it_names_them(tmp_path: Path) -> None:
    controls = {"controls": ["no-ta", "lora-only"]}
    tokens, by_hand = variants_of(recipe(tmp_path, STUDY, finetune=controls))
    assert tokens.recipe.sections["finetune"]["controls"] == ["lora-only"]
    assert by_hand.recipe.sections["finetune"]["controls"] == []


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        ({}, "names nothing to change"),
        (["distil.loss"], "names nothing to change"),
        ({"distil.num_virtual_tokens": [4]}, "changes nothing"),
        ({"num_virtual_tokens": [5]}, "names `num_virtual_tokens` .* SECTION.KEY"),
        ({"mine": {"distl.loss": "title"}}, "did you mean `distil`"),
        ({"a b": {"distil.seed": 1}, "a/b": {"distil.seed": 2}}, "two variants for the folder"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(tmp_path: Path, study: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        variants_of(recipe(tmp_path, study))


def test_a_mistake_in_the_last_variant_ends_the_study_before_it_begins(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**sections(films), "study": {"distil.num_virtual_tokens": 5, "x": {"finetune.rr": 1}}}
    path = write_recipe(tmp_path, tmp_path / "run", given)
    assert main(["study", "--config", str(path)]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("delrec: error: recipe key `rr` in section `finetune` is unknown")
    assert not (tmp_path / "run").exists()


def test_a_study_without_delrec_is_refused(tmp_path: Path) -> None:
    given = recipe(tmp_path, STUDY, evaluate={"systems": ["popularity", "teacher"]})
    with pytest.raises(InputError, match="is popularity, teacher; a study compares `delrec`"):
        run_study(given)
    assert not (tmp_path / "run").exists()


def test_paths_in_a_study_start_at_the_recipe(tmp_path: Path) -> None:
    study = {"lists": {"teacher.path": "./lists.parquet"}}
    path = write_recipe(tmp_path, tmp_path / "run", {"study": study})
    assert load_recipe(path).study["lists"]["teacher.path"] == str(tmp_path / "lists.parquet")


@pytest.mark.slow
def test_a_study_makes_each_thing_once_and_compares_user_by_user(
    finished: Path,
    films: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    study = Recipe(tmp_path / "run", sections(films), study=STUDY)
    with caplog.at_level("INFO", logger="delrec_hf"):
        run_study(study)
    assert caplog.messages[:2] == [
        "study: distil.num_virtual_tokens=4 is the recipe itself",
        "study: the recipe and 2 variants of it, 3 runs: 1 teachers, 2 soft prompts, 2 LoRA "
        "trainings, 2 evaluations to make, the rest is shared or finished",
    ]
    copied = [one.split(":")[0] for one in caplog.messages if "copied from" in one]
    assert copied == [
        *("prepare", "teach", "calibrate", "finetune/lora-only"),
        *("prepare", "calibrate"),
    ]
    found = json.loads((tmp_path / "run" / "study.json").read_text())
    tokens, by_hand = found["variants"]
    assert tokens["changes"] == {"distil.num_virtual_tokens": 5}
    assert {"teacher", "lora-only", "delrec", "delrec+teacher"} <= set(tokens["systems"])
    assert "lora-only" not in by_hand["systems"]
    users = [
        pq.read_table(folder / "logs" / "users.parquet")["delrec/ndcg@10"].to_numpy()
        for folder in (tmp_path / "run/study/distil.num_virtual_tokens=5", tmp_path / "run")
    ]
    (one,) = [
        one for one in tokens["comparisons"] if (one["b"], one["metric"]) == ("delrec", "ndcg@10")
    ]
    assert one["difference"] == pytest.approx(np.mean(users[0] - users[1]), abs=1e-12)
    assert one["p_holm"] >= one["p"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("by hand")

    caplog.clear()
    with caplog.at_level("INFO", logger="delrec_hf"):
        run_study(study)
    assert not [one for one in caplog.messages if ": wrote" in one or "copied" in one]
    assert json.loads((tmp_path / "run" / "study.json").read_text()) == found

    for record in tmp_path.rglob("run.json"):  # as an earlier version has left it
        content = json.loads(record.read_text())
        kept = {name: one for name, one in content["stages"].items() if "/" not in name}
        record.write_text(json.dumps(content | {"stages": kept}))
    caplog.clear()
    with caplog.at_level("INFO", logger="delrec_hf"):
        run_study(study)
    assert "0 LoRA trainings, 0 evaluations to make" in caplog.text
    assert "study: 0.0 hours are to come" in caplog.text
