"""What a recipe accepts, and how it says no."""

from pathlib import Path
from typing import Any

import pytest

from delrec_hf.errors import InputError
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe, load_recipe
from delrec_hf.runs.run import Run


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def check(path: Path, flags: list[str]) -> None:
    recipe = load_recipe(path, flags)
    for section in recipe.sections:
        recipe.settings(section)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "output_dir: a\ndata: {path: toy, history_length: 5}\n")
    recipe = load_recipe(path, ["--data.history_length", "7", "--output_dir", "b"])
    assert recipe.output_dir == Path("b")
    assert recipe.settings("data").history_length == 7


def test_bare_flags_go_to_the_section_of_the_stage(tmp_path: Path) -> None:
    path = write(tmp_path, "output_dir: a\ndata: {path: toy}\n")
    assert load_recipe(path, ["--history_length", "7"], "data").settings("data").history_length == 7


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, "output_dir: a\ndistil: {learning_rate: 5e-3}\n")
    assert load_recipe(path).sections["distil"]["learning_rate"] == 5e-3


def test_a_teacher_may_be_given_by_its_type_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "output_dir: a\nteacher: gru4rec\n")
    assert load_recipe(path).sections["teacher"] == {"type": "gru4rec"}
    for section in ("", "teacher"):
        recipe = load_recipe(path, ["--teacher", "caser"], section)
        assert recipe.sections["teacher"] == {"type": "caser"}


def test_paths_with_a_leading_dot_start_at_the_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, "output_dir: a\ndata: {path: ../films}\n")
    assert Path(load_recipe(path).sections["data"]["path"]) == tmp_path / "../films"


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("distil: {learning_rat: 1}", [], "did you mean `learning_rate`"),
        ("distill: {learning_rate: 1}", [], "did you mean `distil`"),
        ("data: {path: toy, history_length: ten}", [], "expected a whole number"),
        ("data: {history_length: 5}", [], "`data.path` is missing"),
        ("distil: {max_grad_norm: .inf}", [], "is inf; expected a finite number"),
        ("finetune: {learning_rate: .nan}", [], "is nan; expected a finite number"),
        ("distil: {eval_strategy: no}", [], "reads a bare yes, no, .*: write it in quotes"),
        ("data: {path: toy}", ["--dta.path", "x"], "did you mean `data`"),
        ("data: [1, 2]", [], "must hold keys and values"),
        ("data: {path: toy", [], "is not valid YAML"),
        ("", [], "holds no sections"),
    ],
)
def test_mistakes_are_named_with_the_cure(
    tmp_path: Path, text: str, flags: list[str], message: str
) -> None:
    path = write(tmp_path, f"output_dir: a\n{text}\n" if text else "")
    with pytest.raises(InputError, match=message) as caught:
        check(path, flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("distil", "finetune", "reason"),
    [
        ({"tasks": ["ta"]}, {"controls": ["no-ta"]}, "nothing is left to distil"),
        ({"prompt_type": "cartridge"}, {"controls": ["cartridge"]}, "that is delrec itself"),
        (
            {"prompt_type": "cartridge"},
            {"gradient_checkpointing": True},
            "`finetune.gradient_checkpointing` is true",
        ),
        (
            {"gradient_checkpointing": True},
            {"controls": ["cartridge"]},
            "`distil.gradient_checkpointing` is true",
        ),
    ],
)
def test_prompts_that_cannot_be_distilled_are_refused_before_the_first_stage(
    tmp_path: Path, distil: dict[str, Any], finetune: dict[str, Any], reason: str
) -> None:
    sections = {"data": {"path": "toy"}, "distil": distil, "finetune": finetune}
    with pytest.raises(InputError, match=reason) as refused:
        run_recipe(Recipe(tmp_path / "run", sections | {"backbone": {"model_name_or_path": "toy"}}))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml does not exist"):
        load_recipe(tmp_path / "absent.yaml")


def test_a_single_value_is_a_list_of_one_where_a_list_is_due(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("output_dir: runs\nfinetune: {controls: no-ta}\n", encoding="utf-8")
    flags = ["--distil.tasks", "rps", "--finetune.lora_target_modules", "all-linear"]
    recipe = load_recipe(path, flags)
    run = Run(recipe)
    assert run.trainer_settings("distil", "distil").tasks == ["rps"]
    finetune = run.trainer_settings("finetune", "finetune")
    assert finetune.controls == ["no-ta"]
    assert finetune.lora_target_modules == "all-linear"
