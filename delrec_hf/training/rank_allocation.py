"""AdaLoRA's rank allocation and orthogonal regularisation, for an adapter inside a backbone.

PEFT allocates ranks in `AdaLoraModel.update_and_allocate`, which the Trainer never calls, and
regularises in `AdaLoraModel.forward`, if a loss comes out of that. Behind a soft prompt there is
no `AdaLoraModel`, and neither of our losses goes through that forward: its parts are driven here.
"""

from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora.layer import RankAllocator
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger

STATE_FILE = "rank_allocation.safetensors"
_ADAPTER = "default"
# Shares of a training's steps, in the middle of what the paper (2303.10512, tables 8 to 11) uses.
_WARMUP = 0.1
_SETTLED = 0.5
_INTERVAL = 0.001
_FEWEST_STEPS = 3  # one to measure, one to allocate, one to learn with what is left

logger = get_logger(__name__)


def adalora_config(
    backbone: PreTrainedModel, r: int, target_modules: list[str] | str | None, **settings: Any
) -> AdaLoraConfig:
    """Return the settings of AdaLoRA with a budget of `r` ranks a layer, on average.

    It starts with half as many again, as the paper does. The schedule is set when the training
    knows its steps.

    Args:
        backbone: The language model; its type says which layers are adapted by default, the same
            as with LoRA (PEFT knows fewer types for AdaLoRA).
        r: What is left of the ranks, a layer on average.
        target_modules: The layers to adapt, or None.
        settings: What LoRA has, too.
    """
    if target_modules is None:
        known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
        target_modules = known.get(backbone.config.model_type)
    return AdaLoraConfig(
        init_r=max(r + 1, round(1.5 * r)),
        target_r=r,
        total_step=_FEWEST_STEPS,
        target_modules=target_modules,
        **settings,
    )


class RankAllocation(TrainerCallback):
    """Takes ranks from the layers where they do least, after each optimizer step.

    The first tenth of the training's steps leaves all ranks; then the budget falls to its target,
    until half of the steps are done; the other half learns with the ranks that are left.

    Args:
        backbone: A language model with an AdaLoRA adapter inside.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        self._backbone = backbone
        self._config: AdaLoraConfig = backbone.peft_config[_ADAPTER]
        self._allocator = RankAllocator(backbone, self._config, _ADAPTER)
        self._kept: dict[str, list[bool]] = {}

    @property
    def ranks(self) -> list[int]:
        """The ranks that each layer has now."""
        every = [self._config.init_r] * len(self._allocator.name_set)
        return [sum(kept) for kept in self._kept.values()] or every

    def is_settled(self, steps: int) -> bool:
        """Say whether the budget is met once so many steps are done."""
        return steps >= self._config.total_step - self._config.tfinal

    def regularisation(self) -> torch.Tensor:
        """Return the weighted mean distance of the singular vectors from being orthonormal."""
        distances = []
        for name, vectors in self._backbone.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                rows = vectors if ".lora_A." in name else vectors.T
                one = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
                distances.append(torch.linalg.matrix_norm(rows @ rows.T - one))
        return self._config.orth_reg_weight * torch.stack(distances).mean()

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Fit the schedule to the steps of the training.

        Raises:
            InputError: If there are too few of them.
        """
        steps = state.max_steps
        if steps < _FEWEST_STEPS:
            raise InputError(
                f"`finetune.lora_type` is adalora, which allocates ranks over {_FEWEST_STEPS} steps"
                f" or more, and this training has {steps}; set `finetune.max_steps` or "
                "`finetune.num_train_epochs` to more, or `finetune.lora_type: lora`"
            )
        self._config.total_step = steps
        self._config.tinit = int(_WARMUP * steps)
        self._config.tfinal = int(_SETTLED * steps)
        self._config.deltaT = max(1, round(_INTERVAL * steps))

    def on_optimizer_step(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Measure what each rank does, and leave as many as the budget of this step says."""
        step = state.global_step + 1
        if self.is_settled(step - 1):
            # What is taken would come back by the optimizer's momentum.
            self._allocator.mask_using_rank_pattern(self._backbone, self._kept)
            return
        last = self.is_settled(step)
        _, kept = self._allocator.update_and_allocate(self._backbone, step, force_mask=last)
        self._kept = kept or self._kept
        if last and state.is_world_process_zero:
            logger.info(
                "AdaLoRA leaves %d of %d ranks in %d layers, %d to %d each",
                sum(self.ranks),
                self._allocator.init_bgt,
                len(self.ranks),
                min(self.ranks),
                max(self.ranks),
            )

    def save(self, folder: Path) -> None:
        """Write what the next allocation depends on: averages, and which ranks are kept."""
        kept = {name: torch.tensor(places) for name, places in self._kept.items()}
        parts = {
            "importance": self._allocator.exp_avg_ipt,
            "uncertainty": self._allocator.exp_avg_unc,
            "kept": kept,
        }
        state = {
            f"{part}/{name}": value.contiguous()
            for part, values in parts.items()
            for name, value in values.items()
        }
        save_file(state, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            InputError: If it is not there.
        """
        if not (folder / STATE_FILE).is_file():
            raise InputError(
                f"{folder} holds no {STATE_FILE}, without which AdaLoRA cannot go on; remove the "
                "checkpoint, and do not set `finetune.save_only_model`"
            )
        state = load_file(folder / STATE_FILE)
        parameters = dict(self._backbone.named_parameters())
        for key, value in state.items():
            part, _, name = key.partition("/")
            if part == "kept":
                self._kept[name] = value.tolist()
                continue
            value = value.to(parameters[name].device)
            average = "exp_avg_ipt" if part == "importance" else "exp_avg_unc"
            getattr(self._allocator, average)[name] = value
            self._allocator.ipt[name] = value  # that it is there says that the averages are
