"""Weights cut up on CPUs as they are on GPUs.

accelerate shards on accelerators alone; FSDP2 and DeepSpeed themselves do on CPUs, too, and pass
shards by gloo. As a module, for `accelerate launch`, it is `delrec`.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from delrec_hf.cli import main

# Built from source, so not in CI: `make test-deepspeed` installs it and runs these.
NEEDS_DEEPSPEED = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="DeepSpeed is not installed: `make test-deepspeed`"
)

_plain = PartialState.__init__


def _as_on_gpus(self: PartialState, *args: Any, **kwargs: Any) -> None:
    _plain(self, *args, **kwargs)
    if self.distributed_type is DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


def shard_on_cpus() -> None:
    """Let accelerate shard in this process, one of several."""
    pytest.MonkeyPatch().setattr(PartialState, "__init__", _as_on_gpus)  # for good


def launched_with(kind: str, folder: Path) -> None:
    """Set what `accelerate launch` sets for a config of this name.

    Args:
        kind: `fsdp2`, `zero2` or `zero3`, which here keeps no weight whole, however small it is.
        folder: Of this process, for what DeepSpeed reads.
    """
    shard_on_cpus()
    if kind == "fsdp2":
        os.environ |= {
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
            "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
            "FSDP_RESHARD_AFTER_FORWARD": "true",
            "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
            "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
        }
        return
    stage = {"stage": int(kind[-1])}
    if kind == "zero3":
        stage |= {
            "stage3_param_persistence_threshold": 0,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    config = {"zero_optimization": stage, **dict.fromkeys((*sizes, "gradient_clipping"), "auto")}
    folder.mkdir(parents=True)
    path = folder / f"{kind}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    os.environ |= {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(path),
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": str(kind == "zero3").lower(),
        "DS_ACCELERATOR": "cpu",
    }


if __name__ == "__main__":
    shard_on_cpus()
    sys.exit(main())
