"""What a teacher learns from: every training item, no other, in an order of the epoch."""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers.config import NEURAL, TeacherConfig
from delrec_hf.teachers.learning.training import train_teacher
from delrec_hf.teachers.learning.windows import LengthGroups, TrainingWindows
from delrec_hf.teachers.models.sequential import SequentialModel
from tests.teachers.prepared_data import prepared_from

Configure = Callable[..., TeacherConfig]


@pytest.mark.parametrize("max_length", [1, 3, 6, 50])
def test_every_training_item_but_the_first_is_a_label_once(
    prepared: PreparedData, max_length: int
) -> None:
    windows = TrainingWindows(prepared, max_length, shuffle_ties=False)
    batch = windows.__getitems__(list(range(len(windows))))
    assert batch["input_ids"].shape[1] <= max_length
    found: list[tuple[int, int]] = []
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        real = [(i - 1, label) for i, label in zip(ids, labels, strict=True) if i]
        assert [label for i, label in zip(ids, labels, strict=True) if not i] == (
            [-100] * (len(ids) - len(real))
        )
        assert all(ids[: len(real)])
        assert [label for _, label in real[:-1]] == [item for item, _ in real[1:]]
        found += real
    parts = [row["items"][: row["train_end"]] for row in prepared.sequences]
    expected = [pair for part in parts for pair in pairwise(part)]
    assert sorted(found) == sorted(expected)


def test_items_of_one_moment_are_learned_in_a_new_order_each_epoch(prepared: PreparedData) -> None:
    windows = TrainingWindows(prepared, 6, shuffle_ties=True, seed=1)
    rows = [(row["items"][: row["train_end"]], row["moments"]) for row in prepared.sequences]
    in_file_order = [item for items, _ in rows for item in items]
    moments = [(n, moment) for n, (items, at) in enumerate(rows) for moment in at[: len(items)]]
    orders = []
    for epoch in range(8):
        windows.set_epoch(epoch)
        orders.append(windows.items.tolist())
        pairs = zip(moments, in_file_order, strict=True)
        assert sorted(zip(moments, orders[-1], strict=True)) == sorted(pairs)
    assert len(set(map(tuple, orders))) == 8
    changed = np.array(orders) != np.array(in_file_order)
    tied = np.array([moments.count(moment) > 1 for moment in moments])
    assert (changed.any(axis=0) == tied).mean() > 0.95  # chance leaves a pair as it was in 1 of 256
    assert not changed[:, ~tied].any()
    windows.set_epoch(3)
    assert windows.items.tolist() == orders[3]


@pytest.mark.parametrize("shuffle_ties", [True, False])
def test_each_epoch_of_a_training_has_its_own_order_of_ties(
    prepared: PreparedData,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shuffle_ties: bool,
) -> None:
    orders: set[tuple[int, ...]] = set()
    take = TrainingWindows.__getitems__

    def watched(self, indices):  # type: ignore[no-untyped-def]
        orders.add(tuple(self.items.tolist()))
        return take(self, indices)

    monkeypatch.setattr(TrainingWindows, "__getitems__", watched)
    config = configure(shuffle_ties=shuffle_ties, num_train_epochs=3)
    train_teacher(prepared, config, tmp_path / "teacher")
    assert len(orders) == (3 if shuffle_ties else 1)


@pytest.mark.parametrize("kind", NEURAL)
def test_no_validation_or_test_item_is_ever_in_a_training_batch(
    prepared: PreparedData,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    # Held-out items become items that no training part has, so that any leak shows.
    rows = [
        {**row, "items": [*row["items"][: row["train_end"]], 30 + 2 * number, 31 + 2 * number]}
        for number, row in enumerate(prepared.sequences)
    ]
    examples = prepared.examples["validation"].map(
        lambda row, number: {"target": 30 + 2 * number}, with_indices=True
    )
    leaky = dataclasses.replace(
        prepared,
        items=Dataset.from_dict({"item_id": [f"i{row}" for row in range(30 + 2 * len(rows))]}),
        sequences=Dataset.from_list(rows, features=prepared.sequences.features),
        examples={"validation": examples},
    )
    seen: set[int] = set()
    forward = SequentialModel.forward

    def watched(self, input_ids, **others):  # type: ignore[no-untyped-def]
        if self.training:
            seen.update((input_ids[input_ids > 0] - 1).tolist())
            for name in ("labels", "later_labels"):
                seen.update(others[name][others[name] >= 0].tolist())
        return forward(self, input_ids, **others)

    monkeypatch.setattr(SequentialModel, "forward", watched)
    train_teacher(leaky, configure(type=kind, horizon=4), tmp_path / "teacher")
    assert seen == {item for row in prepared.sequences for item in row["items"][: row["train_end"]]}


def test_a_batch_holds_windows_of_about_one_length_in_an_order_of_the_epoch() -> None:
    lengths = np.random.default_rng(0).integers(2, 52, size=4000)
    walks = {f"u{user}": range(length + 2) for user, length in enumerate(lengths)}
    windows = TrainingWindows(prepared_from(walks, 60), 50)
    lengths = windows.lengths
    sampler = LengthGroups(windows, batch_size=16, seed=3)
    first, same = list(sampler), list(sampler)
    sampler.set_epoch(1)
    other = list(sampler)
    assert first == same != other
    for order in (first, other):
        assert sorted(order) == list(range(4000))
    spread = np.ptp(lengths[np.array(first)].reshape(-1, 16), axis=1)
    assert np.median(spread) <= 2
