"""What a test runs in one process and in two that hold half of the weights each: stage 2."""

import json
import os
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import AutoTokenizer

from delrec_hf.labels import IGNORED
from delrec_hf.launch import part
from delrec_hf.modeling.backbone import BackboneConfig, load_backbone
from delrec_hf.runs.trainings import save_adapters
from delrec_hf.shards import in_shards
from delrec_hf.training.recommendation import FinetuneConfig, RecommendationTrainer, with_lora
from delrec_hf.training.sharded import whole_adapters
from tests.sharding import launched_with
from tests.training.finetuning_processes import rows
from tests.training.settings import PLAIN_GRADIENT, every


def titles(found: Dataset) -> Dataset:
    """Return the targets of rows to rank as titles to learn."""
    learned: list[dict[str, list[int]]] = []
    for row in found:
        answer = row["candidate_ids"][row["target_place"]]
        ids = row["prompt_ids"] + answer
        learned.append({"input_ids": ids, "labels": [IGNORED] * len(row["prompt_ids"]) + answer})
    return Dataset.from_list(learned)


def learn(out: Path, backbone: str, prompt: str, processes: int, **given: Any) -> None:
    """Train LoRA, save it in `out`, and beside it what was logged; the batch is shared out.

    Args:
        out: A folder.
        backbone: A folder.
        prompt: The folder of a soft prompt.
        processes: How many work together.
        given: Settings, and `kind`: how they are launched, as `sharding.launched_with` has it, or
            `ddp`.
    """
    kind = given.pop("kind", "ddp")
    if kind != "ddp":
        launched_with(kind, out.with_suffix(f".{os.environ['RANK']}"))
    resume = given.pop("resume_from_checkpoint", None)
    config = FinetuneConfig(
        output_dir=str(out.with_suffix(".checkpoints")),
        per_device_train_batch_size=6 // processes,
        per_device_eval_batch_size=4,
        lora_dropout=0.0,
        save_total_limit=None,
        **PLAIN_GRADIENT | every(1) | given,
    )
    loaded, _ = load_backbone(BackboneConfig(model_name_or_path=backbone, torch_dtype="float32"))
    model = with_lora(loaded, config, prompt)
    learned = titles(rows()) if config.loss == "title" else rows()
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    trainer = RecommendationTrainer(model, config, learned, learned, rows(), tokenizer)
    trainer.train(resume_from_checkpoint=resume)
    weights = whole_adapters(model)
    assert PartialState().num_processes == processes
    assert in_shards(model) == (kind in ("fsdp2", "zero3"))
    assert trainer.is_deepspeed_enabled == kind.startswith("zero")
    if PartialState().is_main_process:
        save_adapters(model, out, "backbone", weights)
        history = trainer.state.log_history
        out.with_suffix(".json").write_text(json.dumps(history), encoding="utf-8")
    part(0)
