"""What the systems' scores amount to: the content of results.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from delrec_hf.evaluation.evaluator import LOG_LOSS, EvaluateConfig, Scores
from delrec_hf.evaluation.metrics import EXPECTED_HR, TIE_RULE
from delrec_hf.evaluation.slices import slices
from delrec_hf.evaluation.statistics import bootstrap_interval, compare
from delrec_hf.evaluation.systems import SYSTEMS
from delrec_hf.logging import get_logger
from delrec_hf.ranking.weighing import Fusion

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COMPARED_METRICS = ("hr@1", EXPECTED_HR, "ndcg@10", LOG_LOSS)

logger = get_logger(__name__)


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
    _name_the_silent(scores)
    per_user = {system: scores.per_user(system) for system in scores.by_system}
    names = {system: teacher_name if system == "teacher" else system for system in per_user}
    systems = {
        names[system]: {
            **means(values, config),
            **weights(scores.weights.get(system)),
            **({"seconds": scores.seconds[system]} if system in scores.seconds else {}),
            **_order(scores, system),
        }
        for system, values in per_user.items()
    }
    limit = None if scores.chances is None else float(scores.chances.max(axis=1).mean())
    return {
        "protocol": {
            **protocol,
            **({} if limit is None else {"best_hr_at_1": limit}),
            "users": len(scores.examples),
            "fit_users": len(scores.validation),
            "tie_rule": TIE_RULE,
            "scoring": config.scoring,
            "bootstrap": {"samples": config.bootstrap_samples, "seed": config.seed},
        },
        "systems": systems,
        "comparisons": comparisons(per_user, names, config),
        **({} if scores.seen is None else {"slices": slices(per_user, scores.seen, names)}),
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


def _name_the_silent(scores: Scores) -> None:
    for name, fusion in scores.weights.items():
        if [part.weight for part in fusion.parts.values()] == [0]:
            candidates = scores.by_system[name].shape[1]
            logger.info(
                "evaluate: %s says nothing about the targets of validation users: weight 0, "
                "log-loss log(%d) = %.3f",
                name,
                candidates,
                math.log(candidates),
            )


def _order(scores: Scores, system: str) -> dict[str, float]:
    found = scores.order_sensitivity.get(system)
    return {} if found is None else {"order_sensitivity": found}


def means(values: Mapping[str, FloatArray], config: EvaluateConfig) -> dict[str, Any]:
    """Return each metric's mean over users, and the intervals, as results.json holds them."""
    found: dict[str, Any] = {metric: float(values[metric].mean()) for metric in values}
    found["ci95"] = {
        metric: list(bootstrap_interval(one, samples=config.bootstrap_samples, seed=config.seed))
        for metric, one in values.items()
    }
    return found


def weights(fusion: Fusion | None) -> dict[str, Any]:
    """Return a system's weights as results.json holds them, if there are any."""
    return {} if fusion is None else {"weights": fusion.to_dict()}


def comparisons(
    per_user: Mapping[str, Mapping[str, FloatArray]],
    names: Mapping[str, str],
    config: EvaluateConfig,
) -> list[dict[str, Any]]:
    """Return the paired comparisons of the systems that were measured.

    Args:
        per_user: System name to metric to `(users,)` values.
        names: System name to what the report calls it.
        config: Bootstrap settings.
    """
    pairs = [(one.name, other) for one in SYSTEMS for other in one.against]
    return [
        {
            "a": names[a],
            "b": names[b],
            "metric": metric,
            **_plain(
                asdict(
                    compare(
                        per_user[a][metric],
                        per_user[b][metric],
                        samples=config.bootstrap_samples,
                        seed=config.seed,
                    )
                )
            ),
        }
        for a, b in pairs
        if a in per_user and b in per_user
        for metric in COMPARED_METRICS
        if metric in per_user[a] and metric in per_user[b]
    ]


def _plain(comparison: dict[str, Any]) -> dict[str, Any]:
    return {**comparison, "ci95": list(comparison["ci95"])}
