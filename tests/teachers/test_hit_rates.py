"""HR@1 of the targets where the teacher has seen the user and where not."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers import hit_rates
from delrec_hf.teachers.config import TeacherConfig
from delrec_hf.teachers.folds import load_label_teacher, train_teachers
from delrec_hf.teachers.hit_rates import hr_at_1, record_hit_rates
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import score_candidates

Configure = Callable[..., TeacherConfig]


def test_the_target_shares_the_first_place_with_what_ties() -> None:
    examples = Dataset.from_dict({"candidates": [[7, 8, 9]] * 5, "target": [8] * 5})
    scores = np.array(
        [
            [0.0, 1.0, 0.5],  # first: 1
            [2.0, 1.0, 0.5],  # 0
            [1.0, 1.0, 0.5],  # one of two
            [-np.inf, -np.inf, -np.inf],  # one of three
            [np.nan, 1.0, 0.5],  # what is not a number is last: 1
        ]
    )
    assert hr_at_1(scores, examples) == pytest.approx((1 + 0 + 1 / 2 + 1 / 3 + 1) / 5)


@pytest.mark.parametrize("folds", [0, 4])
def test_the_log_and_the_record_tell_it_in_sample_and_out_of_fold(
    prepared: PreparedData,
    configure: Configure,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    folds: int,
) -> None:
    monkeypatch.setattr(hit_rates, "MAX_EXAMPLES", 30)  # of 40
    folder, config = tmp_path / "teacher", configure(type="markov", folds=folds)
    train_teachers(prepared, config, folder)
    teacher, folded = load_teacher(folder, prepared), load_label_teacher(folder, prepared)
    caplog.clear()  # where the command line has been called before, training was logged, too
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        record_hit_rates(teacher, folded if folds else teacher, prepared, config, folder)
    record = json.loads((folder / "teacher.json").read_text())
    assert record["examples"] == {"train": 30, "validation": 30}

    rows = np.sort(np.random.default_rng(42).permutation(40)[:30])
    asked = {"in-sample": (teacher, "train"), "validation": (teacher, "validation")}
    if folds:
        asked["out-of-fold"] = (folded, "train")
    expected = {}
    for name, (one, part) in asked.items():
        examples = prepared.examples[part].select(rows)
        hits = []
        for row, scores in zip(examples, score_candidates(one, prepared, examples), strict=True):
            own = scores[row["candidates"].index(row["target"])]
            hits.append(0 if (scores > own).any() else 1 / (scores == own).sum())
        expected[name] = pytest.approx(np.mean(hits), abs=1e-4)
    assert record["hr@1"] == expected

    rates = {name: f"{value:.4f} {name}" for name, value in record["hr@1"].items()}
    trained = rates["in-sample"] + (f" and {rates['out-of-fold']}" if folds else "")
    assert caplog.messages == [
        f"HR@1 of the target among the candidates: {trained} (30 training examples), "
        f"{rates['validation']} (30 examples)"
    ]
    if folds:  # walks without a rule: what is known of them is known by heart
        assert record["hr@1"]["in-sample"] > record["hr@1"]["out-of-fold"] + 0.2
    assert record["labels"] == ("out-of-fold" if folds else "in-sample")
