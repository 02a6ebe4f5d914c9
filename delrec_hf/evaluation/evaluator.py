"""The scores of several systems over the same users' candidates, and weights that fit them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from delrec_hf.errors import InputError, suggest
from delrec_hf.evaluation.metrics import EXPECTED_HR, LOG_LOSS, expected_hr_at_1, per_user_metrics
from delrec_hf.evaluation.order import order_sensitivity
from delrec_hf.evaluation.systems import Outputs, Score, System, check_names
from delrec_hf.logging import get_logger
from delrec_hf.ranking.weighing import Fusion, fit_fusion

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DRAWN = ("uniform", "popularity", "teacher")
"""Ways to draw candidates: all items alike, by their training interactions, the teacher's best."""

PERMUTED_USERS = 200
"""How many users' candidates are listed in other orders."""

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
    diversity_column: str | None = field(
        default=None,
        metadata={
            "help": "metadata that the diversity of lists goes by, values parted by |; default: "
            "genres, genre, categories or category, where there is one"
        },
    )
    slice_columns: list[str] | None = field(
        default=None,
        metadata={
            "help": "metadata of the target that users are grouped by as well, values parted by |, "
            "as genres and year; default: none"
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
    candidates: str = field(
        default="uniform",
        metadata={
            "help": "what stands beside the target: `uniform` draws, draws by `popularity`, the "
            "`teacher`'s best (hard negatives); or a .parquet file of published candidates"
        },
    )
    num_candidates: int | None = field(
        default=None,
        metadata={"help": "how many candidates, the target included; default: data.num_candidates"},
    )
    candidates_seed: int | None = field(
        default=None,
        metadata={"help": "draw other candidates for the test users; default: those of data.seed"},
    )
    seed: int = field(default=0, metadata={"help": "decides who is drawn, and random's scores"})

    def __post_init__(self) -> None:
        """Check names and numbers."""
        check_names(self.systems or [])
        for name in ("fit_users", "retrieve", "whole_catalogue", "permutations"):
            if getattr(self, name) < 0:
                raise InputError(f"`evaluate.{name}` is {getattr(self, name)}; expected 0 or more")
        self._check_candidates()

    @property
    def candidates_file(self) -> Path | None:
        """The file that candidates are read from, if they are not drawn."""
        return None if self.candidates in DRAWN else Path(self.candidates).expanduser()

    def _check_candidates(self) -> None:
        if self.num_candidates is not None and self.num_candidates < 2:
            raise InputError(
                f"`evaluate.num_candidates` is {self.num_candidates}; expected 2 or more, the "
                "target among them"
            )
        if self.candidates_file is None:
            return
        if self.candidates_file.suffix != ".parquet":
            raise InputError(
                f"`evaluate.candidates` is `{self.candidates}`; expected {', '.join(DRAWN)} or a "
                f".parquet file of candidates{suggest(self.candidates, DRAWN)}"
            )
        for name in ("num_candidates", "candidates_seed"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"`evaluate.candidates` is a file and `evaluate.{name}` is "
                    f"{getattr(self, name)}; leave the latter out, as the file decides it"
                )


@dataclass
class Scores:
    """Scores of the systems measured so far, and the weights that make chances of them.

    Attributes:
        validation: Examples whose targets the weights are fitted to; none: nothing is fitted.
        examples: The examples that are measured.
        chances: `(users, candidates)` how likely each candidate is the target, where the data's
            rule is known.
        facts: What users are grouped by, to `(users,)` values.
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
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
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

    def measured(self) -> dict[str, dict[str, FloatArray]]:
        """Return every metric of every example by every system, `(users,)` each."""
        return {system: self.per_user(system) for system in self.by_system}

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
        some = regimes[0].examples.select(range(min(PERMUTED_USERS, len(regimes[0].examples))))
        found = order_sensitivity(score, some, permutations, outputs.seed)
        regimes[0].order_sensitivity[system.name] = found


def _all_scores(score: Score, examples: Dataset) -> FloatArray:
    return score(examples) if len(examples) else np.empty((0, 1))


def target_places(examples: Dataset) -> IntArray:
    """Return each target's place among its candidates, `(examples,)`."""
    offered, targets = examples["candidates"][:], examples["target"][:]
    places = [row.index(target) for row, target in zip(offered, targets, strict=True)]
    return np.array(places, dtype=np.int64)
