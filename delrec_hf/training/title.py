"""Learning titles token by token, logits made only where an answer's tokens are predicted."""

import torch

from delrec_hf.labels import IGNORED
from delrec_hf.ranking.forward import embed, log_probabilities
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.support import without_plans


def title_loss(scorer: CandidateScorer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    r"""Return the loss of a batch's answers, $-\sum \log p$ over their tokens, differentiable.

    SFTTrainer's own makes logits of every position on a CPU; here an answer's alone are made, and
    not again on the way back.

    Args:
        scorer: What reads the rows, a soft prompt in front of them or none.
        batch: `input_ids`, `attention_mask` and `labels`, `(rows, length)` int64, padded on the
            right; labels are -100 where nothing is learned.

    Returns:
        A float32 scalar.
    """
    labels, ids = batch["labels"].cpu(), batch["input_ids"]
    without_plans(ids.device)
    embeds = embed(scorer.backbone, scorer.soft_prompt, ids)
    seen = batch["attention_mask"]
    virtual = seen.new_ones(len(seen), scorer.virtual_tokens)
    predicted = labels[:, 1:] != IGNORED
    learns = bool(predicted.any())
    if not learns:  # rows that fill a batch up: what trains is reached all the same, by a zero
        predicted[0, 0] = True
    scored = torch.zeros(embeds.shape[:2], dtype=torch.bool)
    scored[:, -labels.shape[1] : -1] = predicted  # behind a soft prompt's embeddings
    tokens = labels[:, 1:][predicted].clamp(min=0)
    inputs = {
        "inputs_embeds": embeds,
        "attention_mask": torch.cat([virtual, seen], dim=1),
        "use_cache": scorer.cartridge is not None,
    }
    if scorer.cartridge is not None:
        inputs["past_key_values"] = scorer.cartridge.cache(len(ids))
    owners = torch.arange(len(tokens))
    found = log_probabilities(scorer.backbone, inputs, scored, owners, tokens)
    return -(found if learns else found * 0.0).sum()
