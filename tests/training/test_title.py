"""Titles are learned as SFTTrainer learns them, with logits of the answers alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import SFTTrainer

from delrec_hf.labels import IGNORED
from delrec_hf.training.recommendation import RecommendationTrainer

Finetuner = Callable[..., RecommendationTrainer]


@pytest.mark.parametrize("shape", ["qwen2", "gemma2", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("stacked", [True, False], ids=["delrec", "lora-only"])
@pytest.mark.parametrize("items", [None, 50])
def test_loss_and_gradient_are_sfttrainers_own(
    finetuner: Finetuner,
    load_tiny: Callable[..., Any],
    save_prompt: Callable[..., Path],
    tmp_path: Path,
    shape: str,
    stacked: bool,
    items: int | None,
) -> None:
    prompt = save_prompt(load_tiny(shape)) if stacked else None
    backbone = load_tiny(shape)
    trainer = finetuner(tmp_path, prompt, backbone, loss="title", lora_dropout=0.0)
    model, made = trainer.model.train(), []
    layer = backbone.get_output_embeddings()
    layer.register_forward_hook(lambda _, __, logits: made.append(logits.numel()))
    rows = sorted(trainer.train_dataset, key=lambda row: len(row["input_ids"]))
    batch = trainer.data_collator([rows[0], rows[-1]])  # one is padded
    found = []
    for own in (True, False):
        model.zero_grad()
        torch.manual_seed(0)  # of GPT-2's dropout
        method = RecommendationTrainer.compute_loss if own else SFTTrainer.compute_loss
        loss = method(trainer, model, dict(batch), num_items_in_batch=items)
        loss.backward()
        moved = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        found.append((loss.detach(), moved))
    (ours, our_gradients), (theirs, gradients) = found
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert any(one.abs().max() > 1e-4 for one in gradients)
    for one, other in zip(our_gradients, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    answers = int((batch["labels"] != IGNORED).sum())
    assert not made or made[0] <= answers * layer.weight.shape[0]


def test_what_changes_the_loss_is_left_to_sfttrainer(finetuner: Finetuner, tmp_path: Path) -> None:
    smoothed = finetuner(tmp_path, None, loss="title", label_smoothing_factor=0.1)
    batch = smoothed.data_collator([smoothed.train_dataset[0]])
    model = smoothed.model.train()
    torch.manual_seed(0)
    found = smoothed.compute_loss(model, dict(batch))
    torch.manual_seed(0)
    torch.testing.assert_close(found, SFTTrainer.compute_loss(smoothed, model, dict(batch)))


@pytest.mark.parametrize("loss", ["title", "listwise"])
def test_products_are_of_bfloat16_where_bf16_is_set(
    finetuner: Finetuner, tmp_path: Path, loss: str
) -> None:
    trainer = finetuner(tmp_path, None, loss=loss, bf16=True, max_steps=1)
    seen: set[torch.dtype] = set()
    layer = trainer.model.get_base_model().model.layers[0].mlp.up_proj
    layer.register_forward_hook(lambda module, _, out: module.training and seen.add(out.dtype))
    trainer.train()
    assert seen == {torch.bfloat16}
