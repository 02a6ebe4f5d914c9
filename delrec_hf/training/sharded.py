"""Checkpoints of a training whose processes hold a part of each weight: adapters, whole."""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import save_fsdp_optimizer
from peft import PeftModel
from torch import nn
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME

from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger
from delrec_hf.modeling.adapters import read_lora
from delrec_hf.ranking.support import way_of
from delrec_hf.shards import cut_up_by, in_shards, reshard, whole

logger = get_logger(__name__)

Weights = dict[str, torch.Tensor]
"""Of adapters, by the model's names of its parameters."""


def whole_adapters(model: PeftModel) -> Weights | None:
    """Gather LoRA and the soft prompt out of their shards, on every process, by parameter name.

    Returns:
        On the CPU; None where the model's own weights are whole.
    """
    if not in_shards(model):
        return None
    reshard(model)
    return {
        name: whole(one)
        for name, one in model.named_parameters()
        if ".lora_" in name or name.startswith("prompt_encoder.")
    }


class ShardedTrainer(Trainer):
    """A `Trainer` that saves whole adapters where FSDP2 or DeepSpeed's ZeRO-3 cuts weights up.

    With FSDP transformers' own saves what PEFT counts as the model's one adapter, here the frozen
    prompt, and with ZeRO-3 what trains: either would lose half of the model. DeepSpeed reads its
    own checkpoints; with FSDP what trains is read from the adapter.
    """

    model: PeftModel
    section: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        by = cut_up_by(self.args)
        if self.is_fsdp_enabled:
            self._check_fsdp()
        if by in ("FSDP", "DeepSpeed ZeRO-3"):
            self._check_shards(by)

    def _check_fsdp(self) -> None:
        """Refuse what FSDP2 cannot cut up.

        Raises:
            InputError: With the reason and the cure.
        """
        backbone = self.model.get_base_model()
        version = self.accelerator.state.fsdp_plugin.fsdp_version
        if version != 2:
            raise InputError(
                f"the accelerate config says `fsdp_version: {version}`; expected 2, as in the "
                "config fsdp2"
            )
        if getattr(backbone, "is_quantized", False):
            raise InputError(
                "FSDP leaves weights of 4 and 8 bits whole in every process, so it saves nothing; "
                "launch it with ddp, or take load_in_4bit and load_in_8bit out of `backbone`"
            )

    def _check_shards(self, by: str) -> None:
        """Refuse what would have processes wait for each other for ever.

        Raises:
            InputError: With the reason and the cure.
        """
        backbone = self.model.get_base_model()
        way, reason = way_of(backbone)
        if way != "tree":
            raise InputError(
                f"{type(backbone).__name__} cannot score candidates in one forward: {reason}; "
                f"with {by} all processes have to make as many: launch it with ddp"
            )
        processes = self.accelerator.num_processes
        logger.info("%s: %s cuts the weights up for %d processes", self.section, by, processes)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Create the optimizer.

        Raises:
            InputError: If weights lie in shards and it is one of bitsandbytes, which knows none.
        """
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        if self.is_fsdp_enabled and type(optimizer).__module__.startswith("bitsandbytes."):
            raise InputError(
                f"`{self.section}.optim` is {self.args.optim}, an optimizer of bitsandbytes, which "
                f"knows no shards; set `{self.section}.optim: adamw_torch_fused`, or launch it "
                "with ddp"
            )
        return optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapters, gathered."""
        if in_shards(self.model):
            self._save(output_dir, state_dict=whole_adapters(self.model))
        else:
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if self.is_fsdp_enabled:
            self._read_lora(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled:
            self._read_lora(str(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()

    def _read_lora(self, folder: str) -> None:
        reshard(self.model)
        read_lora(self.model.get_base_model(), Path(folder))
