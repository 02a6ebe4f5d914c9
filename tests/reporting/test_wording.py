from pathlib import Path
from typing import Any

import pytest

from delrec_hf.errors import InputError
from delrec_hf.reporting.reading import FinishedRun, read_runs
from delrec_hf.reporting.sweep import find_sweep
from delrec_hf.reporting.wording import claims, comparable
from tests.reporting.finished import results, write, write_run


def run(**changes: Any) -> FinishedRun:
    return FinishedRun("mine", Path("mine"), {**results(), **changes})


def test_claims_say_above_below_and_not_shown_by_the_first_metric_alone() -> None:
    found = claims(run())
    assert found[0] == (
        "In NDCG@10, delrec is above teacher/sasrec (+0.080 [+0.050, +0.110]); not shown to differ "
        "from delrec/no-ta (+0.020 [\N{MINUS SIGN}0.010, +0.050]), lora-only (+0.020 "
        "[\N{MINUS SIGN}0.010, +0.050])."
    )
    assert found[1] == "In NDCG@10, delrec+teacher is above delrec (+0.050 [+0.020, +0.080])."
    said = " ".join(found[2:])
    assert "One seed was trained" in said
    assert "12 comparisons are not corrected" in said
    assert "among 10 candidates" in said


def test_a_corrected_p_decides_over_the_interval() -> None:
    pairs = [{**one, "p_holm": 0.2, "detectable": 0.0123} for one in results()["comparisons"]]
    found = " ".join(claims(run(comparisons=pairs)))
    assert "above" not in found
    assert "could have shown" in found
    assert "teacher/sasrec (0.012)" in found
    assert "not corrected" not in found


def test_claims_that_results_hold_are_said_as_they_are() -> None:
    assert claims(run(claims=["Nothing."])) == ["Nothing."]


def test_a_lower_log_loss_is_better() -> None:
    held = results()
    for system in held["systems"].values():
        for metric in ("ndcg@10", "hr@1", "mrr", "hr@10"):
            del system[metric]
    found = claims(FinishedRun("mine", Path("mine"), held))
    assert found[0].startswith("In log-loss, delrec is not shown")
    assert "below teacher/sasrec" in found[0]  # its difference is positive


def test_few_users_claim_nothing() -> None:
    held = results(users=12)
    found = claims(FinishedRun("mine", Path("mine"), held))
    assert found[0] == "12 test users are too few to claim anything about systems."


def test_runs_on_other_data_are_not_compared() -> None:
    others = [FinishedRun("b", Path("b"), results(dataset="b", num_candidates=20)), run()]
    assert "differ in dataset, candidates" in " ".join(comparable(others))
    assert len(comparable([run(), run()])) == 1


def test_a_sweep_is_the_one_number_that_runs_differ_in(tmp_path: Path) -> None:
    def sweep(*given: dict[str, Any]) -> Any:
        folders = [tmp_path / f"{len(list(tmp_path.iterdir()))}-{n}" for n in range(len(given))]
        return find_sweep(
            read_runs([write_run(f, **g) for f, g in zip(folders, given, strict=True)])
        )

    found = sweep({"learning_rate": 0.1}, {"learning_rate": 0.5})
    assert (found.setting, found.values) == ("distil.learning_rate", [0.1, 0.5])
    found = sweep(*({"num_virtual_tokens": n, "seed": n} for n in (4, 8)))
    assert (found.setting, found.others) == ("distil.num_virtual_tokens", ["distil.seed"])
    assert sweep({}, {}) is None
    assert sweep({"loss": "title"}, {"loss": "listwise"}) is None


def test_names_are_as_long_as_it_takes_to_tell_runs_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name / "run") for name in ("a", "b")]
    assert [one.name for one in read_runs(folders)] == ["a/run", "b/run"]
    assert read_runs(folders[:1])[0].name == "run"


def test_seeds_are_read_as_one_run(tmp_path: Path) -> None:
    write(tmp_path / "results.json", results(seeds=[1, 2]))
    for seed in (1, 2):
        write_run(tmp_path / f"seed-{seed}")
    (found,) = read_runs([tmp_path])
    assert len(found.logs["distil"]) == 2
    assert found.record["stages"]
    assert found.data["users"] == 600


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "is not the results of a run"),
        ('{"systems": {}}', "is not the results of a run"),
        ('{"systems": {"random": {}}, "comparisons": [{}]}', "is not the results of a run"),
        ("{", "is not valid JSON"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=told):
        read_runs([tmp_path])
