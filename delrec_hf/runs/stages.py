"""What each stage of the pipeline does with the run's folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel

from delrec_hf.checkpoints import last_checkpoint
from delrec_hf.data import prepared as data
from delrec_hf.evaluation.evaluator import EvaluateConfig, Scores, agreement, summarise
from delrec_hf.evaluation.report import format_table
from delrec_hf.evaluation.systems import Outputs, chosen_systems
from delrec_hf.files import read_json, replace_folder, write_json, write_text
from delrec_hf.hub.cards import model_card
from delrec_hf.instructions.rows import InstructionRows, some_users
from delrec_hf.instructions.templates import lsr_prompt
from delrec_hf.logging import get_logger
from delrec_hf.modeling.artefact import CATALOGUE_FILE, ArtefactConfig
from delrec_hf.modeling.backbone import describe_backbone
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.calibration import calibrate as measure
from delrec_hf.ranking.rows import score_rows, scorer_of
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.runs.record import library_versions
from delrec_hf.runs.rows import distil_rows, to_learn
from delrec_hf.runs.run import Run
from delrec_hf.teachers.folds import load_label_teacher, train_teachers
from delrec_hf.teachers.hit_rates import record_hit_rates
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import write_predictions
from delrec_hf.training.common import shown_settings
from delrec_hf.training.distillation import (
    PatternDistillationTrainer,
    new_soft_prompt,
)
from delrec_hf.training.recommendation import RecommendationTrainer, with_lora

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
    config = run.trainer_settings("distil", "distil")
    backbone, tokenizer = run.backbone()
    rows = distil_rows(run, config, tokenizer)
    model = new_soft_prompt(backbone, config, tokenizer)
    trainer = PatternDistillationTrainer(
        model=model,
        args=config,
        train_rows=rows.train,
        validation_rows=rows.validation,
        ranking_rows=rows.ranking,
        processing_class=tokenizer,
        scoring=run.scoring(tokenizer),
        temperature=run.temperature(config),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(config.output_dir, run.fingerprint))
    if trainer.accelerator.is_main_process:
        with replace_folder(run.folder / "distil") as aside:
            model.save_pretrained(
                aside, base_model_name=base_model(run, backbone, run.folder / "distil")["name"]
            )
        write_json(run.folder / "logs" / "distil.json", trainer.state.log_history)


def finetune(run: Run) -> None:
    """Stage 2: train LoRA behind the frozen soft prompt, and once without it as a control."""
    config = run.trainer_settings("finetune", "finetune/delrec")
    if config.lora_only:
        _train_lora(run, "finetune/lora-only", None, run.folder / "lora-only")
    _train_lora(run, "finetune/delrec", run.folder / "distil", run.folder / "model")
    if not config.lora_only and PartialState().is_main_process:
        shutil.rmtree(run.folder / "lora-only", ignore_errors=True)


def _train_lora(run: Run, checkpoints: str, prompt: Path | None, folder: Path) -> None:
    logger.info("finetune: LoRA %s the soft prompt", "without" if prompt is None else "behind")
    config = run.trainer_settings("finetune", checkpoints)
    backbone, tokenizer = run.backbone()
    write = run.instruction_rows(tokenizer, config.seed)
    validation = write.of_part("lsr", "validation", config.max_validation_users)
    model = with_lora(backbone, config, prompt)
    trainer = RecommendationTrainer(
        model=model,
        args=config,
        train_rows=to_learn(write, write.of_part("lsr", "train"), config),
        validation_rows=to_learn(write, validation, config),
        ranking_rows=write.to_rank(validation),
        processing_class=tokenizer,
        scoring=run.scoring(tokenizer),
        temperature=run.temperature(config),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(config.output_dir, run.fingerprint))
    if not trainer.accelerator.is_main_process:
        return
    with replace_folder(folder) as aside:
        if isinstance(model, DelRecModel):
            save_artefact(run, model, write, aside)
        else:
            named = base_model(run, backbone, folder)
            model.peft_config["default"].base_model_name_or_path = named["name"]
            # What PEFT would look for, embeddings trained along, cannot be there.
            model.save_pretrained(aside, save_embedding_layers=False)
        write_json(run.folder / "logs" / f"{folder.name}.json", trainer.state.log_history)


def base_model(run: Run, backbone: PreTrainedModel, folder: Path) -> dict[str, Any]:
    """Return how a folder of the run names its backbone."""
    return describe_backbone(backbone, run.backbone_config().model_name_or_path, folder)


def save_artefact(run: Run, model: DelRecModel, write: InstructionRows, folder: Path) -> None:
    """Write the artefact: adapters, tokenizer, catalogue, facts and card."""
    named = base_model(run, model.backbone, run.folder / "model")
    model.save_pretrained(folder, base_model_name=named["name"])
    (folder / "generation_config.json").unlink(missing_ok=True)  # the backbone's, and there
    write.encoder.served_tokenizer().save_pretrained(folder)
    prepared = run.prepared
    scoring = run.recipe.settings("evaluate").scoring
    catalogue = prepared.items.select_columns(["item_id", "title"]).with_format("arrow")[:]
    weight = 0.0
    if scoring == "calibrated":
        weight = run.calibration.fits[scoring].weight
        priors = pa.array(run.calibration.log_priors)
        catalogue = catalogue.append_column("log_prior", priors)
    pq.write_table(catalogue, folder / CATALOGUE_FILE)
    teacher = read_json(run.folder / "teacher" / "teacher.json")
    facts = ("dataset", "terms", "split", "users", "items", "interactions", "seed")
    ArtefactConfig(
        base_model=named,
        teacher={"type": teacher["type"], **teacher["settings"]},
        domain=run.domain,
        history_length=prepared.info["history_length"],
        num_candidates=prepared.info["num_candidates"],
        scoring=scoring,
        candidates=run.recipe.settings("instructions").candidates,
        calibration_weight=weight,
        data={name: prepared.info.get(name) for name in facts},
        distil=shown_settings(run.trainer_settings("distil", "distil")),
        finetune=shown_settings(run.trainer_settings("finetune", "finetune")),
        versions=library_versions(),
    ).save(folder)
    write_text(folder / "README.md", model_card(folder))


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
    scores = Scores(np.array(places))
    for system in systems:
        scores.measure(system, outputs, examples)
    agreed = None
    if any(system.name == "prompt-only" for system in systems) and "teach" in run.finished:
        agreed = _agreement(run, config, outputs, examples)
    if not PartialState().is_main_process:
        return
    results = summarise(scores, _protocol(run, config, examples), _teacher_name(run), config)
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


def _protocol(run: Run, config: EvaluateConfig, examples: Dataset) -> dict[str, Any]:
    """Return what was measured on: the facts that head the report."""
    info = run.prepared.info
    facts = ["dataset", "split", "num_candidates", "history_length"]
    is_whole = len(examples) == len(run.prepared.examples["test"])
    if is_whole and config.candidates_seed is None and "best_hr_at_1" in info:
        facts.append("best_hr_at_1")
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
