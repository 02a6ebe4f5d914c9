"""Instruction rows ranked by a model: their candidates as token ids, scores, first choices."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel

from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.scoring import CandidateScorer, check_finite, make_batches

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def ranking_rows(rows: Dataset, encoder: ChatEncoder, titles: dict[str, str]) -> Dataset:
    """Encode instruction rows for ranking.

    Args:
        rows: Instruction rows.
        encoder: Writes prompts and answers as token ids.
        titles: Item id to the title that stands in prompts.

    Returns:
        `prompt_ids`, `candidate_ids` (each candidate's title and end of turn) and `target_place`,
        the target's place among the candidates.
    """
    ids = list(titles)
    answers = dict(zip(ids, encoder.encode_answers([titles[one] for one in ids]), strict=True))
    candidates = rows["candidates"][:]
    targets = rows["target"][:]
    return Dataset.from_dict(
        {
            "prompt_ids": encoder.encode_prompts(rows["prompt"][:]),
            "candidate_ids": [[answers[one] for one in offered] for offered in candidates],
            "target_place": [
                offered.index(target) for offered, target in zip(candidates, targets, strict=True)
            ],
        }
    )


def score_rows(scorer: CandidateScorer, rows: Dataset, accelerator: Any) -> list[FloatArray]:
    """Score the candidates of ranking rows, shared out over the processes.

    Batches are made as for one process and dealt out whole, so the scores do not depend on the
    number of processes.

    Returns:
        `(candidates,)` scores per row, on every process.

    Raises:
        InputError: If a score is not finite: nothing can be ranked by it.
    """
    prompts: Sequence[list[int]] = rows["prompt_ids"][:]
    candidates: Sequence[list[list[int]]] = rows["candidate_ids"][:]
    batches = make_batches(prompts, candidates, scorer.virtual_tokens)
    own = batches[accelerator.process_index :: accelerator.num_processes]
    found = [
        (row, scores)
        for batch in own
        for row, scores in zip(
            batch,
            scorer.score_batch([prompts[r] for r in batch], [candidates[r] for r in batch]),
            strict=True,
        )
    ]
    everything = dict(gather_object(found))
    scores = [everything[row] for row in range(len(prompts))]
    check_finite(scores)  # once gathered: all processes end, or none does
    return scores


def scorer_of(model: PeftModel, scoring: Literal["sum", "mean"] = "sum") -> CandidateScorer:
    """Return the scorer of a model with a soft prompt, LoRA, or both."""
    soft_prompt = model.soft_prompt if isinstance(model, DelRecModel) else None
    return CandidateScorer(model.get_base_model(), soft_prompt, scoring)


def first_choices(
    model: PeftModel, rows: Dataset, accelerator: Any, scoring: Literal["sum", "mean"]
) -> IntArray:
    """Return the place of each row's highest-scored candidate, `(rows,)`; dropout stays off.

    Raises:
        InputError: If a score is not finite.
    """
    was_training = model.training
    model.eval()
    scores = score_rows(scorer_of(model, scoring), rows, accelerator)
    model.train(was_training)
    return np.array([int(row.argmax()) for row in scores])
