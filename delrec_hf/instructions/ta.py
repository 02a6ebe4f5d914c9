"""TA rows: Temporal Analysis asks for an item of the history that is masked."""

import random
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from delrec_hf.errors import InputError
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.joined import places_in, with_lists
from delrec_hf.instructions.mapping import (
    Batch,
    batch_rows,
    map_examples,
    report_left_out,
    titles_of,
)
from delrec_hf.instructions.templates import Domain, WorkedExample, ta_prompt, user_turn

_SHOWN_AT_FIRST = 3  # items of the worked example's history


def ta_rows(
    examples: Dataset,
    sequences: Dataset,
    items: Dataset,
    titles: Sequence[str],
    domain: Domain,
    config: InstructionsConfig,
    seed: int,
    *,
    num_proc: int | None = None,
) -> Dataset:
    """Word Temporal Analysis (paper section IV-B): the masked item before the last one.

    For an example at position p, the item at p - 1 is masked and the one at p (the example's
    target) is shown after it; the candidates are the example's with the masked item in place of its
    target. Where the user's sequence is long enough, its first five items make a worked example.

    Args:
        examples: `user_id, position, history, target, candidates`, items as rows of `items`.
        sequences: `user_id, items`, oldest first.
        items: The catalogue, with `item_id`.
        titles: The safe title of each row of `items`.
        domain: How the items are spoken about.
        config: What the prompts show.
        seed: Decides the order of the candidates, per user and position.
        num_proc: Processes that share the work.

    Returns:
        A row per example at position 3 or later, with `ROW_FEATURES`.

    Raises:
        InputError: If a user of the examples has no sequence.
    """
    kept = examples.filter(
        _has_masked,
        batched=True,
        input_columns=["position", "history"],
        keep_in_memory=True,
        desc="TA examples",
    )
    report_left_out(
        len(examples), len(kept), "TA", "fewer than three items come before their target"
    )
    places = places_in(kept, sequences, ["user_id"], "the sequences")
    if (places < 0).any():
        user = kept[int(np.flatnonzero(places < 0)[0])]["user_id"]
        raise InputError(
            f"user {user} is in the examples and not in the sequences; expected both from one "
            "prepared dataset; run `delrec prepare` again"
        )
    joined = with_lists(kept, "opening", sequences, places, first=_SHOWN_AT_FIRST + 2)
    return map_examples(
        _ta, joined, items, titles, domain, config, "TA instructions", num_proc, seed=seed
    )


def _has_masked(positions: list[int], histories: list[list[int]]) -> list[bool]:
    pairs = zip(positions, histories, strict=True)
    return [position >= _SHOWN_AT_FIRST and len(history) >= 2 for position, history in pairs]


def _ta(
    batch: Batch,
    *,
    item_ids: list[str],
    titles: list[str],
    domain: Domain,
    listed: bool,
    seed: int,
) -> Batch:
    chats, offered, targets = [], [], []
    columns = ("user_id", "position", "history", "target", "candidates", "opening")
    rows = zip(*(batch[name] for name in columns), strict=True)
    for user, position, history, following, candidates, opening in rows:
        *before, masked = history
        taken = [masked if item == following else item for item in candidates]
        random.Random(f"ta/{seed}/{user}/{position}").shuffle(taken)
        example = None
        if position > _SHOWN_AT_FIRST + 2:
            *first, solved, after = titles_of(opening, titles)
            example = WorkedExample(first, solved, after)
        shown, offer = titles_of(before, titles), titles_of(taken, titles) if listed else None
        question = ta_prompt(domain, shown, titles[following], offer, example)
        chats.append([user_turn(question)])
        offered.append(taken)
        targets.append(masked)
    return batch_rows("ta", batch, chats, offered, targets, item_ids, titles)
