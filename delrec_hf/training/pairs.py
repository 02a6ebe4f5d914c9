"""Rows of both tasks of stage 1 side by side: every batch has equally many of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from delrec_hf.errors import InputError


def pair_tasks(encoded: Mapping[str, Dataset], seed: int) -> Dataset:
    """Join the tasks' rows so that each row of a batch holds one example of each task.

    The shorter task starts again from its beginning. So every batch, on every process, has equally
    many examples of each task, and each task's gradient can be taken apart.

    Args:
        encoded: Task to rows with `input_ids` and `labels`.
        seed: Decides who stands beside whom.

    Returns:
        Rows with `{task}_input_ids` and `{task}_labels`.
    """
    longest = max(len(rows) for rows in encoded.values())
    parts = []
    for number, (task, rows) in enumerate(encoded.items()):
        if not len(rows):
            raise InputError(f"task `{task}` has no rows; leave it out of `distil.tasks`")
        order = np.random.default_rng([seed, number]).permutation(len(rows))
        names = {name: f"{task}_{name}" for name in ("input_ids", "labels")}
        chosen = rows.select_columns(list(names)).select(np.resize(order, longest))
        parts.append(chosen.rename_columns(names))
    return concatenate_datasets(parts, axis=1)


class TaskCollator:
    """Collates paired rows into one batch per task, and plain rows as SFTTrainer does."""

    def __init__(self, tasks: Sequence[str], pad_token_id: int) -> None:
        self.tasks = tuple(tasks)
        self.collate = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return `{task: batch}` for paired rows, a batch for plain ones."""
        if "input_ids" in rows[0]:
            batch: dict[str, Any] = self.collate(rows)
            return batch
        return {
            task: self.collate(
                [{name: row[f"{task}_{name}"] for name in ("input_ids", "labels")} for row in rows]
            )
            for task in self.tasks
        }
