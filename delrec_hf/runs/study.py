"""A study: a recipe, and the same recipe with one thing changed, time and again."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from delrec_hf.errors import InputError, suggest
from delrec_hf.evaluation.study import STUDY_FILE, format_study, summarise_study
from delrec_hf.files import write_json
from delrec_hf.logging import get_logger
from delrec_hf.runs.lock import alone_in
from delrec_hf.runs.pipeline import check_sections, run_recipe
from delrec_hf.runs.prints import all_steps
from delrec_hf.runs.recipe import SECTIONS, Recipe
from delrec_hf.runs.record import RunRecord
from delrec_hf.runs.run import Run
from delrec_hf.runs.seeds import of_seeds

logger = get_logger(__name__)

_KINDS = {
    "teach": "teachers",
    "distil": "soft prompts",
    "finetune": "LoRA trainings",
    "evaluate": "evaluations",
}
"""What a study counts, by the first part of a step's name."""


@dataclass(frozen=True)
class Variant:
    """The recipe with one thing changed.

    Attributes:
        name: What tables call it.
        changes: `SECTION.KEY` to its value here.
        recipe: The whole recipe, in a folder of its own.
    """

    name: str
    changes: dict[str, Any]
    recipe: Recipe


def run_study(recipe: Recipe) -> None:
    """Run a recipe and each variant of it, and compare them.

    What a variant does not change is copied from the recipe's own run, or from the variant before
    it that has made the same; a killed study goes on. Variants lie in `study/NAME` of the run's
    folder, and all that was found in `study.json`.

    Raises:
        InputError: If the recipe, its `study` or a variant cannot be used, or another run is at
            work in the folder.
    """
    PartialState(cpu=not torch.accelerator.is_available())
    variants = variants_of(recipe)
    for one in (recipe, *(variant.recipe for variant in variants)):
        check_sections(one, SECTIONS)
        ranked = Run(one).settings("evaluate").systems
        if ranked is not None and "delrec" not in ranked:
            raise InputError(
                f"`evaluate.systems` is {', '.join(ranked)}; a study compares `delrec`: add it"
            )
    with alone_in(recipe.output_dir):
        _run_variants(recipe, variants)


def _run_variants(recipe: Recipe, variants: Sequence[Variant]) -> None:
    """Run the recipe, then each variant, and after each write what has been found so far."""
    state = PartialState()
    recipes = [recipe, *(variant.recipe for variant in variants)]
    _say_what_is_to_do(recipes)
    run_recipe(replace(recipe, study={}))
    _say_how_long(recipes)
    for number, variant in enumerate(variants, start=1):
        logger.info("study: variant %d of %d, %s", number, len(variants), variant.name)
        run_recipe(variant.recipe)
        if state.is_main_process:
            found = summarise_study(
                _folders(recipe),
                [(one.name, one.changes, _folders(one.recipe)) for one in variants[:number]],
                recipe.seeds,
            )
            for entry, one in zip((found, *found["variants"]), recipes, strict=False):
                worked = sum(RunRecord(folder).seconds() for folder in _folders(one))
                entry["seconds"] = round(worked, 1)
            write_json(recipe.output_dir / STUDY_FILE, found)
    if state.is_main_process:
        print(format_study(found))


def variants_of(recipe: Recipe) -> list[Variant]:
    """Return the variants that a recipe's `study` names.

    An entry is `SECTION.KEY: [values]`, a variant for each value; or `NAME: {SECTION.KEY: value}`,
    one variant. A value that the recipe itself has makes none.

    Raises:
        InputError: If there is none, or one is not of this form.
    """
    if not isinstance(recipe.study, dict) or not recipe.study:
        raise InputError(
            "`study` of the recipe names nothing to change; expected lines such as "
            "`distil.num_virtual_tokens: [12, 48]` or `wide: {finetune.lora_r: 64}` below it"
        )
    named: dict[str, dict[str, Any]] = {}
    for name, given in recipe.study.items():
        if isinstance(given, dict):
            named[str(name)] = given
        else:
            values = given if isinstance(given, list) else [given]
            named |= {f"{name}={_words(value)}": {name: value} for value in values}
    variants: list[Variant] = []
    before = [recipe.output_dir]
    for name, changes in named.items():
        _check_changes(name, changes)
        if all(_is_own(recipe, key, value) for key, value in changes.items()):
            logger.info("study: %s is the recipe itself", name)
            continue
        folder = recipe.output_dir / "study" / re.sub(r"[^\w.=+,-]+", "-", name)
        if folder in before:
            raise InputError(f"`study` has two variants for the folder {folder}; rename one")
        variants.append(Variant(name, changes, _changed(recipe, changes, folder, before)))
        before.append(folder)
    if not variants:
        raise InputError("`study` of the recipe changes nothing; give other values than its own")
    return variants


def _words(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _check_changes(name: str, changes: dict[str, Any]) -> None:
    for key in changes:
        section, dot, _ = str(key).partition(".")
        if not dot or section not in SECTIONS:
            raise InputError(
                f"`study` names `{key}` in `{name}`; expected SECTION.KEY with a section out of "
                f"{', '.join(SECTIONS)}{suggest(section, SECTIONS)}"
            )


def _is_own(recipe: Recipe, key: str, value: Any) -> bool:
    section, _, name = key.partition(".")
    settings = Run(recipe).settings(section)
    return hasattr(settings, name) and bool(getattr(settings, name) == value)


def _changed(
    recipe: Recipe, changes: dict[str, Any], folder: Path, before: Sequence[Path]
) -> Recipe:
    """Return the recipe of a variant: of the controls it trains LoRA alone, which shares most."""
    sections = {section: dict(given) for section, given in recipe.sections.items()}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    if "finetune.controls" not in changes:
        controls = Run(recipe).settings("finetune").controls
        kept = [one for one in controls if one == "lora-only"]
        sections["finetune"] = {**sections.get("finetune", {}), "controls": kept}
    return replace(
        recipe,
        output_dir=folder,
        sections=sections,
        study={},
        shared_dir=recipe.output_dir,
        siblings=tuple(before),
    )


def _ones(recipe: Recipe) -> list[Recipe]:
    return of_seeds(recipe) if recipe.seeds else [recipe]


def _folders(recipe: Recipe) -> list[Path]:
    return [one.output_dir for one in _ones(recipe)]


def _to_do(recipes: Sequence[Recipe]) -> list[str]:
    """Return the names of the steps that some run has still to do."""
    there: dict[Path, set[str]] = {}
    names = []
    for one in (one for recipe in recipes for one in _ones(recipe)):
        mine = there.setdefault(one.output_dir, set())
        left = []
        for step in all_steps(one):
            shared = step.name != "evaluate" and any(
                step.print_ in there.get(folder, set()) for folder in one.siblings
            )
            if not (shared or step.is_done(one.output_dir) or step.is_elsewhere(one.siblings)):
                left.append(step.name)
            mine.add(step.print_)
        # The stage is its trainings, which earlier versions have not recorded apart.
        names += [
            name
            for name in left
            if name != "finetune" and ("finetune" in left or not name.startswith("finetune/"))
        ]
    return names


def _say_what_is_to_do(recipes: Sequence[Recipe]) -> None:
    left = Counter(name.partition("/")[0] for name in _to_do(recipes))
    counted = ", ".join(f"{left[name]} {words}" for name, words in _KINDS.items())
    runs = sum(len(_ones(one)) for one in recipes)
    logger.info(
        "study: the recipe and %d variants of it, %d runs: %s to make, the rest is shared or "
        "finished",
        len(recipes) - 1,
        runs,
        counted,
    )


def _say_how_long(recipes: Sequence[Recipe]) -> None:
    """Say how long the variants take, if each step takes what the recipe's own took."""
    stages = RunRecord(_folders(recipes[0])[0]).stages
    taken = {name: one["seconds"] for name, one in stages.items()}
    names = _to_do(recipes)
    known = [
        taken[like]
        for name in names
        for like in [name if name in taken else "finetune/delrec"]
        if like in taken
    ]
    unknown = len(names) - len(known)
    logger.info(
        "study: %.1f hours are to come, by what the same steps of the recipe itself took%s",
        sum(known) / 3600,
        f", and {unknown} steps of which that is not known" if unknown else "",
    )
