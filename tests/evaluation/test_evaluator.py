"""What results.json holds, from the systems' scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from delrec_hf.errors import InputError
from delrec_hf.evaluation.claims import side
from delrec_hf.evaluation.evaluator import EvaluateConfig, Scores, measure
from delrec_hf.evaluation.results import means, summarise
from delrec_hf.evaluation.systems import SYSTEMS, System, chosen_systems

USERS, CANDIDATES = 300, 6
NAMES = ("random", "popularity", "teacher", "zero-shot", "delrec")
FUSION = System(name="delrec+teacher", parts=("delrec", "teacher"))


def examples(users: int, seed: int) -> Dataset:
    """Examples whose columns `NAMES` hold each system's scores; `delrec` knows most."""
    generator = np.random.default_rng(seed)
    shape = (users, CANDIDATES)
    parts = generator.normal(size=(2, *shape))
    truth = parts[0] + 1.5 * parts[1]
    places = (truth + generator.gumbel(size=shape)).argmax(axis=1)
    candidates = np.tile(np.arange(10, 10 + CANDIDATES), (users, 1))
    found = {
        "random": generator.normal(size=shape),
        "popularity": np.exp(parts[0]),
        "teacher": 4 * parts[0],
        "zero-shot": -parts[1],
        "delrec": parts[1],
    }
    return Dataset.from_dict(
        {
            "user_id": [f"u{number}" for number in range(users)],
            "position": [5] * users,
            "target": candidates[np.arange(users), places],
            "candidates": candidates,
            **found,
        }
    )


def system(name: str) -> System:
    """A system whose scores stand in the examples."""

    def load(_: Any) -> Any:
        return lambda rows: np.array(rows[name][:])

    return System(name=name, load=load)


def measured(validation: Dataset, test: Dataset, **config: Any) -> dict[str, Any]:
    scores = Scores(validation, test)
    for one in (*map(system, NAMES), FUSION):
        measure(one, None, [scores])  # type: ignore[arg-type] - these need no outputs
    return summarise(scores, {"dataset": "drawn"}, "teacher/sasrec", EvaluateConfig(**config))


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return measured(examples(400, 0), examples(USERS, 1))


def test_the_log_loss_is_that_of_the_best_temperature_of_validation_users(
    results: dict[str, Any],
) -> None:
    validation, test = examples(400, 0), examples(USERS, 1)

    def loss(weight: float, rows: Dataset, name: str) -> float:
        places = np.array(rows["target"][:]) - 10
        chances = log_softmax(weight * np.array(rows[name][:]), axis=1)
        return -chances[np.arange(len(rows)), places].mean()

    for name, shown in (("teacher", "teacher/sasrec"), ("delrec", "delrec")):
        weight = minimize_scalar(loss, args=(validation, name)).x
        found = results["systems"][shown]
        assert found["weights"][name]["weight"] == pytest.approx(weight, rel=1e-3)
        assert found["log_loss"] == pytest.approx(loss(weight, test, name), abs=1e-5)
        low, high = found["ci95"]["log_loss"]
        assert low < found["log_loss"] < high
    assert results["protocol"]["fit_users"] == 400


def test_no_hit_among_some_users_is_not_taken_for_none_at_all() -> None:
    found = means({"hr@1": np.zeros(100), "hr@10": np.ones((3, 100)), "ndcg@10": np.ones(1)})
    low, high = stats.binomtest(0, 100).proportion_ci()
    np.testing.assert_allclose(found["ci95"]["hr@1"], [low, high], rtol=1e-9)
    np.testing.assert_allclose(found["ci95"]["hr@10"], [1 - high, 1 - low], rtol=1e-9)
    assert "ndcg@10" not in found["ci95"]  # one user


def test_scores_that_mislead_are_no_better_than_none(
    results: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "delrec_hf"):
        again = measured(examples(400, 0), examples(USERS, 1))
    assert again["systems"]["zero-shot"] == {
        **results["systems"]["zero-shot"],
        "seconds": again["systems"]["zero-shot"]["seconds"],
    }
    assert again["systems"]["zero-shot"]["weights"]["zero-shot"]["weight"] == 0
    assert again["systems"]["zero-shot"]["log_loss"] == pytest.approx(np.log(CANDIDATES))
    assert "zero-shot says nothing about the targets of validation users" in caplog.text
    assert "delrec says nothing" not in caplog.text


def test_counts_say_on_which_scale_they_were_taken(results: dict[str, Any]) -> None:
    part = results["systems"]["popularity"]["weights"]["popularity"]
    assert part["scale"]["kind"] == "log"
    assert part["weight"] == pytest.approx(1.0, abs=0.4)


def test_a_fusion_weighs_its_parts_as_the_truth_does(results: dict[str, Any]) -> None:
    found = results["systems"]["delrec+teacher"]
    truth = {"delrec": 1.5, "teacher": 0.25}
    for name, part in found["weights"].items():
        assert part["ci95"][0] < truth[name] < part["ci95"][1]
    assert list(found["weights"]) == list(truth)
    for part in ("delrec", "teacher/sasrec"):
        assert found["log_loss"] < results["systems"][part]["log_loss"]
        assert found["ndcg@10"] > results["systems"][part]["ndcg@10"]
    assert "seconds" not in found


def test_a_fusion_is_compared_with_its_parts_and_the_other_fusions(
    results: dict[str, Any],
) -> None:
    pairs = {(one["a"], one["b"]) for one in results["comparisons"] if one["metric"] == "log_loss"}
    assert pairs == {
        *(("delrec", other) for other in ("zero-shot", "teacher/sasrec", "popularity")),
        ("delrec+teacher", "delrec"),
        ("delrec+teacher", "teacher/sasrec"),
    }
    by_name = {one.name: one for one in SYSTEMS}
    assert by_name["delrec+teacher"].against == (
        "delrec",
        "teacher",
        "lora-only+teacher",
        "co-occurrence+teacher",
    )
    for one in results["comparisons"]:
        means = [results["systems"][one[side]][one["metric"]] for side in "ab"]
        assert one["difference"] == pytest.approx(means[0] - means[1])
        if one["a"] == "delrec+teacher":
            assert one["p"] <= one["p_holm"] < 0.05
            assert one["claim"].startswith(f"delrec+teacher is {side(one)} {one['b']} on ")
            assert one["claim"].endswith(
                "; over users of this one training; training noise is not in it)"
            )
            assert (one["difference"] < 0) == (one["metric"] == "log_loss")


def test_a_fusion_stands_where_its_parts_do(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    found = chosen_systems(None, frozenset({"teach"}), tmp_path)
    assert [one.name for one in found][-2:] == ["teacher", "co-occurrence+teacher"]
    wanted = ["teacher", "co-occurrence+teacher"]
    with pytest.raises(InputError, match="needs the system `co-occurrence` as its part; name that"):
        chosen_systems(wanted, frozenset({"teach"}), tmp_path)
    wanted.append("co-occurrence")
    assert len(chosen_systems(wanted, frozenset({"teach"}), tmp_path)) == 3


def test_without_validation_users_there_is_no_log_loss() -> None:
    test = examples(USERS, 1)
    found = measured(test.select([]), test)
    assert all("log_loss" not in one and "weights" not in one for one in found["systems"].values())
    assert found["systems"]["delrec"]["hr@1"] > 0.3
    assert "delrec+teacher" not in found["systems"]
    assert {one["metric"] for one in found["comparisons"]} == {"hr@1", "ndcg@10"}


@pytest.mark.parametrize("name", ["fit_users", "retrieve", "whole_catalogue"])
def test_fewer_than_none_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"evaluate.{name}` is -1; expected 0 or more"):
        EvaluateConfig(**{name: -1})
