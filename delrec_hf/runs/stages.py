"""What each stage of the pipeline does with the run's folder."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel

from delrec_hf.checkpoints import last_checkpoint
from delrec_hf.data import prepared as data
from delrec_hf.evaluation.evaluator import EvaluateConfig, Scores, agreement, summarise
from delrec_hf.evaluation.report import format_table
from delrec_hf.files import read_json, replace_folder, write_json, write_text
from delrec_hf.hub.cards import model_card
from delrec_hf.instructions.rows import InstructionRows, some_users
from delrec_hf.logging import get_logger
from delrec_hf.modeling.artefact import CATALOGUE_FILE, ArtefactConfig
from delrec_hf.modeling.backbone import describe_backbone
from delrec_hf.modeling.stacked import PROMPT_FOLDER, DelRecModel
from delrec_hf.ranking.rows import ranking_rows, score_rows, scorer_of
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.runs.record import library_versions
from delrec_hf.runs.run import Run
from delrec_hf.teachers.baselines import CoOccurrence, Markov, Popularity, Random
from delrec_hf.teachers.learning.training import train_teacher
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import all_positions, score_candidates, write_predictions
from delrec_hf.teachers.teacher import Teacher
from delrec_hf.training.common import shown_settings
from delrec_hf.training.distillation import PatternDistillationTrainer, new_soft_prompt
from delrec_hf.training.recommendation import RecommendationTrainer, with_lora

logger = get_logger(__name__)

PARTS = ("train", "validation", "test")


def prepare(run: Run) -> None:
    """Read, check and split the data, and draw candidates."""
    if PartialState().is_main_process:
        data.prepare(run.recipe.settings("data"), run.folder / "data")


def teach(run: Run) -> None:
    """Train the teacher and keep its best items for every example."""
    config = run.trainer_settings("teacher", "teach")
    folder = run.folder / "teacher"
    train_teacher(run.prepared, config, folder)
    places = {part: run.prepared.examples[part] for part in PARTS}
    if config.positions == "all":
        places["all"] = all_positions(run.prepared)
    write_predictions(
        load_teacher(folder, run.prepared),
        run.prepared,
        places,
        config.top_h,
        folder / "predictions",
        filter_seen=config.filter_seen,
        disable_tqdm=config.disable_tqdm,
    )


def distil(run: Run) -> None:
    """Stage 1: train the soft prompt."""
    config = run.trainer_settings("distil", "distil")
    backbone, tokenizer = run.backbone()
    write = run.instruction_rows(tokenizer, config.seed)
    rows = {
        part: {
            task: write.of_part(
                task, part, config.max_validation_users if part != "train" else None
            )
            for task in config.tasks
        }
        for part in ("train", "validation")
    }
    encoded = {
        part: {task: write.encoded(found) for task, found in tasks.items()}
        for part, tasks in rows.items()
    }
    model = new_soft_prompt(backbone, config, run.backbone_config().model_name_or_path)
    trainer = PatternDistillationTrainer(
        model=model,
        args=config,
        train_rows=encoded["train"],
        validation_rows=encoded["validation"],
        agreement_rows=ranking_rows(rows["validation"]["rps"], write.encoder, write.titles)
        if "rps" in config.tasks
        else None,
        processing_class=tokenizer,
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
        train_rows=write.encoded(write.of_part("lsr", "train")),
        validation_rows=write.encoded(validation),
        ranking_rows=ranking_rows(validation, write.encoder, write.titles),
        processing_class=tokenizer,
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
    write.encoder.tokenizer.save_pretrained(folder)
    prepared = run.prepared
    prepared.items.select_columns(["item_id", "title"]).to_parquet(str(folder / CATALOGUE_FILE))
    teacher = read_json(run.folder / "teacher" / "teacher.json")
    facts = ("dataset", "terms", "split", "users", "items", "interactions", "seed")
    ArtefactConfig(
        base_model=named,
        teacher={"type": teacher["type"], **teacher["settings"]},
        domain=run.domain,
        history_length=prepared.info["history_length"],
        num_candidates=prepared.info["num_candidates"],
        scoring=run.recipe.settings("evaluate").scoring,
        data={name: prepared.info.get(name) for name in facts},
        distil=shown_settings(run.trainer_settings("distil", "distil")),
        finetune=shown_settings(run.trainer_settings("finetune", "finetune")),
        versions=library_versions(),
    ).save(folder)
    write_text(folder / "README.md", model_card(folder))


def evaluate(run: Run) -> None:
    """Rank the test users' candidates with every system, and report."""
    config = run.recipe.settings("evaluate")
    prepared = run.prepared
    examples = some_users(prepared.examples["test"], config.max_users, config.seed)
    offered, targets = examples["candidates"][:], examples["target"][:]
    places = [row.index(target) for row, target in zip(offered, targets, strict=True)]
    scores = Scores(np.array(places))
    simple: dict[str, Callable[[], Teacher]] = {
        "random": lambda: Random.fit(prepared, config.seed),
        "popularity": lambda: Popularity.fit(prepared),
        "markov": lambda: Markov.fit(prepared),
        "co-occurrence": lambda: CoOccurrence.fit(prepared),
        "teacher": lambda: load_teacher(run.folder / "teacher", prepared),
    }
    for name, make in simple.items():
        if name in config.systems:
            with scores.measure(name) as found:
                found[name] = score_candidates(make(), prepared, examples)
    agreed = _rank_with_models(run, config, scores)
    if not PartialState().is_main_process:
        return
    facts = ["dataset", "split", "num_candidates", "history_length"]
    if len(examples) == len(prepared.examples["test"]) and "best_hr_at_1" in prepared.info:
        facts.append("best_hr_at_1")
    protocol = {name: prepared.info[name] for name in facts}
    protocol["seeds"] = [prepared.info["seed"]]
    kind = read_json(run.folder / "teacher" / "teacher.json")["type"]
    results = summarise(scores, protocol, f"teacher/{kind}", config)
    if agreed:
        results["distillation"] = agreed
    _keep_scores(run, examples, scores)
    model = run.folder / "model"
    replace(ArtefactConfig.load(model), scoring=config.scoring).save(model)
    write_json(model / "results.json", results)
    write_text(model / "README.md", model_card(model))
    write_json(run.folder / "results.json", results)
    print(format_table(results))


def _rank_with_models(run: Run, config: EvaluateConfig, scores: Scores) -> dict[str, Any]:
    """Rank with the language models; return the prompt's agreement with the teacher, if asked."""
    wanted = [system for system in ("zero-shot", "prompt-only") if system in config.systems]
    tuned = [system for system in ("lora-only", "delrec") if system in config.systems]
    if not (wanted or tuned):
        return {}
    backbone, tokenizer = run.backbone()
    state = PartialState()
    backbone.to(state.device)
    write = run.instruction_rows(tokenizer, config.seed)
    lsr = ranking_rows(write.of_part("lsr", "test", config.max_users), write.encoder, write.titles)

    def rank(system: str, scorer: CandidateScorer) -> None:
        with scores.measure(system) as found:
            found[system] = np.array(score_rows(scorer, lsr, state))

    agreed: dict[str, Any] = {}
    if "zero-shot" in wanted:
        rank("zero-shot", CandidateScorer(backbone, None, config.scoring))
    if "prompt-only" in wanted:
        prompted = DelRecModel.with_prompt(backbone, run.folder / "distil").to(state.device).eval()
        rank("prompt-only", scorer_of(prompted, config.scoring))
        agreed = _agreement(run, config, write, prompted)
    for system in tuned:
        folder = run.folder / ("model" if system == "delrec" else system)
        if folder.is_dir():
            rank(system, scorer_of(_with_saved_lora(run, folder), config.scoring))
        else:
            logger.info("evaluate: no %s without `finetune.lora_only: true`", system)
    return agreed


def _agreement(
    run: Run, config: EvaluateConfig, write: InstructionRows, prompted: DelRecModel
) -> dict[str, Any]:
    """Return how often prompts and backbone choose what the teacher ranks first."""
    logger.info("evaluate: agreement with the teacher")
    backbone, state = prompted.backbone, PartialState()
    untrained = new_soft_prompt(
        backbone,
        run.trainer_settings("distil", "distil"),
        run.backbone_config().model_name_or_path,
    )
    rows = ranking_rows(write.of_part("rps", "test", config.max_users), write.encoder, write.titles)
    scorers = {
        "no prompt": CandidateScorer(backbone, None, config.scoring),
        "random prompt": scorer_of(untrained, config.scoring),
        "distilled prompt": scorer_of(prompted, config.scoring),
    }
    choices = {
        name: np.array([row.argmax() for row in score_rows(scorer, rows, state)])
        for name, scorer in scorers.items()
    }
    return agreement(choices, rows["target_place"][:], config)


def _with_saved_lora(run: Run, folder: Path) -> PeftModel:
    """Load the backbone with the LoRA of a folder, and its soft prompt if it has one."""
    backbone, _ = run.backbone()
    if (folder / PROMPT_FOLDER).is_dir():
        backbone.load_adapter(str(folder))
        model: PeftModel = DelRecModel.with_prompt(backbone, folder / PROMPT_FOLDER)
    else:
        model = PeftModel.from_pretrained(backbone, str(folder))
    return model.to(PartialState().device).eval()


def _keep_scores(run: Run, examples: Dataset, scores: Scores) -> None:
    """Write every system's score of every candidate, to look single users up."""
    columns = {system: list(found) for system, found in scores.by_system.items()}
    kept = examples.select_columns(["user_id", "position", "target", "candidates"])
    for system, values in columns.items():
        kept = kept.add_column(system, values)
    path = run.folder / "logs" / "scores.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept.to_parquet(str(path))
