"""What each stage of the pipeline does with the run's folder."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from delrec_hf.checkpoints import last_checkpoint
from delrec_hf.data import prepared as data
from delrec_hf.data.prepared import PreparedData
from delrec_hf.evaluation.evaluator import EvaluateConfig, Scores, agreement, summarise
from delrec_hf.evaluation.report import format_table
from delrec_hf.files import read_json, replace_folder, write_json, write_text
from delrec_hf.hub.cards import model_card
from delrec_hf.instructions.builders import lsr_rows, rps_rows, ta_rows
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.templates import Domain, load_domain
from delrec_hf.instructions.titles import safe_titles
from delrec_hf.logging import get_logger
from delrec_hf.modeling.artefact import CATALOGUE_FILE, ArtefactConfig
from delrec_hf.modeling.backbone import BackboneConfig, describe_backbone, load_backbone
from delrec_hf.modeling.stacked import PROMPT_FOLDER, DelRecModel
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.recipe import Recipe
from delrec_hf.resources import resource
from delrec_hf.run_record import library_versions
from delrec_hf.teachers.baselines import Markov, Popularity, Random
from delrec_hf.teachers.predictions import predict, score_candidates
from delrec_hf.teachers.training import Teacher, load_teacher, train_teacher
from delrec_hf.training.common import ranking_rows, score_rows, scorer_of, shown_settings
from delrec_hf.training.distillation import PatternDistillationTrainer, new_soft_prompt
from delrec_hf.training.recommendation import RecommendationTrainer, with_lora

logger = get_logger(__name__)

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Run:
    """A recipe at work in its folder.

    Attributes:
        recipe: What to run and where.
        fingerprint: Stands for the inputs and settings of the stage at work.
    """

    recipe: Recipe
    fingerprint: str = ""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.recipe.output_dir

    @cached_property
    def prepared(self) -> PreparedData:
        """The prepared data of the run."""
        return PreparedData.load(self.folder / "data")

    @cached_property
    def domain(self) -> Domain:
        """How the items are spoken about."""
        return load_domain(self.prepared.info["domain"])

    def trainer_settings(self, section: str, stage: str) -> Any:
        """Return a section of TrainingArguments whose checkpoints go to `checkpoints/STAGE`."""
        import torch

        forced: dict[str, Any] = {"output_dir": str(self.folder / "checkpoints" / stage)}
        given = self.recipe.sections.get(section, {})
        if "disable_tqdm" not in given:
            forced["disable_tqdm"] = False  # transformers hides the bar where its log is quiet
        if not torch.accelerator.is_available():
            forced |= {"use_cpu": True, "dataloader_pin_memory": False}
            # SFTConfig's own default, true, rounds on a CPU for no gain in time.
            forced["bf16"] = given.get("bf16", False)
        return self.recipe.settings(section, **forced)

    def backbone_config(self) -> BackboneConfig:
        """Return how to load the backbone; the shipped toy one has a copy in the run's folder."""
        config: BackboneConfig = self.recipe.settings("backbone")
        if config.model_name_or_path == "toy":
            config.model_name_or_path = str(self.folder / "backbone")
        return config

    def backbone(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the backbone, afresh each time: adapters are injected into it.

        All processes call this together: the first one copies the toy backbone into the run.
        """
        state, place = PartialState(), self.folder / "backbone"
        is_toy = self.recipe.settings("backbone").model_name_or_path == "toy"
        if is_toy and state.is_main_process and not place.is_dir():
            with replace_folder(place) as aside:
                shutil.copytree(resource("recipes/backbones/toy"), aside, dirs_exist_ok=True)
        state.wait_for_everyone()
        return load_backbone(self.backbone_config())

    def predictions(self, part: str) -> Dataset:
        """The teacher's top items for the examples of a part."""
        return Dataset(pq.read_table(self.folder / "teacher" / "predictions" / f"{part}.parquet"))


@dataclass(frozen=True)
class InstructionRows:
    """Writes a run's examples as instruction rows for one tokenizer."""

    run: Run
    tokenizer: PreTrainedTokenizerBase
    seed: int

    @cached_property
    def encoder(self) -> ChatEncoder:
        """Turns messages into token ids."""
        return ChatEncoder(self.tokenizer)

    @cached_property
    def titles(self) -> dict[str, str]:
        """Item id to the title that stands in prompts."""
        items = self.run.prepared.items
        titles = safe_titles(items["title"][:], self.tokenizer)
        return dict(zip(items["item_id"][:], titles, strict=True))

    def rows(self, task: str, part: str, max_users: int | None = None) -> Dataset:
        """Return the instruction rows of a task, of all users or of some drawn by seed."""
        prepared, domain = self.run.prepared, self.run.domain
        examples = some_users(prepared.examples[part], max_users, self.seed)
        titles = list(self.titles.values())
        if task == "lsr":
            return lsr_rows(examples, prepared.items, titles, domain)
        if task == "ta":
            return ta_rows(examples, prepared.sequences, prepared.items, titles, domain, self.seed)
        found = self.run.predictions(part)
        return rps_rows(examples, found, prepared.items, titles, domain, self.seed)

    def encoded(self, rows: Dataset) -> Dataset:
        """Encode rows for training."""
        return rows.map(
            self.encoder.encode_rows,
            batched=True,
            remove_columns=rows.column_names,
            desc="Encoding",
        )

    def for_ranking(self, rows: Dataset) -> Dataset:
        """Encode rows for ranking."""
        return ranking_rows(rows, self.encoder, self.titles)


def some_users(examples: Dataset, max_users: int | None, seed: int) -> Dataset:
    """Return the examples of at most so many users, drawn by seed."""
    users = np.unique(examples["user_id"][:])
    if max_users is None or len(users) <= max_users:
        return examples
    chosen = np.random.default_rng(seed).choice(users, max_users, replace=False)
    return examples.select(np.flatnonzero(np.isin(examples["user_id"][:], chosen)))


def prepare(run: Run) -> None:
    """Read, check and split the data, and draw candidates."""
    if PartialState().is_main_process:
        data.prepare(run.recipe.settings("data"), run.folder / "data")


def teach(run: Run) -> None:
    """Train the teacher and keep its best items for every example."""
    config = run.trainer_settings("teacher", "teach")
    folder = run.folder / "teacher"
    train_teacher(run.prepared, config, folder)
    if not PartialState().is_main_process:
        return
    teacher = load_teacher(folder, run.prepared)
    with replace_folder(folder / "predictions") as aside:
        for part in PARTS:
            found = predict(teacher, run.prepared, run.prepared.examples[part], config.top_h)
            found.to_parquet(str(aside / f"{part}.parquet"))


def distil(run: Run) -> None:
    """Stage 1: train the soft prompt."""
    config = run.trainer_settings("distil", "distil")
    backbone, tokenizer = run.backbone()
    write = InstructionRows(run, tokenizer, config.seed)
    rows = {
        part: {
            task: write.rows(task, part, config.max_validation_users if part != "train" else None)
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
        agreement_rows=write.for_ranking(rows["validation"]["rps"])
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
    write = InstructionRows(run, tokenizer, config.seed)
    validation = write.rows("lsr", "validation", config.max_validation_users)
    model = with_lora(backbone, config, prompt)
    trainer = RecommendationTrainer(
        model=model,
        args=config,
        train_rows=write.encoded(write.rows("lsr", "train")),
        validation_rows=write.encoded(validation),
        ranking_rows=write.for_ranking(validation),
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
    write = InstructionRows(run, tokenizer, config.seed)
    lsr = write.for_ranking(write.rows("lsr", "test", config.max_users))

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
    rows = write.for_ranking(write.rows("rps", "test", config.max_users))
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
