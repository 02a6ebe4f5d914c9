"""What a test runs in one process and in two: distil the same rows, say how many took part."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset

from delrec_hf.launch import part
from delrec_hf.training.distillation import DistilConfig, PatternDistillationTrainer
from delrec_hf.training.soft_prompt import new_soft_prompt
from tests.sharding import launched_with
from tests.training.settings import PLAIN_GRADIENT, toy_backbone

ANSWER = 4  # tokens of every answer: no process has more to learn from than another

TO_RANK = ["prompt_ids", "candidate_ids", "target_place"]


def rows(task: int) -> Dataset:
    generator = np.random.default_rng(task)
    texts = [generator.integers(10, 500, 12 + row % 5).tolist() for row in range(16)]
    labels = [[-100] * (len(text) - ANSWER) + text[-ANSWER:] for text in texts]
    offered = [[text[-ANSWER:], text[3:5], text[5:9]] for text in texts]
    return Dataset.from_dict(
        {
            "input_ids": texts,
            "labels": labels,
            "prompt_ids": [text[:-ANSWER] for text in texts],
            "candidate_ids": offered,
            "target_place": [0] * len(texts),
        }
    )


def distil(folder: Path, batch_size: int, settings: dict[str, Any], kind: str = "ddp") -> None:
    if kind != "ddp":
        launched_with(kind, folder / os.environ["RANK"])
    backbone, tokenizer = toy_backbone()
    config = DistilConfig(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=batch_size,
        num_virtual_tokens=4,
        **PLAIN_GRADIENT,
        **settings,
    )
    model = new_soft_prompt(backbone, config, tokenizer)
    kept = ["input_ids", "labels"] if config.loss == "title" else TO_RANK
    encoded = {task: rows(number).select_columns(kept) for number, task in enumerate(config.tasks)}
    trainer = PatternDistillationTrainer(model, config, encoded, encoded, encoded, tokenizer)
    assert trainer.is_deepspeed_enabled == kind.startswith("zero")
    trainer.train()
    state = PartialState()
    if state.is_main_process:
        losses = [
            {name: entry[name] for name in ("loss", "ta_loss", "rps_loss")}
            for entry in trainer.state.log_history
            if "loss" in entry
        ]
        found = {
            "processes": state.num_processes,
            "losses": losses,
            "prompt": model.soft_prompt.tolist(),
        }
        (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    part(0)
