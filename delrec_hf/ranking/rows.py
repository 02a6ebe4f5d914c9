"""Ranking rows scored by a model, shared out over the processes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel

from delrec_hf.logging import progress
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking import budget
from delrec_hf.ranking.batches import make_batches
from delrec_hf.ranking.kept import KeptScores, row_key
from delrec_hf.ranking.prefix import Prefix
from delrec_hf.ranking.scoring import SUM, CandidateScorer, Scoring, check_finite
from delrec_hf.shards import in_shards

FloatArray = npt.NDArray[np.float64]


def score_rows(
    scorer: CandidateScorer,
    rows: Dataset,
    accelerator: Any,
    *,
    keep_in: Path | None = None,
    disable_tqdm: bool = False,
) -> list[FloatArray]:
    """Score the candidates of ranking rows, shared out over the processes.

    Batches are made as for one process and dealt out whole, so the scores do not depend on the
    number of processes.

    Args:
        scorer: Scores candidates.
        rows: With `prompt_ids` and `candidate_ids`.
        accelerator: What knows the processes.
        keep_in: The model's folder (`folder_of`), which keeps what it says of each row; rows that
            it holds already are not read again. Without it nothing is kept.
        disable_tqdm: Show no progress bar.

    Returns:
        `(candidates,)` scores per row, on every process.

    Raises:
        InputError: If a score is not finite: nothing can be ranked by it.
    """
    prompts: Sequence[list[int]] = rows["prompt_ids"][:]
    candidates: Sequence[list[list[int]]] = rows["candidate_ids"][:]
    kept = None if keep_in is None else KeptScores.open(keep_in, accelerator)
    keys = [row_key(*row) for row in zip(prompts, candidates, strict=True)]
    known = {} if kept is None else kept.of(keys, candidates)
    with torch.inference_mode():
        at_once = budget.tokens(scorer.backbone)
    batches = make_batches(prompts, candidates, scorer.virtual_tokens, at_once)
    batches = [[row for row in batch if keys[row] not in known] for batch in batches]
    left = [batch for batch in batches if batch]
    own = left[accelerator.process_index :: accelerator.num_processes]
    plain = replace(scorer, scoring=SUM)
    if in_shards(scorer.backbone):  # all make as many forwards: some read a batch a second time
        own += left[-1:] * (-(-len(left) // accelerator.num_processes) - len(own))
    elif own:
        plain = plain.with_prefix(prompts)  # of all, so that each process reads the same one
    found: dict[str, FloatArray] = {}
    for batch in progress(own, desc="Scoring", disable_tqdm=disable_tqdm):
        totals = plain.score_batch([prompts[r] for r in batch], [candidates[r] for r in batch])
        new = dict(zip([keys[row] for row in batch], totals, strict=True))
        if kept is not None:
            kept.add(new)
        found |= new
    everything = {**known, **dict(gather_object(list(found.items())))}
    scores = [
        scorer.scoring.of(torch.from_numpy(everything[key]), offered).numpy()
        for key, offered in zip(keys, candidates, strict=True)
    ]
    check_finite(scores)  # once gathered: all processes end, or none does
    return scores


def scorer_of(model: PeftModel, scoring: Scoring = SUM) -> CandidateScorer:
    """Return the scorer of a model with a soft prompt, LoRA, or both."""
    backbone = model.get_base_model()
    if not isinstance(model, DelRecModel):
        return CandidateScorer(backbone, None, scoring)
    if model.is_cartridge:
        cartridge = Prefix([], len(model.soft_prompt), model.keys_and_values())
        return CandidateScorer(backbone, None, scoring, cartridge=cartridge)
    return CandidateScorer(backbone, model.soft_prompt, scoring)
