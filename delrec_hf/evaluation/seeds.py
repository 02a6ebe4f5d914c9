"""One table out of several seeds' runs: what varies with the seed, and what with the users."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from delrec_hf.evaluation.evaluator import EvaluateConfig
from delrec_hf.evaluation.results import comparisons, means
from delrec_hf.evaluation.slices import SEEN, slices
from delrec_hf.files import read_json

FloatArray = npt.NDArray[np.float64]

USERS_FILE = "users.parquet"
"""Each user's metrics of each system, in a run's `logs`: columns `user_id`, `target_in_training`
and `SYSTEM/METRIC`."""


def summarise_seeds(
    folders: Sequence[Path], seeds: Sequence[int], config: EvaluateConfig
) -> dict[str, Any]:
    """Return the content of a results.json over seeds.

    A metric is the mean over seeds of a user's value, then over users. `sd` is the standard
    deviation of the seeds' means; intervals and comparisons are over users, each user's value being
    the mean over the seeds.

    Args:
        folders: The seeds' runs, all of the same users.
        seeds: Their seeds.
        config: Bootstrap settings.

    Returns:
        As `summarise` does, with `sd` for each system, and the fitted `weights` of each seed.
    """
    results = [read_json(folder / "results.json") for folder in folders]
    tables = [_per_user(folder / "logs" / USERS_FILE) for folder in folders]
    shared = [name for name in tables[0] if all(name in table for table in tables)]
    teacher = next((name for name in results[0]["systems"] if name.startswith("teacher/")), "")
    names = {name: teacher if name == "teacher" else name for name in shared}
    over_seeds = {
        name: {
            metric: np.stack([table[name][metric] for table in tables])
            for metric in tables[0][name]
        }
        for name in shared
    }
    per_user = {
        name: {metric: values.mean(axis=0) for metric, values in metrics.items()}
        for name, metrics in over_seeds.items()
    }
    systems = {
        names[name]: {
            **means(per_user[name], config),
            "sd": {
                metric: float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else 0.0
                for metric, values in metrics.items()
            },
            **_of_each_seed([one["systems"][names[name]] for one in results]),
        }
        for name, metrics in over_seeds.items()
    }
    return {
        "protocol": {**results[0]["protocol"], "seeds": list(seeds)},
        "systems": systems,
        "comparisons": comparisons(per_user, names, config),
        **_slices(folders[0] / "logs" / USERS_FILE, per_user, names),
    }


def _of_each_seed(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the seconds together, and the weights of each seed."""
    kept: dict[str, Any] = {}
    if all("seconds" in one for one in found):
        kept["seconds"] = round(sum(one["seconds"] for one in found), 1)
    if all("weights" in one for one in found):
        kept["weights_by_seed"] = [one["weights"] for one in found]
    return kept


def _slices(
    path: Path, per_user: Mapping[str, Mapping[str, FloatArray]], names: Mapping[str, str]
) -> dict[str, Any]:
    table = pq.read_table(path)
    if SEEN not in table.column_names:
        return {}
    return {"slices": slices(per_user, table[SEEN].to_numpy(), names)}


def _per_user(path: Path) -> dict[str, dict[str, FloatArray]]:
    table = pq.read_table(path)
    found: dict[str, dict[str, FloatArray]] = {}
    for column in table.column_names:
        name, slash, metric = column.rpartition("/")
        if slash:
            found.setdefault(name, {})[metric] = table[column].to_numpy()
    return found
