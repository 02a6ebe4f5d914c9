"""What the systems' scores amount to: the content of results.json."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from delrec_hf.evaluation.claims import LEVEL, claim
from delrec_hf.evaluation.evaluator import EvaluateConfig, Scores
from delrec_hf.evaluation.metrics import EXPECTED_HR, LOG_LOSS, TIE_RULE
from delrec_hf.evaluation.slices import slices
from delrec_hf.evaluation.statistics import estimate, holm
from delrec_hf.evaluation.systems import SYSTEMS
from delrec_hf.logging import get_logger
from delrec_hf.ranking.weighing import Fusion

FloatArray = npt.NDArray[np.float64]

COMPARED_METRICS = ("hr@1", EXPECTED_HR, "ndcg@10", LOG_LOSS)

OVER_USERS = {"intervals": "users", "correction": "holm, over the comparisons by one metric"}
"""What one training's intervals hold, and how p-values are corrected."""

logger = get_logger(__name__)


def summarise(
    scores: Scores, protocol: Mapping[str, Any], teacher_name: str, config: EvaluateConfig
) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        scores: What each system gave to each candidate.
        protocol: Facts about dataset, split and prompts.
        teacher_name: What the report calls the teacher, as in `teacher/sasrec`.
        config: How titles are scored.
    """
    _name_the_silent(scores)
    per_user = scores.measured()
    names = {system: teacher_name if system == "teacher" else system for system in per_user}
    systems = {
        names[system]: {
            **means(values),
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
            "num_candidates": len(scores.examples[0]["candidates"]),
            "users": len(scores.examples),
            "fit_users": len(scores.validation),
            "tie_rule": TIE_RULE,
            "scoring": config.scoring,
            **OVER_USERS,
        },
        "systems": systems,
        "comparisons": comparisons(per_user, names),
        **({"slices": slices(per_user, scores.facts, names)} if scores.facts else {}),
    }


def agreement(agreed: Mapping[str, FloatArray]) -> dict[str, dict[str, Any]]:
    """Return how often each model chooses what the teacher ranks first.

    Args:
        agreed: Model name to `(users,)` whether it does, 1 or 0, or `(seeds, users)`.
    """
    return {
        name: {
            "agreement": float(values.mean()),
            **({"ci95": _bounds(values, "agreement")} if values.shape[-1] > 1 else {}),
            "users": values.shape[-1],
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


def means(values: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Return each metric's mean and its interval, as results.json holds them.

    Args:
        values: Metric to `(users,)` values, or `(seeds, users)`. One user has no interval.
    """
    found: dict[str, Any] = {metric: float(one.mean()) for metric, one in values.items()}
    found["ci95"] = {
        metric: _bounds(one, metric) for metric, one in values.items() if one.shape[-1] > 1
    }
    return found


def _bounds(values: FloatArray, metric: str) -> list[float]:
    """Return the interval of a mean, cut to what the metric can be.

    That of U users who all have 0 or all 1 is the binomial one (Clopper and Pearson, 1934): no hit
    among a few users does not mean that there is none.
    """
    low, high = estimate(values).interval()
    if metric == LOG_LOSS:
        return [max(low, 0.0), high]
    reach = 0.025 ** (1 / values.shape[-1])
    if (values == values.flat[0]).all() and values.flat[0] in (0, 1):
        return [0.0, 1 - reach] if not values.flat[0] else [reach, 1.0]
    return [max(low, 0.0), min(high, 1.0)]


def weights(fusion: Fusion | None) -> dict[str, Any]:
    """Return a system's weights as results.json holds them, if there are any."""
    return {} if fusion is None else {"weights": fusion.to_dict()}


def comparisons(
    per_user: Mapping[str, Mapping[str, FloatArray]], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the paired comparisons of the systems that were measured.

    `p_holm` is corrected for all pairs that are compared by the same metric, and `detectable` is
    the least difference that is shown in 80 of 100 such studies in spite of the correction.

    Args:
        per_user: System name to metric to `(users,)` values, or `(seeds, users)`.
        names: System name to what the report calls it.
    """
    paired = {
        (a, b, metric): estimate(per_user[a][metric] - per_user[b][metric])
        for a, b in ((one.name, other) for one in SYSTEMS for other in one.against)
        if a in per_user and b in per_user
        for metric in COMPARED_METRICS
        if metric in per_user[a] and metric in per_user[b] and per_user[a][metric].shape[-1] > 1
    }
    corrected: dict[tuple[str, str, str], float] = {}
    family: dict[str, int] = {}
    for metric in COMPARED_METRICS:
        keys = [key for key in paired if key[2] == metric]
        family[metric] = len(keys)
        corrected |= dict(zip(keys, holm([paired[key].p for key in keys]), strict=True))
    found = [
        {
            "a": names[a],
            "b": names[b],
            "metric": metric,
            "difference": one.mean,
            "ci95": list(one.interval()),
            "p": one.p,
            "p_holm": corrected[a, b, metric],
            "detectable": one.detectable(level=LEVEL / family[metric]),
            "seeds": one.seeds,
            "users": one.users,
        }
        for (a, b, metric), one in paired.items()
    ]
    return [{**one, "claim": claim(one)} for one in found]
