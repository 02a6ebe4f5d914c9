"""Every recipe that ships can be run."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from delrec_hf.resources import resource
from delrec_hf.runs.recipe import SECTIONS, Recipe, load_recipe
from delrec_hf.runs.run import Run
from delrec_hf.teachers.config import NEURAL

FOLDER = resource("recipes")
RECIPES = sorted(
    path
    for path in FOLDER.rglob("*.yaml")
    if path.parent.name not in ("accelerate_configs", "backbones", "search")
)


def test_there_are_recipes() -> None:
    names = {path.relative_to(FOLDER).as_posix() for path in RECIPES}
    assert names >= {"toy/quickstart.yaml", "toy/hidden.yaml"}
    assert names >= {"ml-100k/small.yaml", "ml-100k/qwen3-0.6b.yaml"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_section_of_a_shipped_recipe_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    whole = set(SECTIONS) - {"instructions", "calibrate"}  # what no recipe must say
    assert set(recipe.sections) == {"data", "teacher"} or whole <= set(recipe.sections)
    for section in recipe.sections:
        if section in ("teacher", "distil", "finetune"):
            Run(recipe).trainer_settings(section, section)
        else:
            recipe.settings(section)


@pytest.mark.parametrize(
    "path", sorted((FOLDER / "search").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_trial_of_a_search_is_valid(path: Path, tmp_path: Path) -> None:
    for kind, plan in yaml.safe_load(path.read_text(encoding="utf-8"))["teachers"].items():
        for key, values in {"type": [kind], **plan.get("try", {})}.items():
            for value in values:
                teacher = {"type": kind, **plan["start"], key: value}
                Run(Recipe(tmp_path, {"teacher": teacher})).trainer_settings("teacher", "teach")


SEARCHED = [
    FOLDER / dataset / f"{kind}.yaml"
    for dataset in ("ml-100k", "ml-1m", "beauty")
    for kind in ("sasrec", "gru4rec", "caser")
]


@pytest.mark.parametrize("path", SEARCHED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_settings_of_a_teachers_recipe_stand_in_the_log_of_its_search(path: Path) -> None:
    found = load_recipe(path).settings("teacher")
    log = FOLDER / "search" / f"{path.parent.name}.csv"
    with log.open(newline="", encoding="utf-8") as file:
        trials = [
            json.loads(row["settings"]) for row in csv.DictReader(file) if row["type"] == found.type
        ]
    assert any(all(getattr(found, key) == value for key, value in one.items()) for one in trials)


@pytest.mark.parametrize("kind", NEURAL)
def test_the_defaults_of_a_teacher_are_the_settings_found_on_movielens_100k(kind: str) -> None:
    given = load_recipe(FOLDER / "ml-100k" / f"{kind}.yaml")
    default = Recipe(given.output_dir, {"teacher": {"type": kind}})
    one, other = (recipe.settings("teacher").settings() for recipe in (given, default))
    assert {**one, "patience": 4} == other  # the one key in which GRU4Rec's recipe differs


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_recipe_names_a_place_of_one_machine(path: Path) -> None:
    for section in yaml.safe_load(path.read_text(encoding="utf-8")).values():
        values = section.values() if isinstance(section, dict) else [section]
        assert not [one for one in values if isinstance(one, str) and one.startswith(("/", "~"))]


def test_movielens_recipes_carry_the_terms_of_the_data() -> None:
    for path in [*(FOLDER / "ml-100k").glob("*.yaml"), *(FOLDER / "ml-1m").glob("*.yaml")]:
        terms = load_recipe(path).settings("data").terms
        assert "research use only" in terms
        assert "Harper and Konstan (2015)" in terms


def test_the_qwen_recipe_has_the_papers_settings() -> None:
    recipe = load_recipe(FOLDER / "ml-100k" / "qwen3-0.6b.yaml")
    distil = Run(recipe).trainer_settings("distil", "distil")
    finetune = Run(recipe).trainer_settings("finetune", "finetune")
    assert (distil.learning_rate, distil.weight_decay) == (5e-3, 1e-5)
    assert (finetune.learning_rate, finetune.weight_decay) == (1e-4, 1e-6)
    assert "lion" in distil.optim
    assert "lion" in finetune.optim
    assert distil.num_virtual_tokens == 80
