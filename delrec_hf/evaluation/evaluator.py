"""Scores of several systems over the same users' candidates, and what they amount to."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from delrec_hf.errors import InputError
from delrec_hf.evaluation.metrics import (
    EXPECTED_HR,
    TIE_RULE,
    expected_hr_at_1,
    per_user_metrics,
)
from delrec_hf.evaluation.order import order_sensitivity
from delrec_hf.evaluation.slices import slices
from delrec_hf.evaluation.statistics import bootstrap_interval, compare
from delrec_hf.evaluation.systems import SYSTEMS, Outputs, Score, System, check_names
from delrec_hf.logging import get_logger
from delrec_hf.ranking.weighing import Fusion, fit_fusion

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LOG_LOSS = "log_loss"
"""Minus the log-chance of the target among the candidates, in nats; lower is better."""

COMPARED_METRICS = ("hr@1", EXPECTED_HR, "ndcg@10", LOG_LOSS)

_PERMUTED_USERS = 200

logger = get_logger(__name__)


@dataclass
class EvaluateConfig:
    """What is measured and how; the recipe section `evaluate`."""

    systems: list[str] | None = field(
        default=None,
        metadata={
            "help": "which systems to rank with; default: all whose stages are finished; on "
            "request zero-shot/sum, /mean and /calibrated"
        },
    )
    max_users: int | None = field(
        default=None, metadata={"help": "measure on so many test users; default: all"}
    )
    fit_users: int = field(
        default=1000,
        metadata={
            "help": "fit weights, for the log-loss and the fusions, on so many validation users; "
            "0: do without"
        },
    )
    retrieve: int = field(
        default=0,
        metadata={
            "help": "rerank the teacher's so many best items of the whole catalogue as well; 0: do "
            "not; language models read them all in one prompt"
        },
    )
    whole_catalogue: int = field(
        default=0,
        metadata={
            "help": "rank all items of the catalogue for so many test users as well; 0: do not; "
            "language models need `instructions.candidates: unlisted`"
        },
    )
    scoring: Literal["sum", "mean", "calibrated"] = field(
        default="sum",
        metadata={
            "help": "a title's score, in both stages and the report: sum or mean of its tokens' "
            "log-probabilities, or the sum less a weight times that without a history"
        },
    )
    permutations: int = field(
        default=5,
        metadata={
            "help": "list the candidates of 200 users in so many other orders, where prompts list "
            "them, to see how many first choices change"
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
        """Check names and numbers."""
        check_names(self.systems or [])
        for name in ("fit_users", "retrieve", "whole_catalogue", "permutations"):
            if getattr(self, name) < 0:
                raise InputError(f"`evaluate.{name}` is {getattr(self, name)}; expected 0 or more")


@dataclass
class Scores:
    """Scores of the systems measured so far, and the weights that make chances of them.

    Attributes:
        validation: Examples whose targets the weights are fitted to; none: nothing is fitted.
        examples: The examples that are measured.
        chances: `(users, candidates)` how likely each candidate is the target, where the data's
            rule is known.
        seen: `(users,)` in how many training interactions each target stands, where that is told.
        left_out: `(users, candidates)` candidates that cannot be ranked, if there are any.
        by_system: System name to `(users, candidates)` scores of the examples.
        on_validation: The same of the validation examples, but for fusions.
        weights: System name to what makes chances of its scores, or of its parts' scores.
        seconds: System name to wall time of scoring the examples.
        order_sensitivity: System name to the share of first choices that another order changes.
    """

    validation: Dataset
    examples: Dataset
    chances: FloatArray | None = None
    seen: IntArray | None = None
    left_out: npt.NDArray[np.bool_] | None = None
    by_system: dict[str, FloatArray] = field(default_factory=dict)
    on_validation: dict[str, FloatArray] = field(default_factory=dict)
    weights: dict[str, Fusion] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    order_sensitivity: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, score: Score) -> None:
        """Score with a system and keep what it says; fitting is not timed."""
        start = time.perf_counter()
        found = _all_scores(score, self.examples)
        self.by_system[name] = (
            found if self.left_out is None else np.where(self.left_out, -np.inf, found)
        )
        self.seconds[name] = round(time.perf_counter() - start, 1)
        if len(self.validation):
            self.on_validation[name] = score(self.validation)
            self._fit(name, (name,))

    def fuse(self, name: str, parts: Sequence[str]) -> None:
        """Rank with a fusion of systems that were added before."""
        if not len(self.validation):
            logger.info("evaluate: without %s, which needs validation users", name)
            return
        self._fit(name, parts)
        self.by_system[name] = self.weights[name].log_chances(self.by_system)

    def per_user(self, system: str) -> dict[str, FloatArray]:
        """Return every metric of every example, `(users,)` each."""
        places = target_places(self.examples)
        found = per_user_metrics(self.by_system[system], places)
        if self.chances is not None:
            found[EXPECTED_HR] = expected_hr_at_1(self.by_system[system], self.chances)
        if system in self.weights:
            chances = self.weights[system].log_chances(self.by_system)
            found[LOG_LOSS] = -chances[np.arange(len(places)), places]
        return found

    def _fit(self, name: str, parts: Sequence[str]) -> None:
        scores = {part: self.on_validation[part] for part in parts}
        self.weights[name] = fit_fusion(scores, target_places(self.validation))


def measure(
    system: System, outputs: Outputs, regimes: Sequence[Scores], permutations: int = 0
) -> None:
    """Rank with a system, loaded once, in every regime; loading is not timed.

    Args:
        system: The system.
        outputs: What it ranks with.
        regimes: What is ranked; of the first the order of the candidates is tried.
        permutations: In how many other orders, if it reads prompts.
    """
    logger.info("evaluate: ranking with %s", system.name)
    if system.load is None:
        for scores in regimes:
            scores.fuse(system.name, system.parts)
        return
    score = system.load(outputs)
    for scores in regimes:
        scores.add(system.name, score)
    if permutations and system.reads_prompts:
        some = regimes[0].examples.select(range(min(_PERMUTED_USERS, len(regimes[0].examples))))
        found = order_sensitivity(score, some, permutations, outputs.seed)
        regimes[0].order_sensitivity[system.name] = found


def _all_scores(score: Score, examples: Dataset) -> FloatArray:
    return score(examples) if len(examples) else np.empty((0, 1))


def target_places(examples: Dataset) -> IntArray:
    """Return each target's place among its candidates, `(examples,)`."""
    offered, targets = examples["candidates"][:], examples["target"][:]
    places = [row.index(target) for row, target in zip(offered, targets, strict=True)]
    return np.array(places, dtype=np.int64)


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
