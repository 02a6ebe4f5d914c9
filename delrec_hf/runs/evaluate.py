"""What the stage `evaluate` does: rank with every system, and report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import PartialState
from datasets import Dataset

from delrec_hf.errors import InputError
from delrec_hf.evaluation.candidates import (
    Drawing,
    check_as_many,
    read_candidates,
    sha256_of,
    write_candidates,
)
from delrec_hf.evaluation.described import Describer
from delrec_hf.evaluation.evaluator import EvaluateConfig, Scores, measure
from delrec_hf.evaluation.kept import BLOCKS, PerUser, keep_users, users_file
from delrec_hf.evaluation.metadata import metadata
from delrec_hf.evaluation.report import format_table
from delrec_hf.evaluation.results import agreement, summarise
from delrec_hf.evaluation.retrieval import end_to_end, retrieve, summarise_retrieved
from delrec_hf.evaluation.slices import HISTORY, ITEMS, SEEN
from delrec_hf.evaluation.systems import Outputs, chosen_systems
from delrec_hf.evaluation.whole_catalogue import (
    check_unlisted,
    summarise_whole_catalogue,
    whole_catalogue,
)
from delrec_hf.files import read_json, replace_file, write_json, write_text
from delrec_hf.hub.cards import model_card
from delrec_hf.instructions.rows import some_users
from delrec_hf.logging import get_logger
from delrec_hf.modeling.artefact import TEACHER_FOLDER, ArtefactConfig
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.kept import folder_of
from delrec_hf.ranking.rows import score_rows, scorer_of
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.weighing import Fusion
from delrec_hf.reporting.reading import PICTURE_FILE
from delrec_hf.runs.run import Run
from delrec_hf.teachers.baselines import Popularity
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.teacher import Teacher
from delrec_hf.training.soft_prompt import new_soft_prompt

FloatArray = npt.NDArray[np.float64]

logger = get_logger(__name__)


def evaluate(run: Run) -> None:
    """Rank the test users' candidates with every system, and report."""
    config = run.recipe.settings("evaluate")
    has_backbone = {"backbone"} if "backbone" in run.recipe.sections else set()
    systems = chosen_systems(config.systems, run.finished | has_backbone, run.folder)
    validation, examples, candidates = _sampled(run, config)
    listed = run.recipe.settings("instructions").listed
    if listed:
        check_as_many(systems, examples, run.prepared.info["num_candidates"])
    outputs = _outputs(run, config)
    scores = Scores(
        validation,
        examples,
        run.prepared.chances(examples) if candidates["drawn"] == "uniform" else None,
        facts=_facts(run, config, examples),
    )
    describer = Describer.of(run.prepared, config.diversity_column)
    regimes = [scores]
    if config.retrieve:
        retrieved, held = _retrieved(run, config, scores)
        regimes.append(retrieved)
    if config.whole_catalogue:
        check_unlisted(systems, listed=listed)
        some = some_users(examples, config.whole_catalogue, config.seed)
        regimes.append(whole := whole_catalogue(run.prepared, some))
    permutations = config.permutations if listed else 0
    for system in systems:
        measure(system, outputs, regimes, permutations)
    has_prompt = any(system.name == "prompt-only" for system in systems)
    agreed = _agreement(run, outputs, examples) if has_prompt and "teach" in run.finished else None
    if not PartialState().is_main_process:
        return
    teacher = _teacher_name(run)
    results = summarise(scores, _protocol(run, config, candidates), teacher, config)
    kept: dict[str, tuple[Dataset, PerUser]] = {}
    if config.retrieve:
        results["retrieved"] = summarise_retrieved(retrieved, held, teacher, config, describer)
        kept["retrieved"] = examples, end_to_end(retrieved, held)
    if config.whole_catalogue:
        results["whole_catalogue"] = summarise_whole_catalogue(whole, teacher, describer)
        kept["whole_catalogue"] = whole.examples, whole.measured()
    if agreed is not None:
        stored, by_prompt = agreed
        results["distillation"] = agreement(by_prompt)
        kept["distillation"] = stored, {name: {"agreement": one} for name, one in by_prompt.items()}
    _keep_scores(run, scores)
    _keep_users(run, scores, kept)
    if "finetune" in run.finished:
        _record(run.folder / "model", results, scores.weights)
    write_json(run.folder / "results.json", results)
    print(format_table(results))


def _outputs(run: Run, config: EvaluateConfig) -> Outputs:
    return Outputs(
        folder=run.folder,
        prepared=run.prepared,
        load_backbone=run.backbone,
        word=lambda tokenizer: run.instruction_rows(tokenizer, config.seed),
        scoring=run.scoring,
        seed=config.seed,
        scores=run.scores,
    )


def _record(model: Path, results: dict[str, Any], weights: Mapping[str, Fusion]) -> None:
    """Write into the artefact what was measured, and how it ranks with what goes along with it."""
    has_teacher = (model / TEACHER_FOLDER).is_dir()
    fusion = weights.get("delrec+teacher" if has_teacher else "delrec+co-occurrence")
    content = None if fusion is None else fusion.to_dict()
    replace(ArtefactConfig.load(model), fusion=content).save(model)
    (model / PICTURE_FILE).unlink(missing_ok=True)  # of what was measured before
    write_json(model / "results.json", results)
    write_text(model / "README.md", model_card(model))


def _sampled(run: Run, config: EvaluateConfig) -> tuple[Dataset, Dataset, dict[str, Any]]:
    """Return the validation and the test examples, and what their candidates are."""
    prepared, file = run.prepared, config.candidates_file
    fits = config.fit_users and len(prepared.examples["validation"])
    if not fits:
        logger.info("evaluate: without log-loss: it needs weights, fitted on validation users")
    given = dict(prepared.examples) if file is None else read_candidates(file, prepared)
    validation = some_users(given["validation"], config.fit_users if fits else 0, config.seed)
    test = some_users(given["test"], config.max_users, config.seed)
    if not len(test):
        raise InputError(
            f"`evaluate.candidates` {file} holds no test users; give a file with rows of `test`"
        )
    if file is not None:
        logger.info("evaluate: candidates of %d test users from %s", len(test), file)
        facts = {"drawn": "file", "file": str(config.candidates)}
        return validation, test, {**facts, "sha256": sha256_of(file)}
    drawing = Drawing(
        config.candidates,
        config.num_candidates or prepared.info["num_candidates"],
        _teacher(run, "candidates: teacher") if config.candidates == "teacher" else None,
    )
    seed = prepared.info["seed"]
    other = seed if config.candidates_seed is None else config.candidates_seed
    validation = drawing.draw(prepared, validation, seed)
    test = drawing.draw(prepared, test, other)
    path = run.folder / "candidates" / f"{drawing.kind}-{drawing.count}-seed{other}.parquet"
    facts = {"drawn": drawing.kind, "file": f"{path.parent.name}/{path.name}"}
    if PartialState().is_main_process:
        parts = {"validation": validation, "test": test}
        facts["sha256"] = write_candidates(path, prepared, parts)
    return validation, test, facts


def _teacher(run: Run, asked: str) -> Teacher:
    if "teach" not in run.finished:
        raise InputError(
            f"`evaluate.{asked}` needs a finished stage `teach` of this recipe in {run.folder}; "
            "run `delrec run` for all stages, or do without"
        )
    return load_teacher(run.folder / "teacher", run.prepared)


def _retrieved(
    run: Run, config: EvaluateConfig, sampled: Scores
) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """Return the regime of the teacher's own candidates, and whose target is among them."""
    teacher = _teacher(run, "retrieve")
    validation, test = (
        retrieve(teacher, run.prepared, examples, config.retrieve, config.seed)
        for examples in (sampled.validation, sampled.examples)
    )
    logger.info(
        "evaluate: the teacher's best %d items hold the target of %d of %d test users",
        config.retrieve,
        len(test.examples),
        len(test.held),
    )
    return Scores(validation.examples, test.examples), test.held


def _protocol(run: Run, config: EvaluateConfig, candidates: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured on: the facts that head the report."""
    info = run.prepared.info
    protocol = {name: info[name] for name in ("dataset", "split", "history_length")}
    protocol |= {"candidates": candidates, "seeds": [info["seed"]]}
    if config.candidates_seed is not None:
        protocol["candidates_seed"] = config.candidates_seed
    return protocol


def _teacher_name(run: Run) -> str:
    record = run.folder / "teacher" / "teacher.json"
    return f"teacher/{read_json(record)['type']}" if "teach" in run.finished else "teacher"


def _facts(run: Run, config: EvaluateConfig, examples: Dataset) -> dict[str, Sequence[Any]]:
    """Return what users are grouped by."""
    targets = examples["target"][:]
    facts: dict[str, Sequence[Any]] = {
        SEEN: Popularity.fit(run.prepared).counts[targets].astype(int).tolist(),
        HISTORY: examples["position"][:],
    }
    for name in config.slice_columns or ():
        values = metadata(run.prepared.items, name, "evaluate.slice_columns")
        facts[f"{ITEMS}{name}"] = [values[target] for target in targets]
    return facts


def _agreement(
    run: Run, outputs: Outputs, examples: Dataset
) -> tuple[Dataset, dict[str, FloatArray]]:
    """Return whether prompts and backbone choose what the teacher ranks first, 1 or 0.

    Returns:
        The same users' examples as they are stored, whose candidates the teacher's choice joins;
        and of each prompt `(users,)`.
    """
    logger.info("evaluate: agreement with the teacher")
    stored = run.prepared.examples["test"]
    stored = stored.select(np.flatnonzero(np.isin(stored["user_id"][:], examples["user_id"][:])))
    backbone, tokenizer = run.backbone()
    state = PartialState()
    backbone.to(state.device)
    settings = run.trainer_settings("distil", "distil")
    untrained = new_soft_prompt(backbone, settings, tokenizer)
    prompted = DelRecModel.with_prompt(backbone, run.folder / "distil").to(state.device).eval()
    rows = outputs.ranking_rows("rps", stored, tokenizer)
    scoring = run.scoring(tokenizer)
    scorers = {
        "no prompt": CandidateScorer(backbone, None, scoring),
        "random prompt": scorer_of(untrained, scoring),
        "distilled prompt": scorer_of(prompted, scoring),
    }
    scored = {
        name: score_rows(scorer, rows, state, keep_in=folder_of(scorer, run.scores))
        for name, scorer in scorers.items()
    }
    teachers = np.array(rows["target_place"][:])
    choices = {name: np.array([row.argmax() for row in found]) for name, found in scored.items()}
    return stored, {name: (chosen == teachers).astype(float) for name, chosen in choices.items()}


def _keep_scores(run: Run, scores: Scores) -> None:
    """Write every system's score of every candidate, to look single users up."""
    named = scores.examples.select_columns(["user_id", "position", "target", "candidates"])
    kept = Dataset(named.with_format("arrow")[:])  # of its own, not cached beside the examples
    for system, found in scores.by_system.items():
        kept = kept.add_column(system, list(found))
    logs = run.folder / "logs"
    with replace_file(logs / "scores.parquet") as aside:
        kept.to_parquet(str(aside))


def _keep_users(run: Run, scores: Scores, blocks: Mapping[str, tuple[Dataset, PerUser]]) -> None:
    """Write every system's metrics of every user, which summaries over seeds are made of."""
    logs = run.folder / "logs"
    keep_users(logs, "", scores.examples["user_id"][:], scores.measured(), scores.facts)
    for block in BLOCKS:
        (logs / users_file(block)).unlink(missing_ok=True)  # of what was measured before
    for block, (examples, per_user) in blocks.items():
        keep_users(logs, block, examples["user_id"][:], per_user)
