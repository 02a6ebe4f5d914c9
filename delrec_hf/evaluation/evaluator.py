"""Scores of several systems over the same users' candidates, and what they amount to."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from delrec_hf.evaluation.metrics import (
    EXPECTED_HR,
    TIE_RULE,
    expected_hr_at_1,
    per_user_metrics,
)
from delrec_hf.evaluation.statistics import bootstrap_interval, compare
from delrec_hf.evaluation.systems import SYSTEMS, Outputs, System, check_names
from delrec_hf.logging import get_logger

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COMPARED_METRICS = ("hr@1", EXPECTED_HR, "ndcg@10")

logger = get_logger(__name__)


@dataclass
class EvaluateConfig:
    """What is measured and how; the recipe section `evaluate`."""

    systems: list[str] | None = field(
        default=None,
        metadata={"help": "which systems to rank with; default: all whose stages are finished"},
    )
    max_users: int | None = field(
        default=None, metadata={"help": "measure on so many test users; default: all"}
    )
    scoring: Literal["sum", "mean", "calibrated"] = field(
        default="sum",
        metadata={
            "help": "a title's score, in both stages and the report: sum or mean of its tokens' "
            "log-probabilities, or the sum less a weight times that without a history"
        },
    )
    candidates_seed: int | None = field(
        default=None,
        metadata={"help": "draw other candidates for the test users; default: those of data.seed"},
    )
    bootstrap_samples: int = field(
        default=2000, metadata={"help": "samples of users behind each interval"}
    )
    seed: int = field(default=0, metadata={"help": "decides the users and the bootstrap"})

    def __post_init__(self) -> None:
        """Check the names."""
        check_names(self.systems or [])


@dataclass
class Scores:
    """Scores of the systems measured so far.

    Attributes:
        target_places: `(users,)` the target's place among each user's candidates.
        chances: `(users, candidates)` how likely each candidate is the target, where the data's
            rule is known.
        by_system: System name to `(users, candidates)` scores.
        seconds: System name to wall time of scoring.
    """

    target_places: IntArray
    chances: FloatArray | None = None
    by_system: dict[str, FloatArray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def measure(self, system: System, outputs: Outputs, examples: Dataset) -> None:
        """Rank with a system and keep its scores; loading is not timed."""
        logger.info("evaluate: ranking with %s", system.name)
        score = system.load(outputs)
        start = time.perf_counter()
        self.by_system[system.name] = score(examples)
        self.seconds[system.name] = round(time.perf_counter() - start, 1)


def summarise(
    scores: Scores, protocol: Mapping[str, Any], teacher_name: str, config: EvaluateConfig
) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        scores: What each system gave to each candidate.
        protocol: Facts about dataset, split and prompts.
        teacher_name: What the report calls the teacher, as in `teacher/sasrec`.
        config: Bootstrap settings.
    """
    per_user = {system: _per_user(found, scores) for system, found in scores.by_system.items()}
    names = {system: teacher_name if system == "teacher" else system for system in per_user}
    systems = {
        names[system]: {
            **{metric: float(values[metric].mean()) for metric in values},
            "ci95": {
                metric: list(
                    bootstrap_interval(
                        values[metric], samples=config.bootstrap_samples, seed=config.seed
                    )
                )
                for metric in values
            },
            "seconds": scores.seconds[system],
        }
        for system, values in per_user.items()
    }
    limit = None if scores.chances is None else float(scores.chances.max(axis=1).mean())
    return {
        "protocol": {
            **protocol,
            **({} if limit is None else {"best_hr_at_1": limit}),
            "users": len(scores.target_places),
            "tie_rule": TIE_RULE,
            "scoring": config.scoring,
            "bootstrap": {"samples": config.bootstrap_samples, "seed": config.seed},
        },
        "systems": systems,
        "comparisons": _comparisons(per_user, names, config),
    }


def agreement(
    choices: Mapping[str, IntArray], teacher_choices: Sequence[int], config: EvaluateConfig
) -> dict[str, dict[str, Any]]:
    """Return how often each model chooses what the teacher ranks first.

    Args:
        choices: Model name to `(users,)` place of the candidate that it scores highest.
        teacher_choices: `(users,)` place of the teacher's first choice.
        config: Bootstrap settings.
    """
    agreed = {
        name: (chosen == np.asarray(teacher_choices)).astype(np.float64)
        for name, chosen in choices.items()
    }
    return {
        name: {
            "agreement": float(values.mean()),
            "ci95": list(
                bootstrap_interval(values, samples=config.bootstrap_samples, seed=config.seed)
            ),
            "users": len(values),
        }
        for name, values in agreed.items()
    }


def _per_user(found: FloatArray, scores: Scores) -> dict[str, FloatArray]:
    """Return one system's metrics, `(users,)` each."""
    values = per_user_metrics(found, scores.target_places)
    if scores.chances is not None:
        values[EXPECTED_HR] = expected_hr_at_1(found, scores.chances)
    return values


def _comparisons(
    per_user: Mapping[str, Mapping[str, FloatArray]],
    names: Mapping[str, str],
    config: EvaluateConfig,
) -> list[dict[str, Any]]:
    if "delrec" not in per_user:
        return []
    others = [one.name for one in reversed(SYSTEMS) if one.compared and one.name in per_user]
    return [
        {
            "a": "delrec",
            "b": names[other],
            "metric": metric,
            **_plain(
                asdict(
                    compare(
                        per_user["delrec"][metric],
                        per_user[other][metric],
                        samples=config.bootstrap_samples,
                        seed=config.seed,
                    )
                )
            ),
        }
        for other in others
        for metric in COMPARED_METRICS
        if metric in per_user[other]
    ]


def _plain(comparison: dict[str, Any]) -> dict[str, Any]:
    return {**comparison, "ci95": list(comparison["ci95"])}
