"""Running the stages of a recipe: finished ones are skipped, killed ones go on where they were."""

import os
import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from accelerate import PartialState

from delrec_hf.errors import InputError
from delrec_hf.instructions.templates import load_domain
from delrec_hf.logging import get_logger
from delrec_hf.runs.lock import alone_in
from delrec_hf.runs.order import STAGES, Stage
from delrec_hf.runs.prints import stage_step
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from delrec_hf.runs.seeds import run_seeds
from delrec_hf.runs.stages import WORK
from delrec_hf.runs.steps import found, once
from delrec_hf.runs.trainings import check_prompts

logger = get_logger(__name__)


def run_recipe(recipe: Recipe, only: str | None = None) -> None:
    """Run the stages of a recipe that are not finished.

    Args:
        recipe: What to run and where.
        only: Run this stage alone; the stages that it comes after must be finished.

    Raises:
        InputError: If the recipe cannot be used, a stage that `only` needs is not finished, or
            another run is at work in the folder.
    """
    import torch

    state = PartialState(cpu=not torch.accelerator.is_available())
    _leave_precision_to_the_recipe()
    if recipe.seeds:
        with alone_in(recipe.output_dir):
            run_seeds(recipe, lambda one: run_recipe(one, only), report=only in (None, "evaluate"))
        return
    if state.num_processes > 1:
        logger.info("%d processes share the work", state.num_processes)
    stages = [stage for stage in STAGES if only is None or _takes_part(stage, only, recipe)]
    check_sections(recipe, [section for stage in stages for section in stage.sections])
    with alone_in(recipe.output_dir):
        _run_stages(recipe, stages, only)


def _leave_precision_to_the_recipe() -> None:
    """Forget the precision of an accelerate config.

    TrainingArguments would take it where a section has neither `bf16` nor `fp16`: the teacher, and
    every stage on a CPU, would train otherwise than in a process that is started without.
    """
    given = os.environ.pop("ACCELERATE_MIXED_PRECISION", "no")
    if given != "no":
        logger.warning(
            "the accelerate config's `mixed_precision: %s` is left out: `bf16` and `fp16` of the "
            "recipe's sections say how each stage computes",
            given,
        )


def _run_stages(recipe: Recipe, stages: Sequence[Stage], only: str | None) -> None:
    """Run what is not finished of some stages, or `only` one after those that it needs."""
    state = PartialState()
    prints: dict[str, str] = {}
    finished: set[str] = set()
    for stage in stages:
        step = stage_step(stage, recipe, prints, finished)
        prints[stage.name] = step.print_
        if only not in (None, stage.name):
            there = found(step, recipe.output_dir, recipe.siblings)
            if not there:
                _refuse_unfinished(stage, only, recipe)
            finished |= {stage.name} if there else set()
            continue
        finished.add(stage.name)
        run = Run(recipe, step.print_, frozenset(finished), dict(prints))
        work = partial(WORK[stage.name], run)
        once(step, recipe.output_dir, recipe.siblings, work, _reads(stage, recipe))
        if state.is_main_process:  # also those of a run that was killed just before this
            _remove_checkpoints(recipe.output_dir / "checkpoints", stage.name)
        state.wait_for_everyone()


def _takes_part(stage: Stage, only: str, recipe: Recipe) -> bool:
    """Say whether a stage is `only`, comes before it, or is used by it and can have been run."""
    wanted = next(one for one in STAGES if one.name == only)
    if stage.name in wanted.uses:
        return "backbone" not in stage.sections or "backbone" in recipe.sections
    names = [one.name for one in STAGES]
    return names.index(stage.name) <= names.index(only)


def _refuse_unfinished(stage: Stage, only: str | None, recipe: Recipe) -> None:
    wanted = next(one for one in STAGES if one.name == only)
    if stage.name in wanted.after:
        raise InputError(
            f"stage `{only}` reads what `{stage.name}` writes, and {recipe.output_dir} holds no "
            f"finished `{stage.name}` of this recipe; run `delrec {stage.command}` first, or "
            "`delrec run` for all"
        )


def check_sections(recipe: Recipe, needed: Iterable[str]) -> None:
    """Find every mistake in the recipe before the first stage works for an hour.

    Args:
        recipe: The recipe.
        needed: The sections that its stages read, besides those that it names.

    Raises:
        InputError: If a section cannot be used.
    """
    run = Run(recipe)
    sections = dict.fromkeys([*needed, *recipe.sections])
    for section in sections:
        run.settings(section)
    if "finetune" in sections:
        check_prompts(run)
    load_domain(recipe.settings("data").domain)


def _remove_checkpoints(folder: Path, stage: str) -> None:
    shutil.rmtree(folder / stage, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _reads(stage: Stage, recipe: Recipe) -> str:
    if stage.name == "prepare":
        return str(recipe.settings("data").path)
    names = [name for other in STAGES if other.name in stage.after for name in other.writes]
    places = [str(recipe.output_dir / name) for name in names]
    if "backbone" in stage.sections:
        places.append(f"backbone {recipe.settings('backbone').model_name_or_path}")
    return ", ".join(places)
