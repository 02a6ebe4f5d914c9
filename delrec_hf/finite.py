"""Ending a training at the first number in it that is not finite."""

import math
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import Trainer

from delrec_hf.errors import InputError

_MOST_SKIPPED = 20  # steps in a row; a loss scale of 65,536 has been halved down to 1 after 16


class FiniteTrainer(Trainer):
    """A `Trainer` that ends at a loss or gradient that is not finite; transformers' own goes on.

    Each optimizer step is looked at once, before it changes a weight: at the gradient norm that the
    Trainer has computed already, and at the sum of the micro-batches' losses. All processes see the
    same two numbers, and so end together. What is logged is looked at too, and the weights before
    they are saved and when the training has ended.

    Attributes:
        section: The recipe's section, for the message.
    """

    section: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._losses: list[torch.Tensor] = []
        self._skipped = 0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train.

        Raises:
            InputError: At the first loss, gradient or weight that is not finite.
        """
        output = super().train(*args, **kwargs)
        self._check_weights()
        return output

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Keep the loss of a micro-batch for when the step is looked at."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self._losses.append(loss)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log numbers; a step that the loss scaler left out has no gradient norm."""
        for name in [name for name, value in logs.items() if not math.isfinite(value)]:
            if name != "grad_norm":
                raise self._refusal(f"`{name}`", logs[name], self.state.global_step)
            del logs[name]
        super().log(logs, *args, **kwargs)

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save the model, if its weights are finite."""
        self._check_weights()
        super().save_model(*args, **kwargs)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Look at the step: the Trainer calls this once, between its backwards and the update."""
        norm = super()._get_grad_norm(model, grad_norm)
        # DeepSpeed may know of no norm.
        gradient = torch.as_tensor(0.0 if norm is None else norm)
        if isinstance(gradient, DTensor):
            gradient = gradient.full_tensor()
        loss = torch.stack(self._losses).sum().float()
        self._losses.clear()
        seen = torch.stack([loss, gradient.to(loss)])
        loss_seen, gradient_seen = self.accelerator.reduce(seen, "sum").tolist()
        step = self.state.global_step + 1
        if not math.isfinite(loss_seen):
            raise self._refusal("the loss", loss_seen, step)
        if math.isfinite(gradient_seen):
            self._skipped = 0
            return norm
        # With float16 a gradient overflows until the loss scale has come down; such steps are left
        # out. Where that never ends, it is not the scale.
        self._skipped += 1
        endless = self._skipped >= min(_MOST_SKIPPED, self.state.max_steps)
        if endless or self.accelerator.mixed_precision != "fp16":
            raise self._refusal("the gradient", gradient_seen, step)
        return norm

    def _check_weights(self) -> None:
        """Refuse to go on with weights that the optimizer itself has made too large."""
        trained = [one for one in self.model.parameters() if one.requires_grad]
        own = [one.to_local() if isinstance(one, DTensor) else one for one in trained]
        if not torch.stack([one.isfinite().all() for one in own]).all():
            raise self._refusal("a weight", "inf or nan", self.state.global_step)

    def _refusal(self, what: str, value: float | str, step: int) -> InputError:
        return InputError(
            f"training of `{self.section}` ended at step {step}: {what} is {value}, not a finite "
            f"number; set `{self.section}.learning_rate` to less than "
            f"{self.args.learning_rate:g}, and bfloat16 instead of float16 where that is in use"
        )
