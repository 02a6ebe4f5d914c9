"""What each stage of the pipeline does with the run's folder."""

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import PartialState
from datasets import Dataset

from delrec_hf.data import prepared as data
from delrec_hf.evaluation.evaluator import EvaluateConfig, Scores, agreement, summarise
from delrec_hf.evaluation.report import format_table
from delrec_hf.evaluation.systems import Outputs, chosen_systems
from delrec_hf.files import read_json, replace_folder, write_json, write_text
from delrec_hf.hub.cards import model_card
from delrec_hf.instructions.rows import some_users
from delrec_hf.instructions.templates import lsr_prompt
from delrec_hf.logging import get_logger
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.calibration import calibrate as measure
from delrec_hf.ranking.rows import score_rows, scorer_of
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.runs.run import Run
from delrec_hf.runs.trainings import control_prompt, train_lora, train_prompt
from delrec_hf.teachers.folds import load_label_teacher, train_teachers
from delrec_hf.teachers.hit_rates import record_hit_rates
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import write_predictions
from delrec_hf.training.distillation import (
    new_soft_prompt,
)
from delrec_hf.training.recommendation import CONTROLS

FloatArray = npt.NDArray[np.float64]

logger = get_logger(__name__)

PARTS = ("train", "validation", "test")


def prepare(run: Run) -> None:
    """Read, check and split the data, and draw candidates."""
    if PartialState().is_main_process:
        data.prepare(run.recipe.settings("data"), run.folder / "data")


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
    question = [{"role": "user", "content": lsr_prompt(run.domain, [])}]
    (empty,) = write.encoder.encode_prompts([question])
    answers = write.encoder.encode_answers(list(write.titles.values()))
    state = PartialState()
    backbone.to(state.device).eval()
    measured = measure(backbone, empty, answers, rows, state)
    if state.is_main_process:
        with replace_folder(run.folder / "calibration") as aside:
            measured.save(aside)


def distil(run: Run) -> None:
    """Stage 1: train the soft prompt."""
    train_prompt(run, run.trainer_settings("distil", "distil"), run.folder / "distil")


def finetune(run: Run) -> None:
    """Stage 2: train LoRA behind the frozen soft prompt, and each control as long."""
    config = run.trainer_settings("finetune", "finetune")
    for control in CONTROLS:
        folder = run.folder / control
        if control in config.controls:
            train_lora(run, control, control_prompt(run, control), folder)
        elif PartialState().is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
    train_lora(run, "delrec", run.folder / "distil", run.folder / "model")


def evaluate(run: Run) -> None:
    """Rank the test users' candidates with every system, and report."""
    config = run.recipe.settings("evaluate")
    has_backbone = {"backbone"} if "backbone" in run.recipe.sections else set()
    systems = chosen_systems(config.systems, run.finished | has_backbone, run.folder)
    examples = _test_examples(run, config)
    offered, targets = examples["candidates"][:], examples["target"][:]
    places = [row.index(target) for row, target in zip(offered, targets, strict=True)]
    outputs = Outputs(
        folder=run.folder,
        prepared=run.prepared,
        load_backbone=run.backbone,
        word=lambda tokenizer: run.instruction_rows(tokenizer, config.seed),
        scoring=run.scoring,
        seed=config.seed,
    )
    scores = Scores(np.array(places), run.prepared.chances(examples))
    for system in systems:
        scores.measure(system, outputs, examples)
    agreed = None
    if any(system.name == "prompt-only" for system in systems) and "teach" in run.finished:
        agreed = _agreement(run, config, outputs, examples)
    if not PartialState().is_main_process:
        return
    results = summarise(scores, _protocol(run, config), _teacher_name(run), config)
    if agreed:
        results["distillation"] = agreed
    _keep_scores(run, examples, scores)
    if "finetune" in run.finished:
        model = run.folder / "model"
        write_json(model / "results.json", results)
        write_text(model / "README.md", model_card(model))
    write_json(run.folder / "results.json", results)
    print(format_table(results))


def _test_examples(run: Run, config: EvaluateConfig) -> Dataset:
    """Return the test examples that are ranked, with other candidates if the recipe asks so."""
    examples = run.prepared.examples["test"]
    if config.candidates_seed is not None:
        examples = run.prepared.with_other_candidates(examples, config.candidates_seed)
    return some_users(examples, config.max_users, config.seed)


def _protocol(run: Run, config: EvaluateConfig) -> dict[str, Any]:
    """Return what was measured on: the facts that head the report."""
    info = run.prepared.info
    facts = ["dataset", "split", "num_candidates", "history_length"]
    protocol = {name: info[name] for name in facts}
    protocol["seeds"] = [info["seed"]]
    if config.candidates_seed is not None:
        protocol["candidates_seed"] = config.candidates_seed
    return protocol


def _teacher_name(run: Run) -> str:
    record = run.folder / "teacher" / "teacher.json"
    return f"teacher/{read_json(record)['type']}" if "teach" in run.finished else "teacher"


def _agreement(
    run: Run, config: EvaluateConfig, outputs: Outputs, examples: Dataset
) -> dict[str, Any]:
    """Return how often prompts and backbone choose what the teacher ranks first."""
    logger.info("evaluate: agreement with the teacher")
    backbone, tokenizer = run.backbone()
    state = PartialState()
    backbone.to(state.device)
    settings = run.trainer_settings("distil", "distil")
    untrained = new_soft_prompt(backbone, settings, tokenizer)
    prompted = DelRecModel.with_prompt(backbone, run.folder / "distil").to(state.device).eval()
    rows = outputs.ranking_rows("rps", examples, tokenizer)
    scoring = run.scoring(tokenizer)
    scorers = {
        "no prompt": CandidateScorer(backbone, None, scoring),
        "random prompt": scorer_of(untrained, scoring),
        "distilled prompt": scorer_of(prompted, scoring),
    }
    choices = {
        name: np.array([row.argmax() for row in score_rows(scorer, rows, state)])
        for name, scorer in scorers.items()
    }
    return agreement(choices, rows["target_place"][:], config)


def _keep_scores(run: Run, examples: Dataset, scores: Scores) -> None:
    """Write every system's score of every candidate, to look single users up."""
    named = examples.select_columns(["user_id", "position", "target", "candidates"])
    kept = Dataset(named.with_format("arrow")[:])  # of its own, not cached beside the examples
    for system, found in scores.by_system.items():
        kept = kept.add_column(system, list(found))
    path = run.folder / "logs" / "scores.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept.to_parquet(str(path))


WORK: dict[str, Callable[[Run], None]] = {
    work.__name__: work for work in (prepare, teach, calibrate, distil, finetune, evaluate)
}
"""What each stage of `delrec_hf.runs.order` does."""
