"""Compiling a backbone's layers with `torch.compile`, each apart."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def compile_layers(model: nn.Module, backend: str, mode: str | None = None) -> int:
    """Compile each decoder layer in place: one program serves all of them, and any shape of batch.

    The whole model, as the Trainer would compile it, holds Python that lays candidates out as
    trees, and would be compiled again for each batch.

    Args:
        model: The model.
        backend: `torch.compile`'s, as `torch_compile_backend` names it.
        mode: `torch.compile`'s, as `torch_compile_mode` names it.

    Returns:
        How many layers there are.
    """
    layers = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    for one in layers:
        one.compile(dynamic=True, backend=backend, mode=mode)
    return len(layers)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled layers as they were: rankings read on from caches, whose layers differ."""
    with torch.compiler.set_stance("force_eager"):
        yield
