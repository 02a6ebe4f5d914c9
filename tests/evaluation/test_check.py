"""A rerun beside published results: what holds, what does not, and what cannot be compared."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from delrec_hf.cli import main
from delrec_hf.errors import InputError
from delrec_hf.evaluation.check import SAME, check
from tests.reporting.finished import results

PUBLISHED = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture
def published() -> dict[str, Any]:
    return results()


@pytest.fixture
def rerun(published: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(published)


def failing(rerun: dict[str, Any], published: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one.what, one.metric) for one in check(rerun, published) if not one.holds}


def test_the_same_numbers_hold(rerun: dict[str, Any], published: dict[str, Any]) -> None:
    found = check(rerun, published)
    assert all(one.holds for one in found)
    systems, pairs = len(published["systems"]), len(published["comparisons"])
    assert len(found) == systems * 6 + pairs


@pytest.mark.parametrize("shift", [-0.032, 0.030])
def test_a_mean_outside_its_interval_does_not_hold(
    rerun: dict[str, Any], published: dict[str, Any], shift: float
) -> None:
    rerun["systems"]["delrec"]["hr@1"] += shift  # its interval: .031 below to .029 above
    assert failing(rerun, published) == {("delrec", "hr@1")}
    rerun["systems"]["delrec"]["hr@1"] -= shift * 0.1
    assert failing(rerun, published) == set()


def test_a_difference_outside_its_interval_does_not_hold(
    rerun: dict[str, Any], published: dict[str, Any]
) -> None:
    one = next(one for one in rerun["comparisons"] if one["metric"] == "ndcg@10")
    one["difference"] = one["ci95"][1] + 0.001
    assert failing(rerun, published) == {(f"{one['a']} - {one['b']}", "ndcg@10")}


@pytest.mark.parametrize("fact", SAME)
def test_another_protocol_is_refused(
    rerun: dict[str, Any], published: dict[str, Any], fact: str
) -> None:
    rerun["protocol"][fact] = published["protocol"][fact] = "one"
    check(rerun, published)
    rerun["protocol"][fact] = "other"
    with pytest.raises(InputError, match=f"with {fact} other, the published results with one"):
        check(rerun, published)


def test_no_system_in_common_is_refused(rerun: dict[str, Any], published: dict[str, Any]) -> None:
    rerun["systems"] = {"mine": rerun["systems"]["delrec"]}
    rerun["comparisons"] = []
    with pytest.raises(InputError, match=r"no system in common .* it has mine"):
        check(rerun, published)


@pytest.mark.parametrize("name", ["toy-three-seeds.json", "ml-100k-smollm2.json"])
def test_the_command_tells_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    known = PUBLISHED / name
    rerun = json.loads(known.read_text())
    del rerun["systems"]["delrec"]
    path = tmp_path / "rerun.json"
    words = ["check", str(path), "--against", str(known)]
    path.write_text(json.dumps(rerun))
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "all are the same to the last digit\nnot in the rerun: delrec" in said
    rerun["systems"]["teacher/sasrec"]["ndcg@10"] = 0.5
    path.write_text(json.dumps(rerun))
    assert main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split()[:2] == ["teacher/sasrec", "NDCG@10"]
    assert lines[-1].endswith("0.5000")
    path.write_text("{}")
    assert main(words) == 2
