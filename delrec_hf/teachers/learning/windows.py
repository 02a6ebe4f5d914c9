"""What a teacher learns from and is validated on, a batch at a time."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from delrec_hf.data.prepared import PreparedData
from delrec_hf.labels import IGNORED
from delrec_hf.teachers.histories import Histories, IntArray, column, flatten, pad_right

Batch = dict[str, torch.Tensor]


class TrainingWindows(torch.utils.data.Dataset[Batch]):
    """Every user's training items cut into windows; each item but a user's first is a label once.

    Args:
        prepared: The data; only its training items are read.
        length: How many labels a window has at most.
        context: How many more items a window may read before the first item with a label.
        horizon: How many of the items after a position are its targets.
        shuffle_ties: Put the items of one moment into a new order each epoch: theirs is not known.
        seed: Decides these orders.

    Attributes:
        items: Training item rows, user after user.
        starts: `(windows,)` where each window's inputs start in `items`.
        firsts: `(windows,)` the input after which the first label comes.
        ends: `(windows,)` where the inputs end.
        users: `(windows,)` rows of the users.
        lengths: `(windows,)` how many inputs each has.
    """

    def __init__(
        self,
        prepared: PreparedData,
        length: int,
        context: int = 0,
        horizon: int = 1,
        *,
        shuffle_ties: bool = False,
        seed: int = 0,
    ) -> None:
        self.items, bounds = Histories.of(prepared).training()
        self.horizon = horizon
        self.seed = seed
        self._in_file_order = self.items
        self._moments = _moments(prepared) if shuffle_ties else np.arange(len(self.items))
        self._has_ties = bool((np.diff(self._moments) == 0).any())
        labels = np.maximum(np.diff(bounds) - 1, 0)
        counts = -(-labels // length)
        first = np.cumsum(counts) - counts
        nth = np.arange(counts.sum()) - np.repeat(first, counts)  # 0 for a user's last window
        begins = np.repeat(bounds[:-1], counts)
        self.users = np.repeat(np.arange(len(counts)), counts)
        self.ends = np.repeat(bounds[1:] - 1, counts) - nth * length
        self.firsts = np.maximum(self.ends - length, begins)
        self.starts = np.maximum(self.firsts - context, begins)
        self.lengths = self.ends - self.starts
        self.last_items = np.repeat(bounds[1:], counts)

    def set_epoch(self, epoch: int) -> None:
        """Take the order inside the moments of an epoch; it follows from seed and epoch alone."""
        if self._has_ties:
            chance = np.random.default_rng([self.seed, epoch]).random(len(self.items))
            self.items = self._in_file_order[np.lexsort((chance, self._moments))]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch as `SequentialModel.forward` takes it, padded on the right."""
        places = self.starts[indices][:, None] + np.arange(self.lengths[indices].max())
        real = places < self.ends[indices][:, None]
        labelled = real & (places >= self.firsts[indices][:, None])
        batch = {
            "input_ids": np.where(real, self._at(places) + 1, 0),
            "user_ids": self.users[indices] + 1,
            "labels": np.where(labelled, self._at(places + 1), IGNORED),
        }
        if self.horizon > 1:
            later = places[:, :, None] + np.arange(2, self.horizon + 1)
            there = labelled[:, :, None] & (later < self.last_items[indices][:, None, None])
            batch["later_labels"] = np.where(there, self._at(later), IGNORED)
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def _at(self, places: IntArray) -> IntArray:
        return self.items[np.minimum(places, len(self.items) - 1)]


def _moments(prepared: PreparedData) -> IntArray:
    """Return `(training items,)` a number that rises from one user or moment to the next."""
    sequences = Histories.of(prepared)
    moments, _ = flatten(prepared.sequences, "moments")
    owners = np.repeat(np.arange(len(sequences.users)), np.diff(sequences.bounds))
    numbers = np.cumsum((np.diff(owners, prepend=0) != 0) | (np.diff(moments, prepend=0) != 0))
    found: IntArray = numbers[sequences.in_training()]
    return found


class ValidationHistories(torch.utils.data.Dataset[Batch]):
    """What stands before each user's validation item, short histories first."""

    def __init__(self, prepared: PreparedData, max_length: int) -> None:
        sequences, examples = Histories.of(prepared), prepared.examples["validation"]
        users = column(examples, "user_id").tolist()
        histories = sequences.before(users, column(examples, "position").astype(np.int64))
        order = np.argsort([min(len(one), max_length) for one in histories], kind="stable")
        self.histories = [histories[row] for row in order]
        self.users = sequences.users.get_indexer(users)[order]
        self.targets = column(examples, "target").astype(np.int64)[order]
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return `input_ids`, `user_ids`, `seen` (item ids, 0 fills up), `labels` (item rows)."""
        histories = [self.histories[index] for index in indices]
        return {
            "input_ids": torch.from_numpy(pad_right(histories, self.max_length)),
            "user_ids": torch.from_numpy(self.users[indices] + 1),
            "seen": torch.from_numpy(pad_right(histories, max(map(len, histories)))),
            "labels": torch.from_numpy(self.targets[indices]),
        }


class LengthGroups(torch.utils.data.Sampler[int]):
    """A new random order each epoch in which a batch holds windows of about one length.

    The order follows from seed and epoch alone, so that processes and resumed runs agree on it.

    Args:
        windows: What is to be put in order. Each epoch is passed on to them: accelerate tells it to
            the sampler alone.
        batch_size: Windows per batch.
        seed: Decides all orders.
    """

    _BATCHES = 50  # sorted together: few enough that neighbours in length still mix

    def __init__(self, windows: TrainingWindows, batch_size: int, seed: int) -> None:
        self.windows = windows
        self.lengths = windows.lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch
        self.windows.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        group = np.arange(len(order)) // (self._BATCHES * self.batch_size)
        order = order[np.lexsort((self.lengths[order], group))]
        whole = len(order) - len(order) % self.batch_size
        batches = generator.permutation(order[:whole].reshape(-1, self.batch_size), axis=0)
        return iter([*batches.ravel().tolist(), *order[whole:].tolist()])
