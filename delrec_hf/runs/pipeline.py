"""The stages of a recipe in order; finished ones are skipped, killed ones go on where they were."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import PartialState

from delrec_hf.data.interactions import DataConfig
from delrec_hf.data.sources import local_files
from delrec_hf.errors import InputError
from delrec_hf.files import content_hash, fingerprint
from delrec_hf.instructions.templates import DOMAINS, load_domain
from delrec_hf.logging import get_logger
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.record import RunRecord
from delrec_hf.runs.run import Run
from delrec_hf.runs.stages import distil, evaluate, finetune, prepare, teach

logger = get_logger(__name__)

_WITHOUT_EFFECT = {"disable_tqdm", "report_to", "logging_steps", "logging_strategy", "run_name"}
"""Keys that change what a stage shows, not what it makes."""


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: Its name in records and logs.
        command: What the command line calls it.
        sections: Sections of the recipe whose keys change its outcome.
        after: Stages whose output it reads.
        writes: What it leaves in the run's folder.
        run: The work.
    """

    name: str
    command: str
    sections: tuple[str, ...]
    after: tuple[str, ...]
    writes: tuple[str, ...]
    run: Callable[[Run], None]


STAGES = (
    Stage("prepare", "prepare", ("data",), (), ("data",), prepare),
    Stage("teach", "teach", ("teacher",), ("prepare",), ("teacher",), teach),
    Stage("distil", "distill", ("backbone", "distil"), ("prepare", "teach"), ("distil",), distil),
    Stage(
        "finetune",
        "finetune",
        ("backbone", "finetune"),
        ("prepare", "distil"),
        ("model",),
        finetune,
    ),
    Stage(
        "evaluate",
        "evaluate",
        ("backbone", "evaluate"),
        ("prepare", "teach", "distil", "finetune"),
        ("results.json",),
        evaluate,
    ),
)


def run_recipe(recipe: Recipe, only: str | None = None) -> None:
    """Run the stages of a recipe that are not finished.

    Args:
        recipe: What to run and where.
        only: Run this stage alone; the stages before it must be finished.

    Raises:
        InputError: If the recipe cannot be used, or a stage before `only` is not finished.
    """
    import torch

    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.num_processes > 1:
        logger.info("%d processes share the work", state.num_processes)
    names = [stage.name for stage in STAGES]
    stages = STAGES if only is None else STAGES[: names.index(only) + 1]
    _check_sections(recipe, [section for stage in stages for section in stage.sections])
    _check_folder(recipe.output_dir)
    record = RunRecord(recipe.output_dir)
    prints: dict[str, str] = {}
    for stage in stages:
        prints[stage.name] = _fingerprint(stage, recipe, prints)
        outputs = [recipe.output_dir / name for name in stage.writes]
        done = record.is_done(stage.name, prints[stage.name], outputs)
        # No process may write the record while another one still reads it.
        state.wait_for_everyone()
        if only not in (None, stage.name):
            if only in _readers(stage.name) and not done:
                raise InputError(
                    f"stage `{only}` reads what `{stage.name}` writes, and {recipe.output_dir} "
                    f"holds no finished `{stage.name}` of this recipe; run `delrec "
                    f"{stage.command}` first, or `delrec run` for all"
                )
            continue
        if done:
            logger.info("%s: finished before, skipped", stage.name)
            continue
        logger.info("%s: reads %s", stage.name, _reads(stage, recipe))
        start = time.perf_counter()
        if state.is_main_process:
            record.forget(stage.name)
        stage.run(Run(recipe, prints[stage.name]))
        seconds = time.perf_counter() - start
        state.wait_for_everyone()
        if state.is_main_process:
            settings = {name: recipe.sections.get(name, {}) for name in stage.sections}
            record.finish(stage.name, prints[stage.name], settings, seconds)
            _remove_checkpoints(recipe.output_dir / "checkpoints", stage.name)
        state.wait_for_everyone()
        written = ", ".join(map(str, outputs))
        logger.info("%s: wrote %s in %.0f s", stage.name, written, seconds)


def _check_sections(recipe: Recipe, needed: list[str]) -> None:
    """Find every mistake in the recipe before the first stage works for an hour."""
    run = Run(recipe)
    for section in dict.fromkeys([*needed, *recipe.sections]):
        if section in ("teacher", "distil", "finetune"):
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


def _readers(name: str) -> set[str]:
    return {stage.name for stage in STAGES if name in stage.after}


def _reads(stage: Stage, recipe: Recipe) -> str:
    if stage.name == "prepare":
        return str(recipe.settings("data").path)
    names = [name for other in STAGES if other.name in stage.after for name in other.writes]
    places = [str(recipe.output_dir / name) for name in names]
    if "backbone" in stage.sections:
        places.append(f"backbone {recipe.settings('backbone').model_name_or_path}")
    return ", ".join(places)


def _fingerprint(stage: Stage, recipe: Recipe, before: dict[str, str]) -> str:
    given = {
        section: {
            key: value
            for key, value in recipe.sections.get(section, {}).items()
            if key not in _WITHOUT_EFFECT
        }
        for section in stage.sections
    }
    inputs = [before[name] for name in stage.after]
    if stage.name == "prepare":
        settings = recipe.settings("data")
        given["data"] = asdict(settings) | {"path": settings.dataset_name}
        domain = settings.domain
        inputs += [_source_print(settings), domain if domain in DOMAINS else _print_of(domain)]
    taken = recipe.settings("teacher").path if stage.name == "teach" else None
    if taken is not None:
        inputs.append(_print_of(taken))
    if stage.name == "distil":
        inputs.append(_print_of(recipe.settings("backbone").model_name_or_path))
    return fingerprint(stage.name, given, inputs)


def _source_print(config: DataConfig) -> str:
    """Hash the files that are read and no others: a run's folder may lie beside them."""
    files = None
    if config.path != "toy":
        files = local_files(config.path, config.interactions, config.items)
    return config.path if files is None else content_hash(*filter(None, files))


def _print_of(place: str) -> str:
    """Hash what lies in a folder or file; a name, of something on the Hub, stands for itself."""
    return content_hash(Path(place)) if Path(place).exists() else place
