"""What the untrained backbone's scores are worth, and what titles score without a history."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from transformers import PreTrainedModel

from delrec_hf.errors import InputError
from delrec_hf.files import read_json, write_json
from delrec_hf.logging import get_logger
from delrec_hf.ranking.fusion import fit_conditional_logit
from delrec_hf.ranking.kept import folder_of
from delrec_hf.ranking.rows import score_rows
from delrec_hf.ranking.scoring import CandidateScorer, Scoring, ScoringKind

FloatArray = npt.NDArray[np.float64]
TokenIds = list[int]

_TITLES_AT_ONCE = 64  # of one prompt: a wider tree spends more on attention than it saves
_MOST_WEIGHT = 2.0  # more is no calibration: the fit has found rare titles, not fitting ones

logger = get_logger(__name__)


@dataclass
class CalibrateConfig:
    """How the untrained backbone's scores are weighed; the recipe section `calibrate`."""

    max_users: int | None = field(
        default=400, metadata={"help": "weigh on so many validation users"}
    )
    seed: int = field(default=0, metadata={"help": "decides which users"})


@dataclass(frozen=True)
class Fit:
    """How well one kind of score fits the validation targets of the untrained backbone.

    Attributes:
        temperature: What the scores are divided by to be likeliest.
        weight: How much of the log-probability without a history is taken off.
        log_loss: Mean negative log-chance of the targets among their candidates, in nats.
        hr_at_1: Share of the targets that score highest.
    """

    temperature: float
    weight: float
    log_loss: float
    hr_at_1: float


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` measures of an untrained backbone.

    Attributes:
        log_priors: `(items,)` each title's log-probability where the prompt shows no history.
        fits: Kind of score to how it fits.
    """

    log_priors: FloatArray
    fits: dict[ScoringKind, Fit]

    def save(self, folder: Path) -> None:
        """Write `log_priors.parquet` and `calibration.json`."""
        pq.write_table(pa.table({"log_prior": self.log_priors}), folder / "log_priors.parquet")
        write_json(
            folder / "calibration.json", {kind: asdict(fit) for kind, fit in self.fits.items()}
        )

    @classmethod
    def load(cls, folder: Path) -> "Calibration":
        """Read what `save` wrote.

        Raises:
            InputError: If there is nothing.
        """
        if not (folder / "calibration.json").is_file():
            raise InputError(
                f"{folder} holds no calibration, which temperatures and `scoring: calibrated` are "
                "read from; run `delrec calibrate` first, or `delrec run` for all stages"
            )
        fits: dict[Any, dict[str, float]] = read_json(folder / "calibration.json")
        priors = pq.read_table(folder / "log_priors.parquet")["log_prior"].to_numpy()
        return cls(priors, {kind: Fit(**fit) for kind, fit in fits.items()})

    def scoring(self, kind: ScoringKind, answers: list[TokenIds]) -> Scoring:
        """Return how titles are scored.

        Args:
            kind: `sum`, `mean` or `calibrated`.
            answers: Each item's title as token ids, in the order of `log_priors`.
        """
        keys = map(tuple, answers)
        priors = dict(zip(keys, self.log_priors.tolist(), strict=True))
        return Scoring(kind, self.fits[kind].weight, priors)


def calibrate(
    backbone: PreTrainedModel,
    empty_prompt: TokenIds,
    answers: list[TokenIds],
    rows: Dataset,
    accelerator: Any,
    keep_in: Path | None = None,
) -> Calibration:
    """Measure an untrained backbone, shared out over the processes.

    Args:
        backbone: The language model, in eval mode.
        empty_prompt: A prompt that shows neither history nor candidates.
        answers: Each item's title as token ids.
        rows: Validation rows with `prompt_ids`, `candidate_ids` and `target_place`.
        accelerator: What knows the processes.
        keep_in: The folder that keeps what models say of rows; see `folder_of`.

    Raises:
        InputError: If a score is not finite.
    """
    scorer = CandidateScorer(backbone)
    kept = None if keep_in is None else folder_of(scorer, keep_in)
    parts = [
        answers[start : start + _TITLES_AT_ONCE]
        for start in range(0, len(answers), _TITLES_AT_ONCE)
    ]
    titles = {"prompt_ids": [empty_prompt] * len(parts), "candidate_ids": parts}
    logger.info("calibrate: %d titles without a history", len(answers))
    found = score_rows(scorer, Dataset.from_dict(titles), accelerator, keep_in=kept)
    priors = np.concatenate(found)
    known = dict(zip(map(tuple, answers), priors.tolist(), strict=True))
    logger.info("calibrate: %d validation users", len(rows))
    sums = np.array(score_rows(scorer, rows, accelerator, keep_in=kept))
    offered = rows["candidate_ids"][:]
    lengths = np.array([[len(one) for one in row] for row in offered])
    bare = np.array([[known[tuple(one)] for one in row] for row in offered])
    places = np.array(rows["target_place"][:])
    fits: dict[ScoringKind, Fit] = {
        "sum": _fit(sums, places),
        "mean": _fit(sums / lengths, places),
        "calibrated": _fit_calibrated(sums, bare, places),
    }
    for kind, fit in fits.items():
        logger.info(
            "calibrate: %s: log-loss %.3f, HR@1 %.3f, temperature %.3g, weight %.2f",
            kind,
            fit.log_loss,
            fit.hr_at_1,
            fit.temperature,
            fit.weight,
        )
    return Calibration(priors, fits)


def _fit_calibrated(sums: FloatArray, bare: FloatArray, places: npt.NDArray[np.int64]) -> Fit:
    both = fit_conditional_logit([sums, bare], places).weights
    weight = -both[1] / both[0] if both[0] > 0 else 1.0
    weight = float(np.clip(weight, 0.0, _MOST_WEIGHT))
    return _fit(sums - weight * bare, places, weight)


def _fit(scores: FloatArray, places: npt.NDArray[np.int64], weight: float = 0.0) -> Fit:
    fitted = fit_conditional_logit([scores], places)
    spread = float(scores.std(axis=1).mean())
    scale = float(fitted.weights[0])
    # Where the scores say nothing yet, or the contrary, they start with a spread of one: flatter
    # ones would hardly have a gradient.
    temperature = 1 / scale if scale * spread > 0.1 else spread
    best = scores == scores.max(axis=1, keepdims=True)
    hits = best[np.arange(len(scores)), places] / best.sum(axis=1)
    return Fit(temperature, weight, fitted.log_loss, float(hits.mean()))
