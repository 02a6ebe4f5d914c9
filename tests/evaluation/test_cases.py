"""The metric cases of `cases/*.json`, whose values were worked out by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delrec_hf.evaluation.lists import list_properties, top_lists
from delrec_hf.evaluation.metrics import per_user_metrics
from delrec_hf.evaluation.relevant_sets import metrics_of_sets

CASES = {
    f"{path.stem}: {case['name']}": case
    for path in sorted((Path(__file__).parent / "cases").glob("*.json"))
    for case in json.loads(path.read_text())
}


def measured(case: dict[str, Any]) -> dict[str, Any]:
    scores = np.array([[float(one) for one in row] for row in case["scores"]])
    if "target" in case:
        return per_user_metrics(scores, case["target"])
    if "relevant" in case:
        relevant = np.zeros(scores.shape, dtype=bool)
        for row, places in enumerate(case["relevant"]):
            relevant[row, places] = True
        return metrics_of_sets(scores, relevant, case.get("num_relevant"))
    lists = top_lists(scores, case["items"], case["k"])
    return list_properties(lists, case["counts"], case["num_users"], case.get("categories"))


@pytest.mark.parametrize("name", CASES)
def test_metrics_are_what_was_worked_out_by_hand(name: str) -> None:
    found = measured(CASES[name])
    for metric, expected in CASES[name]["expected"].items():
        values = [eval(one, {"log2": math.log2}) for one in np.atleast_1d(expected)]
        np.testing.assert_allclose(found[metric], np.squeeze(values), atol=1e-12, err_msg=metric)
