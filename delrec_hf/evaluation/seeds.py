"""One table out of several seeds' runs: what varies with the seed, and what with the users."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from delrec_hf.errors import InputError
from delrec_hf.evaluation.results import OVER_USERS, comparisons, means
from delrec_hf.evaluation.slices import SEEN, slices
from delrec_hf.files import read_json

FloatArray = npt.NDArray[np.float64]

USERS_FILE = "users.parquet"
"""Each user's metrics of each system, in a run's `logs`: columns `user_id`, `target_in_training`
and `SYSTEM/METRIC`."""


def summarise_seeds(folders: Sequence[Path], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the content of a results.json over seeds.

    A metric is the mean over seeds and users. `sd` is the standard deviation of the seeds' means;
    intervals and comparisons are over seeds and users both, paired by seed and user.

    Args:
        folders: The seeds' runs, all of the same users.
        seeds: Their seeds.

    Returns:
        As `summarise` does, with `sd` for each system, and the fitted `weights` of each seed.

    Raises:
        InputError: If the runs measured different users.
    """
    results = [read_json(folder / "results.json") for folder in folders]
    table, per_user = of_users(folders)
    teacher = next((name for name in results[0]["systems"] if name.startswith("teacher/")), "")
    names = {name: teacher if name == "teacher" else name for name in per_user}
    systems = {
        names[name]: {
            **means(metrics),
            "sd": {metric: _spread(values) for metric, values in metrics.items()},
            **_of_each_seed([one["systems"][names[name]] for one in results]),
        }
        for name, metrics in per_user.items()
    }
    over = {**OVER_USERS, **({"intervals": "seeds and users"} if len(seeds) > 1 else {})}
    return {
        "protocol": {
            **results[0]["protocol"],
            **_candidates([one["protocol"] for one in results]),
            "seeds": list(seeds),
            **over,
        },
        "systems": systems,
        "comparisons": comparisons(per_user, names),
        **_slices(table, per_user, names),
    }


def of_users(
    folders: Sequence[Path],
) -> tuple[pa.Table, dict[str, dict[str, FloatArray]]]:
    """Return who was measured, and each system's metrics of each seed and user.

    Args:
        folders: The seeds' runs, all of the same users.

    Returns:
        The first seed's per-user file, and system to metric to `(seeds, users)` values.

    Raises:
        InputError: If the runs measured different users.
    """
    tables = [pq.read_table(folder / "logs" / USERS_FILE) for folder in folders]
    for folder, table in zip(folders, tables, strict=True):
        if table["user_id"] != tables[0]["user_id"]:
            raise InputError(
                f"{folder} measured other users than {folders[0]}; evaluate both again with the "
                "same `evaluate.max_users` and `evaluate.seed`"
            )
    measured = [_per_user(table) for table in tables]
    return tables[0], {
        name: {
            metric: np.stack([one[name][metric] for one in measured])
            for metric in measured[0][name]
        }
        for name in measured[0]
        if all(name in one for one in measured)
    }


def _spread(values: FloatArray) -> float:
    return float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else 0.0


def _candidates(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the candidates are; a teacher's differ between seeds, and so do their files."""
    found = [one["candidates"] for one in protocols if "candidates" in one]
    hashes = [one["sha256"] for one in found]
    if len(set(hashes)) < 2:
        return {}
    return {"candidates": {**found[0], "sha256": hashes}}


def _of_each_seed(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the seconds together, and the weights of each seed."""
    kept: dict[str, Any] = {}
    if all("seconds" in one for one in found):
        kept["seconds"] = round(sum(one["seconds"] for one in found), 1)
    if all("weights" in one for one in found):
        kept["weights_by_seed"] = [one["weights"] for one in found]
    return kept


def _slices(
    table: pa.Table, per_user: Mapping[str, Mapping[str, FloatArray]], names: Mapping[str, str]
) -> dict[str, Any]:
    if SEEN not in table.column_names:
        return {}
    over_seeds = {
        name: {metric: values.mean(axis=0) for metric, values in metrics.items()}
        for name, metrics in per_user.items()
    }
    return {"slices": slices(over_seeds, table[SEEN].to_numpy(), names)}


def _per_user(table: pa.Table) -> dict[str, dict[str, FloatArray]]:
    found: dict[str, dict[str, FloatArray]] = {}
    for column in table.column_names:
        name, slash, metric = column.rpartition("/")
        if slash:
            found.setdefault(name, {})[metric] = table[column].to_numpy()
    return found
