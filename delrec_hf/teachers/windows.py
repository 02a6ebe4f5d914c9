"""What a teacher learns from and is validated on, a batch at a time."""

from collections.abc import Sequence

import numpy as np
import torch

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers.histories import Histories, column, pad_left

Batch = dict[str, torch.Tensor]


class TrainingWindows(torch.utils.data.Dataset[Batch]):
    """Every user's training items cut into windows; each item but a user's first is a label once.

    Attributes:
        items: Training item rows, user after user.
        starts: `(windows,)` where each window's inputs start in `items`.
        lengths: `(windows,)` how many inputs each has, at most `max_length`.
    """

    def __init__(self, prepared: PreparedData, max_length: int) -> None:
        self.items, bounds = Histories.of(prepared).training()
        labels = np.maximum(np.diff(bounds) - 1, 0)
        counts = -(-labels // max_length)
        first = np.cumsum(counts) - counts
        nth = np.arange(counts.sum()) - np.repeat(first, counts)  # 0 for a user's last window
        ends = np.repeat(bounds[1:] - 1, counts) - nth * max_length
        self.starts = np.maximum(ends - max_length, np.repeat(bounds[:-1], counts))
        self.lengths = ends - self.starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return `input_ids` and `labels`, both `(batch, longest)`, padded on the left."""
        starts, lengths = self.starts[indices], self.lengths[indices]
        longest = lengths.max()
        places = np.arange(longest) - (longest - lengths)[:, None]
        real = places >= 0
        places = np.where(real, starts[:, None] + places, 0)
        ids = np.where(real, self.items[places] + 1, 0)
        labels = np.where(real, self.items[np.where(real, places + 1, 0)], -100)
        return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}


class ValidationHistories(torch.utils.data.Dataset[Batch]):
    """What stands before each user's validation item."""

    def __init__(self, prepared: PreparedData, max_length: int) -> None:
        examples = prepared.examples["validation"]
        self.histories = Histories.of(prepared).before(
            column(examples, "user_id").tolist(), column(examples, "position").astype(np.int64)
        )
        self.targets = column(examples, "target").astype(np.int64)
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return `input_ids` and `seen` (item ids, 0 fills up), and `labels` (item rows)."""
        histories = [self.histories[index] for index in indices]
        return {
            "input_ids": torch.from_numpy(pad_left(histories, self.max_length)),
            "seen": torch.from_numpy(pad_left(histories, max(map(len, histories)))),
            "labels": torch.from_numpy(self.targets[indices]),
        }
