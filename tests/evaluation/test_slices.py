"""Groups of users, against means and intervals taken by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delrec_hf.evaluation.report import format_table
from delrec_hf.evaluation.slices import (
    HISTORY,
    ITEMS,
    MOST,
    SEEN,
    by_kind,
    group_users,
    slices,
)
from delrec_hf.evaluation.statistics import estimate

GENRE = f"{ITEMS}genre"
PUBLISHED = Path(__file__).parents[2] / "docs" / "results"


def members(by: str, values: list[Any]) -> dict[str, list[int]]:
    """The users of each group, by their place."""
    return {name: np.flatnonzero(one).tolist() for name, one in group_users(by, values).items()}


def test_every_user_counts_in_one_group() -> None:
    generator = np.random.default_rng(0)
    seen = np.array([0, 0, 1, 4, 5, 24, 25, 99, 100, 4000])
    values = {
        name: {"hr@1": generator.random(10), "ndcg@10": generator.random(10)}
        for name in ("teacher", "delrec")
    }
    values["delrec"]["log_loss"] = generator.random(10)
    found = slices(values, {SEEN: seen}, {"teacher": "teacher/gru4rec", "delrec": "delrec"})
    assert [one["group"] for one in found] == ["0", "1-4", "5-24", "25-99", "100+"]
    for number, one in enumerate(found):
        assert (one["by"], one["users"]) == (SEEN, 2)
        pair = slice(2 * number, 2 * number + 2)
        for name, shown in (("teacher", "teacher/gru4rec"), ("delrec", "delrec")):
            expected = {metric: of[pair].mean() for metric, of in values[name].items()}
            assert one["systems"][shown] == pytest.approx(expected)
    assert "log_loss" not in found[0]["systems"]["teacher/gru4rec"]
    text = format_table({"slices": found})
    assert "NDCG@10 by how often the target was met in training (users)" in text
    assert "25-99 * (2)" in text
    assert "LOG-LOSS by how often" in text
    assert max(map(len, text.splitlines())) <= 110


def test_empty_groups_are_left_out_and_one_group_is_no_table() -> None:
    values = {"teacher": {"hr@1": np.ones(3)}}
    found = slices(values, {SEEN: [30, 40, 50]}, {"teacher": "teacher"})
    assert [(one["group"], one["users"]) for one in found] == [("25-99", 3)]
    assert found[0]["systems"] == {"teacher": {"hr@1": 1.0}}
    text = format_table({"slices": found})
    assert "met in training" not in text
    assert "Groups:" not in text


def test_histories_are_grouped_by_how_long_they_are() -> None:
    lengths = [1, 4, 5, 9, 10, 19, 20, 49, 50, 900, 0]
    assert members(HISTORY, lengths) == {
        "0": [10], "1-4": [0, 1], "5-9": [2, 3], "10-19": [4, 5], "20-49": [6, 7], "50+": [8, 9]
    }  # fmt: skip


def test_a_target_of_several_values_counts_in_each_and_one_of_none_is_unknown() -> None:
    genres = ["Comedy|War", "Comedy", "", "War|Comedy|War", "Drama", "unknown"]
    found = members(GENRE, genres)
    assert found == {"Comedy": [0, 1, 3], "War": [0, 3], "Drama": [4], "unknown": [2, 5]}
    assert next(iter(found)) == "Comedy"  # of most users
    assert list(found)[-1] == "unknown"


def test_values_of_few_users_stand_together() -> None:
    brands = [f"brand {number}" for number in range(20) for _ in range(20 - number)]
    found = group_users(f"{ITEMS}brand", [*brands, ""])
    assert list(found) == [f"brand {one}" for one in range(MOST - 1)] + ["9 others", "unknown"]
    assert found["9 others"].sum() == sum(range(1, 10))
    assert sum(one.sum() for one in found.values()) == len(brands) + 1


def test_numbers_are_grouped_in_their_order_by_ranges_of_about_as_many_users() -> None:
    assert members(f"{ITEMS}part", ["10", "9", "9.0", "010", ""]) == {
        "9": [1, 2], "10": [0, 3], "unknown": [4]
    }  # fmt: skip
    years = [str(year) for year in range(1950, 2000) for _ in range(1 + (year >= 1990) * 9)]
    found = group_users(f"{ITEMS}year", years)
    assert list(found) == [
        "1950 to 1977", "1978 to 1991", "1992 to 1994", "1995 to 1997", "1998 to 1999"
    ]  # fmt: skip
    assert [int(one.sum()) for one in found.values()] == [28, 32, 30, 30, 20]
    prices = [f"{price / 100}" for price in range(-50, 50)]
    assert next(iter(group_users(f"{ITEMS}price", prices))) == "-0.5 to -0.31"
    assert list(group_users(f"{ITEMS}code", ["nan", "7"])) == ["7", "nan"]  # texts, not numbers


def test_groups_pair_delrec_with_its_teacher_by_seed_and_user() -> None:
    generator = np.random.default_rng(1)
    values = {
        name: {"ndcg@10": generator.random((3, 90)), "log_loss": generator.random((3, 90))}
        for name in ("popularity", "teacher", "zero-shot", "delrec")
    }
    names = {name: f"teacher/{name}" if name == "teacher" else name for name in values}
    genres = ["space"] * 30 + ["war"] * 29 + ["sea"] * 30 + ["crime"]
    found = slices(values, {SEEN: [0] * 40 + [9] * 50, GENRE: genres}, names)
    assert {one: len(groups) for one, groups in by_kind(found).items()} == {SEEN: 2, GENRE: 4}
    groups = {one["group"]: one for one in found if one["by"] == GENRE}
    of_space, by_loss = groups["space"]["comparisons"]
    expected = estimate((values["delrec"]["ndcg@10"] - values["teacher"]["ndcg@10"])[:, :30])
    assert (of_space["a"], of_space["b"]) == ("delrec", "teacher/teacher")
    assert (of_space["metric"], by_loss["metric"]) == ("ndcg@10", "log_loss")
    assert of_space["difference"] == pytest.approx(expected.mean)
    assert of_space["ci95"] == pytest.approx(expected.interval())
    assert (of_space["seeds"], of_space["users"]) == (3, 30)
    # Of 29 users no interval is told, of one user no difference.
    assert "ci95" not in groups["war"]["comparisons"][0]
    assert groups["crime"]["comparisons"] == []
    text = format_table({"slices": found})
    assert "delrec and its difference to teacher/teacher, by the target's genre" in text
    shown = f"{expected.mean:+.3f} [{expected.interval()[0]:+.3f}, {expected.interval()[1]:+.3f}]"
    rows = [line.split("  ")[0] for line in text.splitlines()]
    assert {"space", "sea", "war *", "crime *"} <= set(rows)
    assert shown in next(line for line in text.splitlines() if line.startswith("space "))
    assert "Groups: * fewer than 30 users, too few to claim anything about." in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("name", ["ml-100k-smollm2", "toy-hidden-three-seeds"])
def test_groups_of_earlier_results_are_read_as_what_they_were(name: str) -> None:
    results = json.loads((PUBLISHED / f"{name}.json").read_text())
    (by, groups), = by_kind(results["slices"]).items()  # fmt: skip
    assert by == SEEN
    assert [one["group"] for one in groups] == [one["seen"] for one in results["slices"]]
    text = format_table(results)
    assert "NDCG@10 by how often the target was met in training (users)" in text
    assert "and its difference to" not in text
