"""What to change in a recipe so that a stage fits on a device."""

from collections.abc import Callable
from typing import Any

from delrec_hf.planning.backbone_cost import BackboneCost
from delrec_hf.training.common import StageConfig


def fitting(
    name: str,
    memory: int,
    device_memory: int | None,
    need: Callable[..., int],
    cost: BackboneCost,
    config: StageConfig | None = None,
) -> list[str]:
    """Return a line that says that a stage does not fit and what to change; none if it fits.

    The first change that is enough is named; if none is, all of them together.

    Args:
        name: The stage.
        memory: Bytes that it needs.
        device_memory: Bytes that there are; None: nobody has told.
        need: Returns the bytes with changes: `cost`, and of trainings `batch_rows` and
            `checkpointing`.
        cost: The backbone.
        config: Settings of a stage that trains.
    """
    if device_memory is None or memory <= device_memory:
        return []
    short = f"{name}: needs {_gb(memory)}, more than {_gb(device_memory)}: "
    told: list[str] = []
    together: dict[str, Any] = {}
    for text, change in _changes(name, cost, config):
        alone = need(**change)
        if alone <= device_memory:
            return [f"{short}set {text} ({_gb(alone)})"]
        told.append(text)
        together |= change
        whole = need(**together)
        if whole <= device_memory:
            return [f"{short}set {' and '.join(told)} ({_gb(whole)})"]
    least = f" (at least {_gb(need(**together))}, with {' and '.join(told)})" if told else ""
    return [f"{short}no setting makes it fit{least}: take a smaller backbone or a larger device"]


def _changes(
    name: str, cost: BackboneCost, config: StageConfig | None
) -> list[tuple[str, dict[str, Any]]]:
    """Return changes, those that cost least first: how to write them, and what they change."""
    found: list[tuple[str, dict[str, Any]]] = []
    if config is not None:
        rows, steps = config.per_device_train_batch_size, config.gradient_accumulation_steps
        for fewer in sorted({max(1, rows // 2), max(1, rows // 4), 1} - {rows}, reverse=True):
            text = (
                f"{name}.per_device_train_batch_size: {fewer} and "
                f"{name}.gradient_accumulation_steps: {steps * rows // fewer}"
            )
            found.append((text, {"batch_rows": fewer}))
        drops_cartridge = getattr(config, "prompt_type", None) == "cartridge"
        if not (config.gradient_checkpointing or drops_cartridge):
            found.append((f"{name}.gradient_checkpointing: true", {"checkpointing": True}))
    loading = cost.loading
    if not (loading.load_in_4bit or loading.load_in_8bit):
        if cost.dtype.itemsize > 2:
            half = cost.changed(torch_dtype="bfloat16")
            found.append(("backbone.torch_dtype: bfloat16", {"cost": half}))
        four = cost.changed(load_in_4bit=True, torch_dtype="bfloat16")
        found.append(("backbone.load_in_4bit: true", {"cost": four}))
    return found


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
