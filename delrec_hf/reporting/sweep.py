"""What runs that stand side by side differ in."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from delrec_hf.reporting.reading import FinishedRun, number

SWEPT = {
    "distil.num_virtual_tokens": "virtual tokens of the soft prompt",
    "finetune.max_train_users": "users whose true next items stage 2 sees",
    "teacher.top_h": "items of the teacher's list (h)",
    "data.history_length": "items of a history",
}
"""Settings that runs are made to differ in, and their words on the axis of a curve."""

_USERS = "finetune.max_train_users"  # not set: all of them


@dataclass(frozen=True)
class Sweep:
    """A setting whose values runs are put in order by.

    Attributes:
        setting: `SECTION.KEY`.
        words: What its axis says.
        values: One for each run.
        others: Other settings that differ, too: then it is not the one cause.
    """

    setting: str
    words: str
    values: Sequence[float]
    others: Sequence[str]


def differing(runs: Sequence[FinishedRun]) -> dict[str, list[Any]]:
    """Return the settings that are not the same for all runs, with each run's value."""
    flat = [
        {
            f"{section}.{key}": value
            for section, given in run.settings.items()
            for key, value in given.items()
        }
        for run in runs
    ]
    names = sorted({name for one in flat for name in one})
    found = {name: [one.get(name) for one in flat] for name in names}
    return {
        name: values for name, values in found.items() if len({json.dumps(v) for v in values}) > 1
    }


def find_sweep(runs: Sequence[FinishedRun]) -> Sweep | None:
    """Return the setting that a curve over these runs has below it, if there is one.

    It is the one number that they differ in; of several, the one that runs are made to differ in.
    """
    differ = differing(runs)
    if len(runs) < 2 or not all(run.record for run in runs):
        return None
    for setting in [one for one in SWEPT if one in differ] or list(differ)[: len(differ) == 1]:
        values = [
            number(_all_users(run) if given is None and setting == _USERS else given)
            for run, given in zip(runs, differ[setting], strict=True)
        ]
        known = [one for one in values if one is not None]
        if len(known) == len(runs) == len(set(known)):
            others = [name for name in differ if name != setting]
            return Sweep(setting, SWEPT.get(setting, setting), known, others)
    return None


def _all_users(run: FinishedRun) -> Any:
    return run.data.get("users", run.protocol.get("users"))
