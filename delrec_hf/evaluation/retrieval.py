"""The retrieved regime: the teacher's best items of the whole catalogue, reranked."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from delrec_hf.data.candidates import with_candidates
from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.evaluation.described import Describer
from delrec_hf.evaluation.evaluator import EvaluateConfig, Scores
from delrec_hf.evaluation.results import comparisons, means, weights
from delrec_hf.teachers.predictions import predict
from delrec_hf.teachers.teacher import Teacher

FloatArray = npt.NDArray[np.float64]

METRICS = ("hr@1", "hr@10", "ndcg@10")
"""What is measured end to end."""


@dataclass(frozen=True)
class Retrieved:
    """Examples whose candidates are what a teacher retrieved, where that holds their target.

    Where it does not, no order helps: these count 0 in every metric and are not scored.

    Attributes:
        examples: Those whose target was retrieved.
        held: `(users,)` whether each user's target was.
    """

    examples: Dataset
    held: npt.NDArray[np.bool_]


def retrieve(
    teacher: Teacher, prepared: PreparedData, examples: Dataset, count: int, seed: int
) -> Retrieved:
    """Retrieve candidates out of the whole catalogue; the target is not put among them.

    A language model whose prompts list the candidates reads all of them in one, however many its
    training showed: with many more it answers prompts of a length that it has not seen.

    Args:
        teacher: What retrieves.
        prepared: The data.
        examples: Rows of one of the parts.
        count: How many unseen items each user gets.
        seed: Decides their order in the prompt, which tells nothing of the teacher's.

    Raises:
        InputError: If the teacher recommends fewer items to somebody.
    """
    found = predict(teacher, prepared, examples, count, disable_tqdm=True)["items"][:]
    fewest = min(map(len, found), default=count)
    if fewest < count:
        raise InputError(
            f"`evaluate.retrieve` is {count}, but the teacher recommends only {fewest} unseen "
            f"items to some users; set it to {fewest} or less"
        )
    items = np.array(found, dtype=np.int32).reshape(len(found), count)
    items = np.random.default_rng(seed).permuted(items, axis=1)
    held = (items == np.array(examples["target"][:], dtype=np.int32)[:, None]).any(axis=1)
    return Retrieved(with_candidates(examples, items).select(np.flatnonzero(held)), held)


def summarise_retrieved(
    scores: Scores,
    held: npt.NDArray[np.bool_],
    teacher_name: str,
    config: EvaluateConfig,
    describer: Describer,
) -> dict[str, Any]:
    """Return the block `retrieved` of results.json.

    Args:
        scores: What each system gave to the candidates of the users whose target was retrieved.
        held: `(users,)` whether each user's target was.
        teacher_name: What the report calls the teacher.
        config: How many were retrieved.
        describer: Says what the top lists of those whose target was retrieved are like.
    """
    per_user = end_to_end(scores, held)
    names = {system: teacher_name if system == "teacher" else system for system in per_user}
    return {
        "protocol": {
            "retriever": teacher_name,
            "num_candidates": config.retrieve,
            "users": len(held),
            "fit_users": len(scores.validation),
        },
        "recall_ceiling": float(held.mean()),
        "systems": {
            names[system]: {**means(values), **weights(scores.weights.get(system))}
            for system, values in per_user.items()
        },
        "comparisons": comparisons(per_user, names),
        "lists": describer.facts(scores, names),
    }


def end_to_end(scores: Scores, held: npt.NDArray[np.bool_]) -> dict[str, dict[str, FloatArray]]:
    """Return each system's metrics of all users, 0 where the target was not retrieved.

    Args:
        scores: What each system gave to the candidates of the users whose target was retrieved.
        held: `(users,)` whether each user's target was.
    """
    found: dict[str, dict[str, FloatArray]] = {}
    for system, measured in scores.measured().items():
        found[system] = {metric: np.zeros(len(held)) for metric in METRICS}
        for metric in METRICS:
            found[system][metric][held] = measured[metric]
    return found
