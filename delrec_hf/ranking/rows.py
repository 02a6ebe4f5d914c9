"""Ranking rows scored by a model, shared out over the processes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel

from delrec_hf.logging import progress
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.scoring import SUM, CandidateScorer, Scoring, check_finite, make_batches

FloatArray = npt.NDArray[np.float64]


def score_rows(
    scorer: CandidateScorer, rows: Dataset, accelerator: Any, *, disable_tqdm: bool = False
) -> list[FloatArray]:
    """Score the candidates of ranking rows, shared out over the processes.

    Batches are made as for one process and dealt out whole, so the scores do not depend on the
    number of processes.

    Args:
        scorer: Scores candidates.
        rows: With `prompt_ids` and `candidate_ids`.
        accelerator: What knows the processes.
        disable_tqdm: Show no progress bar.

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
        for batch in progress(own, desc="Scoring", disable_tqdm=disable_tqdm)
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


def scorer_of(model: PeftModel, scoring: Scoring = SUM) -> CandidateScorer:
    """Return the scorer of a model with a soft prompt, LoRA, or both."""
    soft_prompt = model.soft_prompt if isinstance(model, DelRecModel) else None
    return CandidateScorer(model.get_base_model(), soft_prompt, scoring)
