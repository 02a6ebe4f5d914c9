"""Systems measured apart on targets that were met seldom in training, and often."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SEEN = "target_in_training"
"""Column of the per-user file: in how many training interactions the target stands."""

STARTS = (0, 1, 5, 25, 100)
"""The fewest training interactions with a target, of each group."""

METRICS = ("hr@1", "ndcg@10", "log_loss")
"""What is told of each group."""


def slices(
    per_user: Mapping[str, Mapping[str, FloatArray]], seen: IntArray, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the block `slices` of results.json: means over the users of each group.

    Args:
        per_user: System name to metric to `(users,)` values.
        seen: `(users,)` in how many training interactions a user's target stands.
        names: System name to what the report calls it.

    Returns:
        A group each, with `seen` (`5-24`), `users` and `systems`; empty groups are left out.
    """
    groups = np.searchsorted(STARTS, seen, side="right") - 1
    return [
        {
            "seen": _name(group),
            "users": int((groups == group).sum()),
            "systems": {
                names[system]: {
                    metric: float(values[metric][groups == group].mean())
                    for metric in METRICS
                    if metric in values
                }
                for system, values in per_user.items()
            },
        }
        for group in range(len(STARTS))
        if (groups == group).any()
    ]


def _name(group: int) -> str:
    first = STARTS[group]
    if group + 1 == len(STARTS):
        return f"{first}+"
    last = STARTS[group + 1] - 1
    return f"{first}" if first == last else f"{first}-{last}"
