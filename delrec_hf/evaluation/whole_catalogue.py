"""The whole-catalogue regime: every item that a user has not seen, ranked without candidates."""

from typing import Any

import numpy as np
from datasets import Dataset

from delrec_hf.data.candidates import with_candidates
from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.evaluation.described import Describer
from delrec_hf.evaluation.evaluator import Scores
from delrec_hf.evaluation.results import comparisons, means
from delrec_hf.evaluation.systems import System
from delrec_hf.teachers.histories import Histories, column


def whole_catalogue(prepared: PreparedData, examples: Dataset) -> Scores:
    """Return a regime whose candidates are all items; what a user has seen cannot be ranked.

    Args:
        prepared: The data.
        examples: Rows of one of the parts.
    """
    targets = column(examples, "target").astype(np.int64)
    before = Histories.of(prepared).before(
        examples["user_id"][:], column(examples, "position").astype(np.int64)
    )
    left_out = np.zeros((len(examples), len(prepared.items)), dtype=bool)
    for row, seen in enumerate(before):
        left_out[row, seen] = True
    left_out[np.arange(len(targets)), targets] = False  # who comes back to an item seeks it again
    everything = np.tile(np.arange(len(prepared.items), dtype=np.int32), (len(examples), 1))
    return Scores(examples.select([]), with_candidates(examples, everything), left_out=left_out)


def check_unlisted(systems: list[System], *, listed: bool) -> None:
    """Refuse language models whose prompts would have to list the whole catalogue.

    Raises:
        InputError: If there is one.
    """
    for system in systems:
        if listed and set(system.needs) - {"teach"}:
            raise InputError(
                f"`evaluate.whole_catalogue` ranks all items, but prompts of `{system.name}` list "
                "their candidates; set `instructions.candidates: unlisted`, name systems without a "
                "language model in `evaluate.systems`, or set it to 0"
            )


def summarise_whole_catalogue(
    scores: Scores, teacher_name: str, describer: Describer
) -> dict[str, Any]:
    """Return the block `whole_catalogue` of results.json.

    Args:
        scores: What each system gave to every item.
        teacher_name: What the report calls the teacher.
        describer: Says what the top lists are like.
    """
    per_user = scores.measured()
    names = {system: teacher_name if system == "teacher" else system for system in per_user}
    assert scores.left_out is not None  # `whole_catalogue` sets it
    return {
        "protocol": {"num_candidates": scores.left_out.shape[1], "users": len(scores.examples)},
        "systems": {names[system]: means(values) for system, values in per_user.items()},
        "comparisons": comparisons(per_user, names),
        "lists": describer.facts(scores, names),
    }
