"""The last batch of an epoch over several processes: what fills it up teaches nothing."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import Trainer

from delrec_hf.labels import IGNORED


class FilledBatchesTrainer(Trainer):
    """A `Trainer` that learns from each row once an epoch, whatever the number of processes.

    accelerate gives every process as many rows as the others, and where the last ones of an epoch
    do not suffice it takes rows from its beginning a second time. Here these count for nothing, in
    the loss and in what it is a mean over, so that the step is that of one process.
    """

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Collect the micro-batches of a step, and count what their loss is a mean over."""
        batches = map(self._without_filling, epoch_iterator)
        collected: tuple[list[Any], Any] = super().get_batch_samples(batches, num_batches, device)
        return collected

    def _without_filling(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.accelerator.gradient_state.end_of_dataloader:
            left = self._left_for_the_last()
            if left:
                _ignore_rows(batch, left, self.accelerator.process_index)
        return batch

    def _left_for_the_last(self) -> int:
        """Return how many rows the last batch of an epoch holds, all processes together; 0: all.

        accelerate knows it no more (`GradientState.remainder`) once it has skipped batches to go on
        from a checkpoint.
        """
        processes = self.accelerator.num_processes
        if processes == 1 or self.args.dataloader_drop_last:
            return 0
        size = self._train_batch_size * (1 if self.accelerator.split_batches else processes)
        return len(self.train_dataset) % size


def _ignore_rows(batch: dict[str, Any], left: int, process: int) -> None:
    """Take the targets from a process's rows, but for its share of the rows that were left."""
    for name, values in batch.items():
        if isinstance(values, dict):  # of one of several tasks
            _ignore_rows(values, left, process)
            continue
        own = max(0, left - process * len(values))
        if name in ("labels", "later_labels"):
            values[own:] = IGNORED
        elif name == "chances":
            for chances in values[own:]:
                chances.zero_()
