"""AdamW that validates and keeps an average of the last epoch's weights."""

from collections.abc import Callable
from typing import Any

import torch


class AveragedAdamW(torch.optim.AdamW):
    """AdamW with an exponential moving average of the weights (Polyak & Juditsky 1992).

    `eval()` puts the average in the weights' place and `train()` takes it back; the Trainer calls
    both. A checkpoint is written after validation: its weights are the averaged ones, and the
    optimizer's state holds the others, so that a resumed run goes on as if never stopped.
    `torch.optim.swa_utils.AveragedModel` keeps the average in a second model, which the Trainer
    would neither validate nor save nor bring back.

    Args:
        params: What to train, as for `torch.optim.AdamW`.
        decay: How much of the average a step keeps, below 1; the first steps keep less.
        **settings: Those of `torch.optim.AdamW`.
    """

    def __init__(self, params: Any, decay: float = 0.99, **settings: Any) -> None:
        super().__init__(params, **settings)
        for group in self.param_groups:
            group["decay"] = decay
            group["averaged"] = False
            group["steps"] = 0

    # Torch overloads `step` by whether there is a closure; one signature serves both here.
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step, then move the average towards the new weights."""
        loss = super().step(closure)
        for group in self.param_groups:
            group["steps"] += 1
            kept = min(group["decay"], (1 + group["steps"]) / (10 + group["steps"]))
            for weight in group["params"]:
                state = self.state[weight]
                if "average" in state:
                    state["average"].lerp_(weight, 1 - kept)
                elif state:
                    state["average"] = weight.detach().clone()
        return loss

    def eval(self) -> None:
        """Put the averaged weights into the model."""
        self._swap(to_average=True)

    def train(self) -> None:
        """Put the weights that are trained back."""
        self._swap(to_average=False)

    @torch.no_grad()
    def _swap(self, *, to_average: bool) -> None:
        for group in self.param_groups:
            if group["averaged"] == to_average:
                continue
            group["averaged"] = to_average
            for weight in group["params"]:
                if "average" in self.state[weight]:
                    other = self.state[weight]["average"]
                    kept = weight.detach().clone()
                    weight.copy_(other)
                    other.copy_(kept)
