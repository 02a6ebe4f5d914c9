"""Rows of both tasks of stage 1 side by side: every batch has equally many of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from delrec_hf.errors import InputError


def pair_tasks(encoded: Mapping[str, Dataset], seed: int) -> Dataset:
    """Join the tasks' rows so that each row of a batch holds one example of each task.

    The shorter task starts again from its beginning. So every batch, on every process, has equally
    many examples of each task, and each task's gradient can be taken apart.

    Args:
        encoded: Task to rows.
        seed: Decides who stands beside whom.

    Returns:
        Rows with each task's columns, named `{task}/{column}`.
    """
    longest = max(len(rows) for rows in encoded.values())
    parts = []
    for number, (task, rows) in enumerate(encoded.items()):
        if not len(rows):
            raise InputError(f"task `{task}` has no rows; leave it out of `distil.tasks`")
        order = np.random.default_rng([seed, number]).permutation(len(rows))
        names = {name: f"{task}/{name}" for name in rows.column_names}
        parts.append(rows.select(np.resize(order, longest)).rename_columns(names))
    return concatenate_datasets(parts, axis=1)


class TaskCollator:
    """Collates paired rows into one batch per task, and plain rows into a plain batch.

    Args:
        tasks: The tasks of paired rows.
        collate: Makes a batch of one task's rows.
    """

    def __init__(
        self, tasks: Sequence[str], collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    ) -> None:
        self.tasks = tuple(tasks)
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return `{task: batch}` for paired rows, a batch for plain ones."""
        if not any("/" in name for name in rows[0]):
            return self.collate(rows)
        return {task: self.collate([_of_task(row, task) for row in rows]) for task in self.tasks}


def _of_task(row: Mapping[str, Any], task: str) -> dict[str, Any]:
    prefix = f"{task}/"
    return {
        name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)
    }
