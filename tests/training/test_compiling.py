"""Compiled layers train as plain ones, one program for all of them and for any batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch._dynamo.utils import counters

from delrec_hf.training.distillation import PatternDistillationTrainer
from delrec_hf.training.recommendation import RecommendationTrainer

SETTINGS = {"max_steps": 3, "logging_steps": 1, "lora_dropout": 0.0}


@pytest.fixture(autouse=True)
def compiler_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test` turns it off for all other tests."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)


@pytest.mark.parametrize("loss", ["title", "listwise"])
def test_losses_are_those_without_compiling_and_one_program_is_made(
    finetuner: Callable[..., RecommendationTrainer],
    save_prompt: Callable[..., Path],
    load_tiny: Callable[..., Any],
    tmp_path: Path,
    loss: str,
) -> None:
    prompt, losses = save_prompt(load_tiny()), []
    for compiled in ({}, {"torch_compile_backend": "aot_eager"}):
        torch._dynamo.reset()
        counters.clear()
        place = tmp_path / str(bool(compiled))
        trainer = finetuner(place, prompt, loss=loss, **SETTINGS, **compiled)
        trainer.train()
        history = trainer.state.log_history
        losses.append([one["loss"] for one in history if "loss" in one])
        assert trainer.accelerator.unwrap_model(trainer.model) is trainer.model
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-4)
    assert 1 <= counters["stats"]["unique_graphs"] <= 3  # two layers, batches of several lengths


def test_rankings_run_uncompiled(
    distiller: Callable[..., PatternDistillationTrainer],
    rows_to_rank: Callable[..., Dataset],
    tmp_path: Path,
) -> None:
    torch._dynamo.reset()
    trainer = distiller(tmp_path, loss="listwise", torch_compile_backend="aot_eager")
    counters.clear()
    trainer.ranked(rows_to_rank("lsr", 6))
    assert not counters["stats"]["unique_graphs"]
