"""Each user's numbers of each system: what a run keeps in `logs` for summaries over seeds."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from delrec_hf.errors import InputError
from delrec_hf.evaluation.slices import HISTORY, ITEMS, SEEN
from delrec_hf.files import write_bytes

FloatArray = npt.NDArray[np.float64]
PerUser = dict[str, dict[str, FloatArray]]
"""System to metric to `(users,)` values, or of several runs `(seeds, users)`."""

BLOCKS = ("retrieved", "whole_catalogue", "distillation")
"""Blocks of results.json with users of their own; the systems' own block is ``."""


def users_file(block: str = "") -> str:
    """Return the name of the file of a block of results.json.

    >>> users_file(), users_file("retrieved")
    ('users.parquet', 'users-retrieved.parquet')
    """
    return f"users-{block}.parquet" if block else "users.parquet"


def keep_users(
    logs: Path,
    block: str,
    user_ids: Sequence[str],
    per_user: Mapping[str, Mapping[str, FloatArray]],
    facts: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write the numbers of a block: columns `user_id`, the facts, and `SYSTEM/METRIC`.

    Args:
        logs: The run's folder of logs.
        block: The block.
        user_ids: `(users,)`.
        per_user: System to metric to `(users,)` values.
        facts: What users are grouped by, to `(users,)` values.
    """
    measured = {
        f"{system}/{metric}": values
        for system, metrics in per_user.items()
        for metric, values in metrics.items()
    }
    content = io.BytesIO()
    pq.write_table(pa.table({"user_id": user_ids, **(facts or {}), **measured}), content)
    write_bytes(logs / users_file(block), content.getvalue())


def of_users(folders: Sequence[Path], block: str = "") -> tuple[pa.Table, PerUser]:
    """Return who was measured, and each system's metrics of each seed and user.

    Args:
        folders: The seeds' runs, all of the same users.
        block: A block of results.json.

    Returns:
        The first seed's file, and `(seeds, users)` values of the systems that all seeds measured.

    Raises:
        InputError: If the runs measured different users, or one has not kept them.
    """
    paths = [folder / "logs" / users_file(block) for folder in folders]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is not there; run `delrec evaluate` again")
    tables = [pq.read_table(path) for path in paths]
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


def facts_of(table: pa.Table) -> dict[str, list[Any]]:
    """Return what users are grouped by."""
    return {name: table[name].to_pylist() for name in table.column_names if _is_fact(name)}


def _per_user(table: pa.Table) -> PerUser:
    found: PerUser = {}
    for column in table.column_names:
        name, slash, metric = column.rpartition("/")
        if slash and not _is_fact(column):
            found.setdefault(name, {})[metric] = table[column].to_numpy()
    return found


def _is_fact(column: str) -> bool:
    return column in (SEEN, HISTORY) or column.startswith(ITEMS)
