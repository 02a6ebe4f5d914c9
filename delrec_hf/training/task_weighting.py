"""The balance of the two tasks of stage 1: by their gradients, or fixed."""

import math
from collections.abc import Mapping

import torch


def dynamic_weights(
    gradients: Mapping[str, torch.Tensor], exponent: float = 0.5
) -> dict[str, float]:
    r"""Weigh each task by its gradient on the soft prompt: a steep task counts less.

    $w_i = \lVert g_i \rVert^{-\alpha} / \sum_j \lVert g_j \rVert^{-\alpha}$

    Args:
        gradients: Gradient of each task's loss on the soft prompt, any shape.
        exponent: $\alpha$; 0 weighs all tasks alike.

    Returns:
        A weight per task; they sum to 1. All weigh alike where a gradient is not finite, which is
        for the trainer to judge.

    >>> steep, flat = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> dynamic_weights({"ta": steep, "rps": flat})
    {'ta': 0.3333333333333333, 'rps': 0.6666666666666666}
    """
    norms = {task: gradient.double().norm().item() for task, gradient in gradients.items()}
    if not all(map(math.isfinite, norms.values())):
        return dict.fromkeys(norms, 1 / len(norms))
    smallest = torch.finfo(torch.float32).tiny
    raw = {task: max(norm, smallest) ** -exponent for task, norm in norms.items()}
    total = sum(raw.values())
    return {task: weight / total for task, weight in raw.items()}


def fixed_weights(given: Mapping[str, float]) -> dict[str, float]:
    """Scale weights so that they sum to 1.

    >>> fixed_weights({"ta": 1.0, "rps": 3.0})
    {'ta': 0.25, 'rps': 0.75}
    """
    total = sum(given.values())
    return {task: weight / total for task, weight in given.items()}
