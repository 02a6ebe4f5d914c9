"""Weights of which each process holds a part: FSDP2, and DeepSpeed's ZeRO-3."""

import torch
from accelerate.utils import parse_flag_from_env
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainingArguments


def cut_up_by(config: TrainingArguments) -> str | None:
    """Return what cuts up the weights that are trained, or their gradients; None if nothing does.

    Args:
        config: A training's settings, made under its launcher.

    Returns:
        `FSDP`, `DeepSpeed ZeRO-3` or `DeepSpeed`.
    """
    if config.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return "FSDP"
    deepspeed = config.deepspeed_plugin
    if deepspeed is None:
        return None
    return "DeepSpeed ZeRO-3" if deepspeed.hf_ds_config.is_zero3() else "DeepSpeed"


def in_shards(model: nn.Module) -> bool:
    """Say whether processes hold a part of the weights each, and gather them at every forward.

    Then all of them have to make the same number of forwards.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return False  # without looking at every module, at each forward
    fsdp = any(isinstance(one, FSDPModule) for one in model.modules())
    return fsdp or any(hasattr(one, "ds_id") for one in model.parameters())  # ZeRO-3's mark


def reshard(model: nn.Module) -> None:
    """Let FSDP2 drop what it has gathered, which would not follow when its shards change."""
    for one in model.modules():
        if isinstance(one, FSDPModule):
            one.reshard()


@torch.no_grad()
def whole(parameter: torch.Tensor) -> torch.Tensor:
    """Return a parameter out of its shards, on the CPU; all processes have to ask for it."""
    if isinstance(parameter, DTensor):
        return parameter.full_tensor().cpu()
    if not hasattr(parameter, "ds_id"):
        return parameter.detach().cpu()
    from deepspeed.runtime.zero import GatheredParameters  # there where weights are its own

    with GatheredParameters([parameter]):
        return parameter.detach().cpu().clone()


@torch.no_grad()
def fill(parameter: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole value into a parameter, or into the shard of it that this process holds."""
    if isinstance(parameter, DTensor):
        mesh, placements = parameter.device_mesh, parameter.placements
        value = distribute_tensor(value.to(parameter.device), mesh, placements, src_data_rank=None)
    elif hasattr(parameter, "ds_id"):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([parameter], modifier_rank=0):
            parameter.copy_(value)
        return
    parameter.copy_(value)
