"""What each stage of the pipeline does with the run's folder."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from accelerate import PartialState

from delrec_hf.data import prepared as data
from delrec_hf.data.interactions import read_interactions
from delrec_hf.files import replace_folder
from delrec_hf.instructions.templates import lsr_messages
from delrec_hf.logging import get_logger
from delrec_hf.ranking.calibration import calibrate as measure
from delrec_hf.runs.audit import audit_prepared
from delrec_hf.runs.evaluate import evaluate
from delrec_hf.runs.prints import training_step
from delrec_hf.runs.run import Run
from delrec_hf.runs.steps import once
from delrec_hf.runs.trainings import train_model, train_prompt
from delrec_hf.teachers.folds import load_label_teacher, train_teachers
from delrec_hf.teachers.hit_rates import record_hit_rates
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import write_predictions
from delrec_hf.training.recommendation import CONTROLS

logger = get_logger(__name__)

PARTS = ("train", "validation", "test")


def prepare(run: Run) -> None:
    """Read, check and split the data, draw candidates, and audit the data."""
    if PartialState().is_main_process:
        config = run.recipe.settings("data")
        source = read_interactions(config)
        prepared = data.prepare(config, run.folder / "data", source)
        audit_prepared(source, prepared, run.folder)


def teach(run: Run) -> None:
    """Train the teacher and keep its best items for every example.

    With folds, those of the training examples are from teachers that have not seen their user.
    """
    config = run.trainer_settings("teacher", "teach")
    folder, prepared = run.folder / "teacher", run.prepared
    train_teachers(prepared, config, folder)
    teacher = load_teacher(folder, prepared)
    label_teacher = load_label_teacher(folder, prepared) if config.folds else teacher
    write_predictions(
        teacher,
        prepared,
        {part: prepared.examples[part] for part in PARTS},
        config.top_h,
        folder / "predictions",
        instead={"train": label_teacher},
        filter_seen=config.filter_seen,
        disable_tqdm=config.disable_tqdm,
    )
    record_hit_rates(teacher, label_teacher, prepared, config, folder)


def calibrate(run: Run) -> None:
    """Measure what the untrained backbone's scores are worth, and titles without a history."""
    config = run.recipe.settings("calibrate")
    backbone, tokenizer = run.backbone()
    write = run.instruction_rows(tokenizer, config.seed)
    rows = write.to_rank(write.of_part("lsr", "validation", config.max_users))
    (empty,) = write.encoder.encode_prompts(
        [lsr_messages(run.domain, [], turns=write.config.turns)]
    )
    answers = write.encoder.encode_answers(list(write.titles.values()))
    state = PartialState()
    backbone.to(state.device).eval()
    measured = measure(backbone, empty, answers, rows, state, run.scores)
    if state.is_main_process:
        with replace_folder(run.folder / "calibration") as aside:
            measured.save(aside)


def distil(run: Run) -> None:
    """Stage 1: train the soft prompt."""
    train_prompt(run, run.trainer_settings("distil", "distil"), run.folder / "distil")


def finetune(run: Run) -> None:
    """Stage 2: train LoRA behind the frozen soft prompt, and each control as long.

    Each training is a step of its own: a control more trains that one alone.
    """
    controls = run.trainer_settings("finetune", "finetune").controls
    for control in CONTROLS:
        if control not in controls and PartialState().is_main_process:
            shutil.rmtree(run.folder / control, ignore_errors=True)
    for name in (*(one for one in CONTROLS if one in controls), "delrec"):
        step = training_step(name, run.recipe, run.prints)
        work = partial(train_model, replace(run, fingerprint=step.print_), name)
        once(step, run.folder, run.recipe.siblings, work, f"{run.folder / 'data'}")


WORK: dict[str, Callable[[Run], None]] = {
    work.__name__: work for work in (prepare, teach, calibrate, distil, finetune, evaluate)
}
"""What each stage of `delrec_hf.runs.order` does."""
