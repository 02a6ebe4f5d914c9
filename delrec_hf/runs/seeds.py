"""A recipe run once per seed, with one table of all."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from delrec_hf.errors import InputError
from delrec_hf.evaluation.report import format_table
from delrec_hf.evaluation.seeds import summarise_seeds
from delrec_hf.files import replace_folder, write_json
from delrec_hf.logging import get_logger
from delrec_hf.runs.order import STAGES
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.record import RunRecord

SEEDED = ("teacher", "distil", "finetune")
"""Sections whose key `seed` is each of the recipe's seeds in turn."""

logger = get_logger(__name__)


def run_seeds(recipe: Recipe, run: Callable[[Recipe], None], *, report: bool) -> None:
    """Run a recipe once per seed in `seed-N` folders, and report all of them together.

    What no seed decides (data, calibration) is made by the first one and copied to the others.

    Args:
        recipe: A recipe with `seeds`.
        run: Runs the stages of one seed.
        report: Whether the stages end with the report.

    Raises:
        InputError: If a seed stands there twice.
    """
    if len(set(recipe.seeds)) < len(recipe.seeds):
        raise InputError(f"`seeds` is {recipe.seeds}; expected each seed once")
    ones = [_of_seed(recipe, seed) for seed in recipe.seeds]
    state = PartialState()
    for seed, one in zip(recipe.seeds, ones, strict=True):
        logger.info("seed %d: %s", seed, one.output_dir)
        if state.is_main_process and one is not ones[0]:
            _share(ones[0].output_dir, one.output_dir)
        state.wait_for_everyone()
        run(one)
    if not report or not state.is_main_process:
        return
    folders = [one.output_dir for one in ones]
    results = summarise_seeds(folders, recipe.seeds)
    write_json(recipe.output_dir / "results.json", results)
    print(format_table(results))


def _of_seed(recipe: Recipe, seed: int) -> Recipe:
    sections: dict[str, dict[str, Any]] = dict(recipe.sections)
    for name in SEEDED:
        sections[name] = {**sections.get(name, {}), "seed": seed}
    folder = recipe.output_dir / f"seed-{seed}"
    return replace(
        recipe, output_dir=folder, sections=sections, seeds=(), shared_dir=recipe.output_dir
    )


def _share(first: Path, other: Path) -> None:
    """Copy what the first seed has made and no seed decides, if it is not there."""
    done, record = RunRecord(first), RunRecord(other)
    for stage in STAGES:
        depends = set(SEEDED) & set(stage.sections) or stage.name == "evaluate"
        if depends or stage.name not in done.stages or stage.name in record.stages:
            continue
        for name in stage.writes:
            with replace_folder(other / name) as aside:
                shutil.copytree(first / name, aside, dirs_exist_ok=True)
        record.take(stage.name, done)
        logger.info("%s: copied from %s", stage.name, first)
