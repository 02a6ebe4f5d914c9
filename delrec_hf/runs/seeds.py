"""A recipe run once per seed, with one table of all."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from accelerate import PartialState

from delrec_hf.errors import InputError
from delrec_hf.evaluation.report import format_table
from delrec_hf.evaluation.seeds import summarise_seeds
from delrec_hf.files import write_json
from delrec_hf.logging import get_logger
from delrec_hf.runs.recipe import TRAININGS, Recipe

logger = get_logger(__name__)


def run_seeds(recipe: Recipe, run: Callable[[Recipe], None], *, report: bool) -> None:
    """Run a recipe once per seed in `seed-N` folders, and report all of them together.

    What no seed decides (data, calibration) is made by the first one and copied by the others.

    Args:
        recipe: A recipe with `seeds`.
        run: Runs the stages of one seed.
        report: Whether the stages end with the report.

    Raises:
        InputError: If a seed stands there twice.
    """
    if len(set(recipe.seeds)) < len(recipe.seeds):
        raise InputError(f"`seeds` is {recipe.seeds}; expected each seed once")
    ones = of_seeds(recipe)
    for seed, one in zip(recipe.seeds, ones, strict=True):
        logger.info("seed %d: %s", seed, one.output_dir)
        run(one)
    if not report or not PartialState().is_main_process:
        return
    folders = [one.output_dir for one in ones]
    results = summarise_seeds(folders, recipe.seeds)
    write_json(recipe.output_dir / "results.json", results)
    print(format_table(results))


def of_seeds(recipe: Recipe) -> list[Recipe]:
    """Return the recipe of each seed, which takes from those before it what no seed decides."""
    ones: list[Recipe] = []
    for seed in recipe.seeds:
        sections: dict[str, dict[str, Any]] = dict(recipe.sections)
        for name in TRAININGS:
            sections[name] = {**sections.get(name, {}), "seed": seed}
        folder = f"seed-{seed}"
        siblings = [one / folder for one in recipe.siblings] + [one.output_dir for one in ones]
        one = replace(
            recipe,
            output_dir=recipe.output_dir / folder,
            sections=sections,
            seeds=(),
            shared_dir=recipe.shared_dir or recipe.output_dir,
            siblings=tuple(siblings),
        )
        ones.append(one)
    return ones
