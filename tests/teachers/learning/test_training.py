"""What a teacher has learned, what is kept of it, and how it goes on after a kill."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.teachers.config import NEURAL, TeacherConfig
from delrec_hf.teachers.learning.training import TeacherTrainer, train_teacher
from delrec_hf.teachers.learning.windows import LengthGroups, TrainingWindows, ValidationHistories
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.models.sasrec import SASRecConfig, SASRecModel
from delrec_hf.teachers.models.sequential import SequentialOutput
from delrec_hf.teachers.predictions import predict
from tests.processes import run_in
from tests.teachers.learning.training_processes import train
from tests.teachers.weights import assert_same_weights

Configure = Callable[..., TeacherConfig]

NEGATIVES = {"softmax": 1, "sampled_softmax": 12, "bce": 4, "gbce": 4}
"""The losses, and how many of the ring's 24 items each draws."""

CASER = {
    "softmax": {},
    "sampled_softmax": {"hidden_size": 48, "num_negatives": 23},
    "bce": {"hidden_size": 48, "num_negatives": 23},
    "gbce": {"hidden_size": 48, "num_negatives": 23, "dropout": 0.5},
}
"""What Caser needs beside: with 16 values an item and few negatives, what it misses is chance."""

MISSED = {("caser", "gbce"): 3}
"""Of 48 items; all others miss none. Over the seeds 42 to 45 these missed 2, 0, 1 and 0."""


@pytest.mark.parametrize(
    "loss",
    ["softmax", *(pytest.param(name, marks=pytest.mark.slow) for name in list(NEGATIVES)[1:])],
)
@pytest.mark.parametrize("kind", NEURAL)
def test_a_cycle_is_learned_to_the_last_item(
    cycle: PreparedData, configure: Configure, tmp_path: Path, kind: str, loss: str
) -> None:
    settings = {
        "type": kind,
        "loss": loss,
        "num_negatives": NEGATIVES[loss],
        "dropout": 0.2,
        "weight_decay": 0.0 if loss != "softmax" else None,  # drawing losses pull more weakly
        "horizon": 1,
        "num_train_epochs": 80,
        "learning_rate": 1e-2,
        "patience": 80,
    }
    config = configure(**(settings | (CASER[loss] if kind == "caser" else {})))
    train_teacher(cycle, config, tmp_path / "teacher")
    teacher = load_teacher(tmp_path / "teacher", cycle)
    missed = 0
    for part in ("validation", "test"):
        examples = cycle.examples[part]
        first = predict(teacher, cycle, examples, 1)["items"][:]
        missed += sum(
            found != [target] for found, target in zip(first, examples["target"], strict=True)
        )
    assert missed <= MISSED.get((kind, loss), 0)


def test_the_validation_metric_is_ndcg_over_the_unseen_catalogue(
    prepared: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    config = configure(per_device_eval_batch_size=7)
    train_teacher(prepared, config, tmp_path / "teacher")
    examples = prepared.examples["validation"]
    found = predict(load_teacher(tmp_path / "teacher", prepared), prepared, examples, 10)
    gains = [
        1 / np.log2(items.index(target) + 2) if target in items else 0.0
        for items, target in zip(found["items"], examples["target"], strict=True)
    ]
    record = json.loads((tmp_path / "teacher" / "teacher.json").read_text())
    assert record["validation"]["ndcg@10"] == pytest.approx(np.mean(gains), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_scores_that_are_all_the_same_are_no_success(
    prepared: PreparedData, configure: Configure, tmp_path: Path, value: float
) -> None:
    class Flat(SASRecModel):
        def forward(self, input_ids, user_ids):  # type: ignore[no-untyped-def]
            return SequentialOutput(scores=torch.full((len(input_ids), 30), value))

    trainer = TeacherTrainer(
        model=Flat(SASRecConfig(num_items=30)),
        args=configure(),
        eval_dataset=ValidationHistories(prepared, 6),
        data_collator=lambda batch: batch,
        compute_metrics=lambda found: {"lowest": found.predictions.min()},
    )
    # The longest history leaves 30 - 18 items, and the target stands last among them.
    assert trainer.evaluate()["eval_lowest"] >= 11


def test_two_trainings_with_one_seed_are_the_same(
    prepared: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        train_teacher(
            prepared, configure(output_dir=str(tmp_path / f"{name}-run")), tmp_path / name
        )
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_a_killed_training_continues_to_the_same_weights(
    prepared: PreparedData, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num_train_epochs": 4, "dropout": 0.2, "patience": 4}
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_teacher(prepared, configure(output_dir=str(tmp_path / "a"), **settings), straight)
    config = configure(output_dir=str(tmp_path / "b"), **settings)

    def die(self: LengthGroups, epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        set_epoch(self, epoch)

    set_epoch = LengthGroups.set_epoch
    with monkeypatch.context() as patch:
        patch.setattr(LengthGroups, "set_epoch", die)
        with pytest.raises(KeyboardInterrupt):
            train_teacher(prepared, config, resumed)
    assert not resumed.exists()
    assert list((tmp_path / "b").glob("checkpoint-*"))
    train_teacher(prepared, config, resumed)
    assert_same_weights(straight, resumed)


def test_checkpoints_of_other_settings_are_not_continued(
    prepared: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    train_teacher(prepared, configure(hidden_size=8), tmp_path / "narrow")
    train_teacher(prepared, configure(), tmp_path / "wide")
    train_teacher(prepared, configure(output_dir=str(tmp_path / "new")), tmp_path / "fresh")
    assert_same_weights(tmp_path / "wide", tmp_path / "fresh")


def test_checkpoints_of_other_times_are_not_continued(
    prepared: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    tied = prepared.sequences.map(lambda row: {"moments": [0] * len(row["moments"])})
    at_once = dataclasses.replace(prepared, sequences=tied)
    train_teacher(prepared, configure(), tmp_path / "in order")
    train_teacher(at_once, configure(), tmp_path / "tied")
    train_teacher(at_once, configure(output_dir=str(tmp_path / "new")), tmp_path / "fresh")
    assert_same_weights(tmp_path / "tied", tmp_path / "fresh")


def test_the_folder_holds_config_weights_and_record_alone(
    prepared: PreparedData, configure: Configure, tmp_path: Path
) -> None:
    train_teacher(prepared, configure(), tmp_path / "teacher")
    names = sorted(path.name for path in (tmp_path / "teacher").iterdir())
    assert names == ["config.json", "model.safetensors", "teacher.json"]


def test_training_says_nothing_on_stdout(
    prepared: PreparedData, configure: Configure, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train_teacher(prepared, configure(), tmp_path / "teacher")
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "pin" not in printed.err
    assert "Writing model shards" not in printed.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 10, "num_heads": 4}, "hidden_size 10 is not a multiple"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"top_h": 0}, "top_h is 0"),
    ],
)
def test_settings_that_cannot_be_are_named(
    configure: Configure, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        configure(**settings)


def test_too_little_data_is_named(configure: Configure, tmp_path: Path) -> None:
    rows = {"user_id": ["a"], "items": [[0, 1, 2]], "moments": [[0, 1, 2]], "train_end": [1]}
    ask = {"user_id": ["a"], "position": [1], "target": [1]}
    prepared = PreparedData(
        items=Dataset.from_dict({"item_id": list("abc")}),
        sequences=Dataset.from_dict(rows),
        examples={"validation": Dataset.from_dict(ask)},
        info={},
    )
    with pytest.raises(InputError, match="0 training windows"):
        train_teacher(prepared, configure(), tmp_path / "teacher")


def test_weights_that_are_cut_up_are_refused(
    prepared: PreparedData,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config = configure()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch` does
    with pytest.raises(InputError, match=r"FSDP cuts weights up, .*; launch `teach` with ddp"):
        train_teacher(prepared, config, tmp_path / "teacher")


@pytest.mark.slow
def test_two_processes_train_and_validate_as_one(
    prepared: PreparedData,
    save: Callable[[PreparedData], Path],
    tmp_path: Path,
) -> None:
    data = save(prepared)
    # Batches that divide the windows: accelerate fills a last, smaller batch up with repeats.
    assert len(TrainingWindows(prepared, 6)) == 3 * 26
    records = {}
    for processes, batch_size in ((1, 26), (2, 13)):
        folder = tmp_path / f"{processes}"
        folder.mkdir()
        run_in(processes, train, folder, data, batch_size)
        assert json.loads((folder / "processes.json").read_text()) == processes
        records[processes] = json.loads((folder / "teacher" / "teacher.json").read_text())
    assert records[2]["validation"] == pytest.approx(records[1]["validation"], abs=1e-9)
    # Two processes add up the gradients of half a batch each: in another order, so to rounding.
    assert_same_weights(tmp_path / "1" / "teacher", tmp_path / "2" / "teacher", atol=1e-5)
