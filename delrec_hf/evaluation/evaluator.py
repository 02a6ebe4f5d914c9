"""Scores of several systems over the same users' candidates, and what they amount to."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from delrec_hf.errors import InputError, suggest
from delrec_hf.evaluation.metrics import METRICS, TIE_RULE, per_user_metrics
from delrec_hf.evaluation.statistics import bootstrap_interval, compare
from delrec_hf.logging import get_logger

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SYSTEMS = (
    "random",
    "popularity",
    "markov",
    "co-occurrence",
    "teacher",
    "zero-shot",
    "prompt-only",
    "lora-only",
    "delrec",
)
COMPARED_WITH = (
    "teacher",
    "lora-only",
    "prompt-only",
    "zero-shot",
    "co-occurrence",
    "markov",
    "popularity",
)
"""What `delrec` is compared with, user by user."""
COMPARED_METRICS = ("hr@1", "ndcg@10")

logger = get_logger(__name__)


@dataclass
class EvaluateConfig:
    """What is measured and how; the recipe section `evaluate`."""

    systems: list[str] = field(
        default_factory=lambda: list(SYSTEMS), metadata={"help": "which systems to rank with"}
    )
    max_users: int | None = field(
        default=None, metadata={"help": "measure on so many test users; default: all"}
    )
    scoring: Literal["sum", "mean"] = field(
        default="sum",
        metadata={"help": "a title's score: sum or mean of its tokens' log-probabilities"},
    )
    bootstrap_samples: int = field(
        default=2000, metadata={"help": "samples of users behind each interval"}
    )
    seed: int = field(default=0, metadata={"help": "decides the users and the bootstrap"})

    def __post_init__(self) -> None:
        """Check the names."""
        for name in self.systems:
            if name not in SYSTEMS:
                raise InputError(
                    f"`evaluate.systems` names `{name}`; expected names out of "
                    f"{', '.join(SYSTEMS)}{suggest(name, SYSTEMS)}"
                )


@dataclass
class Scores:
    """Scores of the systems measured so far.

    Attributes:
        target_places: `(users,)` the target's place among each user's candidates.
        by_system: System name to `(users, candidates)` scores.
        seconds: System name to wall time of scoring.
    """

    target_places: IntArray
    by_system: dict[str, FloatArray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, system: str) -> Iterator[dict[str, FloatArray]]:
        """Time a block that puts the scores of `system` into the yielded dictionary."""
        logger.info("evaluate: ranking with %s", system)
        start = time.perf_counter()
        yield self.by_system
        self.seconds[system] = round(time.perf_counter() - start, 1)


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
    per_user = {
        system: per_user_metrics(found, scores.target_places)
        for system, found in scores.by_system.items()
    }
    names = {system: teacher_name if system == "teacher" else system for system in per_user}
    systems = {
        names[system]: {
            **{metric: float(values[metric].mean()) for metric in METRICS},
            "ci95": {
                metric: list(
                    bootstrap_interval(
                        values[metric], samples=config.bootstrap_samples, seed=config.seed
                    )
                )
                for metric in METRICS
            },
            "seconds": scores.seconds[system],
        }
        for system, values in per_user.items()
    }
    return {
        "protocol": {
            **protocol,
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


def _comparisons(
    per_user: Mapping[str, Mapping[str, FloatArray]],
    names: Mapping[str, str],
    config: EvaluateConfig,
) -> list[dict[str, Any]]:
    if "delrec" not in per_user:
        return []
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
        for other in COMPARED_WITH
        if other in per_user
        for metric in COMPARED_METRICS
    ]


def _plain(comparison: dict[str, Any]) -> dict[str, Any]:
    return {**comparison, "ci95": list(comparison["ci95"])}
