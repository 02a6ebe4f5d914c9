import copy
import re
from typing import Any

import pytest

from delrec_hf.evaluation.metrics import EXPECTED_HR, METRICS
from delrec_hf.evaluation.report import format_markdown, format_table

SYSTEM: dict[str, Any] = {
    **dict.fromkeys((*METRICS, "log_loss"), 0.1234),
    "ci95": {name: [0.1, 0.2] for name in (*METRICS, "log_loss")},
    "seconds": 3.21,
}


@pytest.fixture
def results() -> dict[str, Any]:
    names = ["random", "popularity", "markov", "teacher/sasrec", "zero-shot"]
    names += ["delrec", "delrec/no-ta"]
    return {
        "protocol": {
            "dataset": "toy",
            "split": "leave-one-out",
            "users": 300,
            "num_candidates": 10,
            "history_length": 8,
            "seeds": [42],
            "tie_rule": "expected value under random tie-breaking",
            "best_hr_at_1": 0.7777,
        },
        "systems": {name: copy.deepcopy(SYSTEM) for name in names},
        "comparisons": [
            {"a": "delrec", "b": "zero-shot", "metric": "hr@1", "difference": 0.05}
            | {"ci95": [-0.01, 0.11], "p": 0.0456}
        ],
        "distillation": {"prompt-only": {"agreement": 0.61, "ci95": [0.55, 0.67], "users": 300}},
    }


def test_systems_stand_in_the_order_of_the_results(results: dict[str, Any]) -> None:
    names = [line.split()[0] for line in format_table(results).splitlines() if "0.123" in line]
    assert names == list(results["systems"])


def test_table_shows_metrics_intervals_protocol_and_comparisons(results: dict[str, Any]) -> None:
    text = format_table(results)
    row = next(line for line in text.splitlines() if line.startswith("delrec "))
    assert row.count("0.123") == 6
    assert row.count("[0.100, 0.200]") == 2
    assert re.search(r"delrec - zero-shot +HR@1 +\+0\.050 \[-0\.010, \+0\.110\] +0\.046", text)
    for fact in (
        "Dataset: toy",
        "users: 300",
        "candidates: 10",
        "random tie-breaking",
        "seeds: 42",
    ):
        assert fact in " ".join(text.split())
    assert "LOG-LOSS: minus the log-chance of the target" in text
    assert re.search(r"prompt-only +0\.610 \[0\.550, 0\.670\] +300", text)


def test_a_fusion_shows_its_weights_in_one_line(results: dict[str, Any]) -> None:
    raw, log = ({"kind": kind, "smoothing": 0.0, "floor": 0.0} for kind in ("raw", "log"))
    weights = {
        "delrec": {"weight": 0.00512, "ci95": [0.00401, 0.006], "scale": raw},
        "teacher": {"weight": -1.25, "ci95": [-1.5, -1.0], "scale": log},
    }
    name = "co-occurrence+teacher"
    results["systems"][name] = {**copy.deepcopy(SYSTEM), "weights": weights}
    results["systems"]["delrec"]["weights"] = {"delrec": weights["delrec"]}
    text = format_table(results)
    line = f"{name} = 0.00512 [0.00401, 0.006] x delrec + -1.25 [-1.5, -1] x log teacher."
    assert line in text.splitlines()
    assert "\ndelrec =" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_what_was_retrieved_has_a_table_of_its_own(results: dict[str, Any]) -> None:
    results["retrieved"] = {
        "protocol": {"retriever": "teacher/ranked_lists", "num_candidates": 100, "users": 300},
        "recall_ceiling": 0.4321,
        "systems": {"co-occurrence+teacher": copy.deepcopy(SYSTEM)},
    }
    text = format_table(results)
    assert "End to end: best 100 of the catalogue by teacher/ranked_lists, reranked; 0.432" in text
    assert re.search(r"\nco-occurrence\+teacher  0.123 \[0.100, 0.200\] +0.123  ", text)
    assert max(map(len, text.splitlines())) <= 110


def test_the_whole_catalogue_has_a_table_of_its_own(results: dict[str, Any]) -> None:
    results["whole_catalogue"] = {
        "protocol": {"num_candidates": 1682, "users": 50},
        "systems": {"delrec": copy.deepcopy(SYSTEM)},
        "lists": {
            "length": 10,
            "diversity_column": "genres",
            "systems": {"delrec": {"coverage": 0.25, "gini": 0.5, "diversity": 0.75}},
        },
    }
    text = format_table(results)
    assert "\nWhat these lists of 10 are like; diversity by genres\n" in text
    assert re.search(
        r"\nsystem +coverage +gini +diversity\n-+\ndelrec +0.250 +0.500 +0.750\n", text
    )
    assert "\nWhole catalogue: all 1682 items but those seen before, 50 users" in text
    assert max(map(len, text.splitlines())) <= 110


def test_expected_hr_at_1_is_shown_with_its_limit_where_the_truth_is_known(
    results: dict[str, Any],
) -> None:
    assert "Expected HR@1" not in format_table({**results, "protocol": {}})
    for system in results["systems"].values():
        system[EXPECTED_HR] = 0.4321
        system["ci95"][EXPECTED_HR] = [0.4, 0.5]
    lines = format_table(results).splitlines()
    start = lines.index("Expected HR@1") + 3
    shown = [line.split() for line in lines[start : start + 8]]
    assert shown[:-1] == [[name, "0.432", "[0.400,", "0.500]"] for name in results["systems"]]
    assert shown[-1] == ["limit", "0.778"]


def test_no_line_is_wider_than_110_columns(results: dict[str, Any]) -> None:
    results["protocol"]["dataset"] = "a long name of a dataset " * 9
    results["systems"]["x" * 300] = copy.deepcopy(SYSTEM)
    results["comparisons"][0]["a"] = "y" * 300
    results["systems"]["delrec"]["seconds"] = 86_400.0
    assert max(map(len, format_table(results).splitlines())) <= 110


def test_columns_are_aligned(results: dict[str, Any]) -> None:
    lines = format_table(results).splitlines()
    start = lines.index("Systems") + 1
    assert len({len(line) for line in lines[start : start + 9]}) == 1


def test_what_was_not_measured_is_left_out_or_shown_as_a_dash() -> None:
    text = format_table({"systems": {"random": {"hr@1": 0.5}}})
    assert text.splitlines()[-1].split() == ["random", "0.500", "-", "-", "-", "-", "-"]
    assert "nats" not in text
    assert "seconds" not in text
    assert "Comparisons" not in text
    assert "Agreement" not in text
    assert "Expected HR@1" not in text
    assert "ties" not in text.lower()


def test_markdown_holds_every_number_of_the_plain_table(results: dict[str, Any]) -> None:
    numbers = re.compile(r"\d+\.\d+")
    assert numbers.findall(format_markdown(results)) == numbers.findall(format_table(results))


def test_a_name_with_pipes_and_markup_stays_one_markdown_cell(results: dict[str, Any]) -> None:
    results["systems"]["a|b\n<i>[x](y)"] = copy.deepcopy(SYSTEM)
    results["protocol"]["dataset"] = "*bold* <script>"
    text = format_markdown(results)
    rows = [line for line in text.splitlines() if line.startswith("|") and "0.123" in line]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9}
    assert r"a\|b \<i\>[x\](y)" in text
    assert r"\*bold\* \<script\>" in text
