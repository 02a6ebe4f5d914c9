"""Weights cut up on CPUs as they are on GPUs.

accelerate shards on accelerators alone; FSDP2 itself does on CPUs, too, and passes shards by gloo.
As a module, for `accelerate launch`, it is `delrec`.
"""

import os
import sys
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from delrec_hf.cli import main

_plain = PartialState.__init__


def _as_on_gpus(self: PartialState, *args: Any, **kwargs: Any) -> None:
    _plain(self, *args, **kwargs)
    if self.distributed_type is DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


def shard_on_cpus() -> None:
    """Let accelerate shard in this process, one of several."""
    PartialState.__init__ = _as_on_gpus  # type: ignore[method-assign]


def launched_with_fsdp() -> None:
    """Set what `accelerate launch` sets for the config fsdp2."""
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    }
    shard_on_cpus()


if __name__ == "__main__":
    shard_on_cpus()
    sys.exit(main())
