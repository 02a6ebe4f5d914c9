"""Quantised backbones: the gradients and the logits are those of the dequantised weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.training.distillation import PatternDistillationTrainer

pytest.importorskip("bitsandbytes")

IDS = torch.tensor([[5, 30, 77, 200, 9, 41]])


def _prompt_gradient(model: DelRecModel) -> torch.Tensor:
    model.train()
    model.soft_prompt.grad = None
    model(input_ids=IDS, labels=IDS).loss.backward()
    gradient = model.soft_prompt.grad
    assert gradient is not None
    return gradient.clone()


# On a CPU with avx512_bf16 bitsandbytes packed the 4-bit weights at the first validation; CPUs
# without it have always passed.
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", ["qwen2-wide", "llama-wide"])  # with attention biases, without
def test_validation_leaves_the_gradients_of_a_quantised_backbone_right(
    load_tiny: Callable[..., Any],
    distiller: Callable[..., PatternDistillationTrainer],
    tmp_path: Path,
    shape: str,
    bits: int,
) -> None:
    quantised = {f"load_in_{bits}bit": True, "torch_dtype": "float32"}
    trainer = distiller(tmp_path / "quantised", load_tiny(shape, **quantised))
    before = _prompt_gradient(trainer.model)
    trainer.evaluate()
    after = _prompt_gradient(trainer.model)

    plain = distiller(tmp_path / "plain", load_tiny(shape, **quantised).dequantize())
    assert torch.equal(plain.model.soft_prompt, trainer.model.soft_prompt)
    expected = _prompt_gradient(plain.model)
    # The same numbers are multiplied, in float32; scales may be applied in another order (8 bits).
    error = {"before": before, "after": after}
    error = {name: ((one - expected).norm() / expected.norm()) for name, one in error.items()}
    assert error["before"] < 1e-4
    assert error["after"] < 1e-4
