"""What decides the outcome of each stage, hashed: settings, inputs, wording and formats."""

import json
from collections.abc import Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from delrec_hf.checkpoints import deciding_settings
from delrec_hf.data.config import DataConfig
from delrec_hf.data.sources import is_published, local_files
from delrec_hf.data.toy_world import TOY_WORLDS
from delrec_hf.hashes import cached_content_hash, fingerprint
from delrec_hf.instructions.templates import DOMAINS, TEMPLATE_VERSION
from delrec_hf.modeling.artefact import FORMAT_VERSION
from delrec_hf.runs.order import STAGES, Stage
from delrec_hf.runs.recipe import TRAININGS, Recipe
from delrec_hf.runs.run import Run
from delrec_hf.runs.steps import Step


def stage_step(stage: Stage, recipe: Recipe, before: Mapping[str, str], finished: Set[str]) -> Step:
    """Return a stage as a step of a run.

    Args:
        stage: The stage.
        recipe: What is run.
        before: Fingerprints of the stages before it.
        finished: Those of them whose output is there.
    """
    settings = _settings(stage, recipe)
    print_ = _fingerprint(stage, recipe, settings, before, finished)
    controls = settings["finetune"]["controls"] if stage.name == "finetune" else ()
    return Step(stage.name, print_, settings, (*stage.writes, *controls))


def training_step(name: str, recipe: Recipe, before: Mapping[str, str]) -> Step:
    """Return one training of stage 2 as a step of its own.

    What else is trained there does not decide it, nor does stage 1 where it has no prompt.

    Args:
        name: `delrec`, or a control.
        recipe: What is run.
        before: Fingerprints of the stages before stage 2.
    """
    stage = next(one for one in STAGES if one.name == "finetune")
    settings = _settings(stage, recipe)
    settings["finetune"].pop("controls", None)
    inputs = [before[one] for one in stage.after if one != "distil" or name != "lora-only"]
    print_ = fingerprint(name, settings, inputs, TEMPLATE_VERSION, FORMAT_VERSION)
    return Step(f"finetune/{name}", print_, settings, ("model" if name == "delrec" else name,))


def all_steps(recipe: Recipe) -> list[Step]:
    """Return every step of a recipe in order, the trainings of stage 2 before the stage itself."""
    steps: list[Step] = []
    prints: dict[str, str] = {}
    for stage in STAGES:
        step = stage_step(stage, recipe, prints, set(prints))
        if stage.name == "finetune":
            trained = (*step.settings["finetune"]["controls"], "delrec")
            steps += [training_step(name, recipe, prints) for name in trained]
        steps.append(step)
        prints[stage.name] = steps[-1].print_
    return steps


def _settings(stage: Stage, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the settings that decide a stage's outcome, defaults filled in, by section."""
    found = {}
    for section in stage.sections:
        config = Run(recipe).settings(section)
        found[section] = (
            deciding_settings(config, recipe.sections.get(section, {}))
            if section in TRAININGS
            else asdict(config)
        )
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
    finished: Set[str],
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
