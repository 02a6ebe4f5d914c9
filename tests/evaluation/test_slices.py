"""Groups of targets, against means taken by hand."""

import numpy as np
import pytest

from delrec_hf.evaluation.report import format_table
from delrec_hf.evaluation.slices import slices


def test_every_user_counts_in_one_group() -> None:
    generator = np.random.default_rng(0)
    seen = np.array([0, 0, 1, 4, 5, 24, 25, 99, 100, 4000])
    values = {
        name: {"hr@1": generator.random(10), "ndcg@10": generator.random(10)}
        for name in ("teacher", "delrec")
    }
    values["delrec"]["log_loss"] = generator.random(10)
    found = slices(values, seen, {"teacher": "teacher/gru4rec", "delrec": "delrec"})
    assert [one["seen"] for one in found] == ["0", "1-4", "5-24", "25-99", "100+"]
    for number, one in enumerate(found):
        assert one["users"] == 2
        pair = slice(2 * number, 2 * number + 2)
        for name, shown in (("teacher", "teacher/gru4rec"), ("delrec", "delrec")):
            expected = {metric: of[pair].mean() for metric, of in values[name].items()}
            assert one["systems"][shown] == pytest.approx(expected)
    assert "log_loss" not in found[0]["systems"]["teacher/gru4rec"]
    text = format_table({"slices": found})
    assert "NDCG@10 by how often the target was met in training (users)" in text
    assert "25-99 (2)" in text
    assert "LOG-LOSS by how often" in text
    assert max(map(len, text.splitlines())) <= 110


def test_empty_groups_are_left_out_and_one_group_is_no_table() -> None:
    values = {"teacher": {"hr@1": np.ones(3)}}
    found = slices(values, np.array([30, 40, 50]), {"teacher": "teacher"})
    assert found == [{"seen": "25-99", "users": 3, "systems": {"teacher": {"hr@1": 1.0}}}]
    assert "met in training" not in format_table({"slices": found})
