"""Log-probabilities through an output layer alone are those of the backbone, gradients too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from delrec_hf.ranking.logits import by_forward, by_layer, plain_output


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(16, 300).requires_grad_(False)


def _slice(rows: int = 150) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(rows, 16, generator=generator)
    owners = torch.randint(rows, (400,), generator=generator)  # several tokens of one row
    return states, owners, torch.randint(300, (400,), generator=generator)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_values_and_gradients_are_those_of_log_softmax(
    layer: nn.Linear, bias: bool, scale: float
) -> None:
    if not bias:
        layer.bias = None
    found = []
    for project in (by_layer(layer), lambda s, r, t: layer(s).log_softmax(1)[r, t]):
        states, rows, tokens = _slice()
        states = (states * scale).requires_grad_()
        gained = project(states, rows, tokens)
        (gained * torch.linspace(-1, 2, len(tokens))).sum().backward()
        found.append((gained.detach(), states.grad))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, atol=2e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("learns", [False, True])
def test_logits_are_made_once_and_weighed_only_where_there_is_a_way_back(
    layer: nn.Linear, learns: bool
) -> None:
    states, rows, tokens = _slice()
    with FlopCounterMode(display=False) as counter:
        gained = by_layer(layer)(states.requires_grad_(learns), rows, tokens)
        product = counter.get_total_flops()
        if learns:
            gained.sum().backward()
    assert product == 2 * len(states) * layer.weight.numel() * (1 + learns)
    assert counter.get_total_flops() == product
    torch.testing.assert_close(gained, by_forward(layer)(states.detach(), rows, tokens))


def test_no_logits_are_kept_for_the_way_back(layer: nn.Linear) -> None:
    states, rows, tokens = _slice()
    kept: list[int] = []

    def keep(one: torch.Tensor) -> torch.Tensor:
        kept.append(one.numel())
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        by_layer(layer)(states.requires_grad_(), rows, tokens)
    assert max(kept) <= len(tokens) * 16  # never rows x vocabulary, 45,000


@pytest.mark.parametrize(
    ("shape", "is_plain"),
    [
        ("llama", True),
        ("gptj, bias", True),
        ("gemma2, softcap", False),
        ("cohere, scale", False),
        ("granite, scale", False),
    ],
)
def test_what_stands_around_the_output_layer_is_noticed(
    tiny: Callable[..., Any], shape: str, is_plain: bool
) -> None:
    backbone = tiny(shape).requires_grad_(False)
    states = 1e-4 * torch.randn(3, 32)  # logits so small that a softcap leaves them as they are
    layer = backbone.get_output_embeddings()

    def forward(states: torch.Tensor) -> torch.Tensor:
        logits = layer(states)
        cap = getattr(backbone.config, "final_logit_softcapping", None)
        if cap:
            logits = cap * torch.tanh(logits / cap)
        scaling = getattr(backbone.config, "logits_scaling", 1.0)
        return logits * getattr(backbone.config, "logit_scale", 1.0) / scaling

    assert (plain_output(backbone, states, forward) is layer) == is_plain


def test_an_output_layer_that_learns_goes_through_the_backbones_forward(
    tiny: Callable[..., Any],
) -> None:
    backbone = tiny("llama").requires_grad_(False)
    states, layer = torch.randn(2, 32), backbone.get_output_embeddings()
    assert plain_output(backbone, states, layer) is layer
    layer.weight.requires_grad_(True)
    assert plain_output(backbone, states, layer) is None
    layer.weight.requires_grad_(False)
    backbone.add_adapter(LoraConfig(r=2, target_modules=["lm_head"]))
    assert plain_output(backbone, states, backbone.get_output_embeddings()) is None
