"""The trainings of both stages and their controls: what goes in, and what is kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from peft import PeftModel
from transformers import PreTrainedModel

from delrec_hf.callbacks import kept_log
from delrec_hf.checkpoints import last_checkpoint
from delrec_hf.errors import InputError
from delrec_hf.files import read_json, replace_folder, write_text
from delrec_hf.hub.cards import model_card
from delrec_hf.instructions.rows import InstructionRows
from delrec_hf.logging import get_logger
from delrec_hf.modeling.adapters import as_lora, sort_layers
from delrec_hf.modeling.artefact import CATALOGUE_FILE, INDEX_FILE, ArtefactConfig, hold_teacher
from delrec_hf.modeling.backbone import describe_backbone
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.runs.record import library_versions
from delrec_hf.runs.rows import distil_rows, finetune_rows
from delrec_hf.runs.run import Run
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.index import save_index
from delrec_hf.training.common import check_keeps_cache, shown_settings
from delrec_hf.training.distillation import DistilConfig, PatternDistillationTrainer
from delrec_hf.training.recommendation import RecommendationTrainer, with_lora
from delrec_hf.training.sharded import Weights, whole_adapters
from delrec_hf.training.soft_prompt import new_soft_prompt

logger = get_logger(__name__)

LEFT_OUT = {"no-ta": "ta", "no-rps": "rps"}
"""Controls whose prompt one task is left out of."""


def train_prompt(run: Run, config: DistilConfig, folder: Path, log: str = "distil") -> None:
    """Train a soft prompt, save it in `folder`, and what it logs in the log of that name."""
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
    checkpoint = last_checkpoint(config.output_dir, run.fingerprint)
    with kept_log(trainer, run.folder / "logs" / f"{log}.json"):
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.accelerator.is_main_process:
        with replace_folder(folder) as aside:
            model.save_pretrained(aside, base_model_name=base_model(run, backbone, folder)["name"])
    trainer.accelerator.wait_for_everyone()


def control_prompt(run: Run, control: str) -> Path | None:
    """Return the soft prompt of a control, made if it is not there; None for LoRA alone.

    It stands among the checkpoints of the stage, by the training's fingerprint: what an interrupted
    run of the same settings has made is taken up.
    """
    if control == "lora-only":
        return None
    place = f"finetune/prompts/{control}"
    folder = run.folder / "checkpoints" / place / run.fingerprint[:16] / control
    if folder.is_dir():
        return folder
    config = run.trainer_settings("distil", place)
    logger.info("finetune: the soft prompt of the control %s", control)
    changed = _changed(control, config)
    if changed:
        sections = run.recipe.sections
        sections = sections | {"distil": sections.get("distil", {}) | changed}
        other = replace(run, recipe=replace(run.recipe, sections=sections))
        config = other.trainer_settings("distil", place, f"distil-{control}")
        config.push_to_hub = False  # one repository holds one prompt
        train_prompt(other, config, folder, f"distil-{control}")
        return folder
    backbone, tokenizer = run.backbone()
    if PartialState().is_main_process:
        with replace_folder(folder) as aside:
            new_soft_prompt(backbone, config, tokenizer).save_pretrained(aside)
    PartialState().wait_for_everyone()
    return folder


def _changed(control: str, config: DistilConfig) -> dict[str, Any]:
    """Return the keys of stage 1 that a control distils otherwise with; none: it does not distil.

    Raises:
        InputError: If the control would be nothing, or delrec itself.
    """
    if control == "cartridge":
        if config.prompt_type == "cartridge":
            raise InputError(
                "`finetune.controls` names `cartridge`, and `distil.prompt_type` is cartridge: "
                "that is delrec itself; take the control out"
            )
        return {"prompt_type": "cartridge", "prompt_init": "text"}
    if control not in LEFT_OUT:
        return {}
    rest = [task for task in config.tasks if task != LEFT_OUT[control]]
    if not rest:
        raise InputError(
            f"`finetune.controls` names `{control}`, and `distil.tasks` is {config.tasks}: "
            "nothing is left to distil; take the control out"
        )
    return {"tasks": rest, "metric_for_best_model": None}


def check_prompts(run: Run) -> None:
    """Refuse controls that would be nothing, and cartridges that would be dropped.

    Raises:
        InputError: With the key and the cure.
    """
    distil, finetune = run.settings("distil"), run.settings("finetune")
    for control in finetune.controls:
        _changed(control, distil)
    if "cartridge" in (distil.prompt_type, *finetune.controls):
        check_keeps_cache(distil, "distil")
        check_keeps_cache(finetune, "finetune")


def train_model(run: Run, name: str) -> None:
    """Train `delrec`, or a control of that name, and what stands in for its prompt."""
    if name == "delrec":
        train_lora(run, name, run.folder / "distil", run.folder / "model")
    else:
        train_lora(run, name, control_prompt(run, name), run.folder / name)


def train_lora(run: Run, name: str, prompt: Path | None, folder: Path) -> None:
    """Train LoRA behind a soft prompt, or alone, and save it in `folder`.

    Args:
        run: The run.
        name: What its checkpoints are called.
        prompt: A soft prompt's folder, or None.
        folder: Where to save.
    """
    place = "alone" if prompt is None else "behind a soft prompt"
    logger.info("finetune: %s, LoRA %s", name, place)
    config = run.trainer_settings("finetune", f"finetune/{name}", name)
    config.push_to_hub &= name == "delrec"  # one repository holds one model
    backbone, tokenizer = run.backbone()
    write = run.instruction_rows(tokenizer, config.seed)
    rows = finetune_rows(run, config, write)
    model = with_lora(backbone, config, prompt)
    trainer = RecommendationTrainer(
        model=model,
        args=config,
        train_rows=rows.train,
        validation_rows=rows.validation,
        ranking_rows=rows.ranking,
        processing_class=tokenizer,
        scoring=run.scoring(tokenizer),
        temperature=run.temperature(config),
    )
    checkpoint = last_checkpoint(config.output_dir, run.fingerprint)
    with kept_log(trainer, run.folder / "logs" / f"{folder.name}.json"):
        trainer.train(resume_from_checkpoint=checkpoint)
    weights = whole_adapters(model)
    if not trainer.accelerator.is_main_process:
        return
    with replace_folder(folder) as aside:
        if name == "delrec":
            save_artefact(run, model, write, aside, weights)
        else:
            save_adapters(model, aside, base_model(run, backbone, folder)["name"], weights)


def base_model(run: Run, backbone: PreTrainedModel, folder: Path) -> dict[str, Any]:
    """Return how a folder of the run names its backbone."""
    return describe_backbone(backbone, run.backbone_config().model_name_or_path, folder)


def save_adapters(
    model: PeftModel, folder: Path, base_model_name: str, weights: Weights | None = None
) -> None:
    """Save LoRA, and the soft prompt if there is one, as plain PEFT adapters.

    Args:
        model: A trained model.
        folder: Where to save.
        base_model_name: How the adapters' configs name the backbone.
        weights: The adapters' weights, where the model's own lie in shards: `whole_adapters`.
    """
    if isinstance(model, DelRecModel):
        model.save_pretrained(folder, base_model_name=base_model_name, state_dict=weights)
    else:
        model.peft_config["default"].base_model_name_or_path = base_model_name
        # What PEFT would look for, embeddings trained along, cannot be there.
        model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
    as_lora(folder)
    sort_layers(folder)


def save_artefact(
    run: Run,
    model: DelRecModel,
    write: InstructionRows,
    folder: Path,
    weights: Weights | None = None,
) -> None:
    """Write the artefact: adapters, tokenizer, catalogue, teacher or index, facts and card."""
    named = base_model(run, model.backbone, run.folder / "model")
    save_adapters(model, folder, named["name"], weights)
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
    if not hold_teacher(run.folder / "teacher", folder):
        item_ids = catalogue["item_id"].to_pylist()
        save_index(CoOccurrence.fit(prepared), item_ids, folder / INDEX_FILE)
    teacher = read_json(run.folder / "teacher" / "teacher.json")
    facts = ("dataset", "terms", "split", "users", "items", "interactions", "seed")
    ArtefactConfig(
        base_model=named,
        teacher={
            "type": teacher["type"],
            "labels": teacher.get("labels"),
            "top_h": run.recipe.settings("teacher").top_h,
            **teacher["settings"],
        },
        domain=run.domain,
        history_length=prepared.info["history_length"],
        num_candidates=prepared.info["num_candidates"],
        scoring=scoring,
        candidates=write.config.candidates,
        prompt_teacher=write.config.teacher,
        turns=write.config.turns,
        calibration_weight=weight,
        data={name: prepared.info.get(name) for name in facts},
        distil=_shown(run, "distil"),
        finetune=_shown(run, "finetune"),
        versions=library_versions(),
    ).save(folder)
    write_text(folder / "README.md", model_card(folder))


def _shown(run: Run, section: str) -> dict[str, Any]:
    """Return a stage's settings for the artefact, with the temperature that it really had."""
    config = run.trainer_settings(section, section)
    shown = shown_settings(config)
    if config.loss == "listwise":
        shown["temperature"] = run.temperature(config)
    return shown
