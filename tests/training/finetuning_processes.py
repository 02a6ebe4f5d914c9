"""What a test runs in one process and in two: train LoRA by ranking, write what it became."""

import json
from pathlib import Path

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from safetensors.torch import save_file

from delrec_hf.launch import part
from delrec_hf.training.recommendation import FinetuneConfig, RecommendationTrainer, with_lora
from tests.training.settings import PLAIN_GRADIENT, toy_backbone


def rows() -> Dataset:
    generator = np.random.default_rng(0)
    drawn = [generator.integers(10, 390, 20).tolist() for _ in range(16)]
    return Dataset.from_dict(
        {
            "prompt_ids": [text[: 7 + row % 5] for row, text in enumerate(drawn)],
            "candidate_ids": [[text[12:14], text[14:17], text[17:]] for text in drawn],
            "target_place": [row % 3 for row in range(16)],
        }
    )


def learn_lora(out: Path, batch_size: int, kind: str) -> None:
    backbone, tokenizer = toy_backbone()
    config = FinetuneConfig(
        output_dir=str(out.with_suffix("")),
        loss="listwise",
        lora_type=kind,
        per_device_train_batch_size=batch_size,
        lora_dropout=0.0,
        **PLAIN_GRADIENT,
    )
    model = with_lora(backbone, config, None)
    trainer = RecommendationTrainer(model, config, rows(), rows(), rows(), tokenizer)
    trainer.train()
    state = PartialState()
    if state.is_main_process:
        weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        save_file(weights, out)
        out.with_suffix(".json").write_text(json.dumps(state.num_processes), encoding="utf-8")
    part(0)
