"""Running the stages of a recipe: finished ones are skipped, killed ones go on where they were."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState

from delrec_hf.checkpoints import deciding_settings
from delrec_hf.data.config import DataConfig
from delrec_hf.data.sources import is_published, local_files
from delrec_hf.data.toy_world import TOY_WORLDS
from delrec_hf.errors import InputError
from delrec_hf.hashes import cached_content_hash, fingerprint
from delrec_hf.instructions.templates import DOMAINS, TEMPLATE_VERSION, load_domain
from delrec_hf.logging import get_logger
from delrec_hf.modeling.artefact import FORMAT_VERSION
from delrec_hf.runs.order import STAGES, Stage
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.record import RunRecord
from delrec_hf.runs.run import Run
from delrec_hf.runs.seeds import run_seeds
from delrec_hf.runs.stages import WORK

logger = get_logger(__name__)

_TRAININGS = ("teacher", "distil", "finetune")
"""Sections whose settings are TrainingArguments."""


def run_recipe(recipe: Recipe, only: str | None = None) -> None:
    """Run the stages of a recipe that are not finished.

    Args:
        recipe: What to run and where.
        only: Run this stage alone; the stages that it comes after must be finished.

    Raises:
        InputError: If the recipe cannot be used, or a stage that `only` needs is not finished.
    """
    import torch

    if recipe.seeds:
        PartialState(cpu=not torch.accelerator.is_available())
        run_seeds(recipe, lambda one: run_recipe(one, only), report=only in (None, "evaluate"))
        return
    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.num_processes > 1:
        logger.info("%d processes share the work", state.num_processes)
    stages = [stage for stage in STAGES if only is None or _takes_part(stage, only, recipe)]
    _check_sections(recipe, [section for stage in stages for section in stage.sections])
    _check_folder(recipe.output_dir)
    record = RunRecord(recipe.output_dir)
    prints: dict[str, str] = {}
    finished: set[str] = set()
    for stage in stages:
        settings = _settings(stage, recipe)
        prints[stage.name] = _fingerprint(stage, recipe, settings, prints, finished)
        outputs = [recipe.output_dir / name for name in stage.writes]
        done = record.is_done(stage.name, prints[stage.name], outputs)
        # No process may write the record while another one still reads it.
        state.wait_for_everyone()
        if only not in (None, stage.name):
            if not done:
                _refuse_unfinished(stage, only, recipe)
            finished |= {stage.name} if done else set()
            continue
        finished.add(stage.name)
        if done:
            logger.info("%s: finished before, skipped", stage.name)
            continue
        logger.info("%s: reads %s", stage.name, _reads(stage, recipe))
        why = record.why_again(stage.name, settings)
        if why is not None:
            logger.info("%s: runs again: %s", stage.name, why)
        start = time.perf_counter()
        if state.is_main_process:
            record.forget(stage.name)
        WORK[stage.name](Run(recipe, prints[stage.name], frozenset(finished)))
        seconds = time.perf_counter() - start
        state.wait_for_everyone()
        if state.is_main_process:
            record.finish(stage.name, prints[stage.name], settings, seconds)
            _remove_checkpoints(recipe.output_dir / "checkpoints", stage.name)
        state.wait_for_everyone()
        written = ", ".join(map(str, outputs))
        logger.info("%s: wrote %s in %.0f s", stage.name, written, seconds)


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


def _check_sections(recipe: Recipe, needed: list[str]) -> None:
    """Find every mistake in the recipe before the first stage works for an hour."""
    run = Run(recipe)
    for section in dict.fromkeys([*needed, *recipe.sections]):
        if section in _TRAININGS:
            run.trainer_settings(section, section)
        else:
            recipe.settings(section)
    load_domain(recipe.settings("data").domain)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output_dir {folder} cannot be a folder: {error.strerror}; give another one"
        ) from error


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


def _settings(stage: Stage, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the settings that decide a stage's outcome, defaults filled in, by section."""
    found = {}
    for section in stage.sections:
        if section in _TRAININGS:
            config = Run(recipe).trainer_settings(section, section)
            found[section] = deciding_settings(config, recipe.sections.get(section, {}))
        else:
            found[section] = asdict(recipe.settings(section))
    if stage.name == "prepare":
        found["data"]["path"] = recipe.settings("data").dataset_name
    if stage.name == "evaluate" and "backbone" in recipe.sections:
        found["backbone"] = asdict(recipe.settings("backbone"))
    if stage.name in ("distil", "finetune"):  # both learn and validate by these scores
        found["evaluate"] = {"scoring": recipe.settings("evaluate").scoring}
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(found, default=str))
    return plain


def _fingerprint(
    stage: Stage,
    recipe: Recipe,
    settings: Mapping[str, Any],
    before: Mapping[str, str],
    finished: set[str],
) -> str:
    """Hash what decides a stage's outcome: settings, inputs, wording and formats."""
    inputs = [before[name] for name in stage.after]
    inputs += [before[name] for name in stage.uses if name in finished]
    if stage.name == "prepare":
        data = recipe.settings("data")
        domain = data.domain
        inputs += [_source_print(data), domain if domain in DOMAINS else _print_of(domain)]
    taken = recipe.settings("teacher").path if stage.name == "teach" else None
    if taken is not None:
        inputs.append(_print_of(taken))
    shows_teacher = settings.get("instructions", {}).get("teacher", "none") != "none"
    if stage.name == "calibrate" and shows_teacher and "teach" in finished:
        inputs.append(before["teach"])
    if stage.name in ("calibrate", "evaluate") and "backbone" in settings:
        inputs.append(_print_of(recipe.settings("backbone").model_name_or_path))
    published = recipe.settings("evaluate").candidates_file if stage.name == "evaluate" else None
    if published is not None:
        inputs.append(_print_of(str(published)))
    return fingerprint(stage.name, settings, inputs, TEMPLATE_VERSION, FORMAT_VERSION)


def _source_print(config: DataConfig) -> str:
    """Hash the files that are read and no others: a run's folder may lie beside them."""
    files = None
    if config.path not in TOY_WORLDS and not is_published(config.path):
        files = local_files(config.path, config.interactions, config.items)
    return config.path if files is None else cached_content_hash(*filter(None, files))


def _print_of(place: str) -> str:
    """Hash what lies in a folder or file; a name, of something on the Hub, stands for itself."""
    return cached_content_hash(Path(place)) if Path(place).exists() else place
