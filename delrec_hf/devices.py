"""What is known of an accelerator's memory."""

from functools import cache

import torch


def counts_memory(device: torch.device | None) -> bool:
    """Say whether torch counts what a device holds: of a CPU it does not, nor of Apple's MPS."""
    return device is not None and device.type in ("cuda", "xpu")


@cache  # the driver takes its time to answer, and each forward asks
def total_memory(device: torch.device) -> int:
    """Return the bytes that a device has, whoever holds them; for one that `counts_memory`."""
    total: int = torch.accelerator.get_memory_info(device)[1]
    return total
