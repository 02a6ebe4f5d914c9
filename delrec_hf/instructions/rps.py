"""RPS rows: Recommendation Pattern Simulating asks for the teacher's first choice."""

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
from delrec_hf.instructions.templates import Domain, rps_prompt, user_turn


def rps_rows(
    examples: Dataset,
    predictions: Dataset,
    items: Dataset,
    titles: Sequence[str],
    domain: Domain,
    config: InstructionsConfig,
    seed: int,
    *,
    num_proc: int | None = None,
) -> Dataset:
    """Word Recommendation Pattern Simulating (paper section IV-B): the teacher's first choice.

    The candidates are the teacher's top-h, filled up to the example's number of candidates with the
    example's negatives. The true next item is among them only if the teacher put it there.
    Predictions belong to an example by user and position, whatever the order of their rows.

    Args:
        examples: `user_id, position, history, target, candidates`, items as rows of `items`.
        predictions: `user_id, position, items`, the teacher's best first.
        items: The catalogue, with `item_id`.
        titles: The safe title of each row of `items`.
        domain: How the items are spoken about.
        config: What the prompts show.
        seed: Decides the order of the candidates, per user and position.
        num_proc: Processes that share the work.

    Returns:
        A row per example for which the teacher predicts anything, with `ROW_FEATURES`.

    Raises:
        InputError: If an example has two predictions, or none of the examples has one.
    """
    places = places_in(examples, predictions, ["user_id", "position"], "the teacher's predictions")
    there = np.flatnonzero(places >= 0)
    joined = with_lists(examples.select(there), "predicted", predictions, places[there])
    joined = joined.filter(
        _has_choice,
        batched=True,
        input_columns=["predicted", "history"],
        keep_in_memory=True,
        desc="RPS examples",
    )
    if len(examples) and not len(joined):
        raise InputError(
            f"none of the {len(examples)} examples is in the teacher's {len(predictions)} "
            "predictions; expected them by user_id and position; predict for these examples"
        )
    report_left_out(len(examples), len(joined), "RPS", "the teacher predicts nothing for them")
    return map_examples(
        _rps, joined, items, titles, domain, config, "RPS instructions", num_proc, seed=seed
    )


def _has_choice(predicted: list[list[int]], histories: list[list[int]]) -> list[bool]:
    pairs = zip(predicted, histories, strict=True)
    return [not set(ranked) <= set(history) for ranked, history in pairs]


def _rps(
    batch: Batch,
    *,
    item_ids: list[str],
    titles: list[str],
    domain: Domain,
    listed: bool,
    seed: int,
) -> Batch:
    chats, offered, targets = [], [], []
    columns = ("user_id", "position", "history", "target", "candidates", "predicted")
    rows = zip(*(batch[name] for name in columns), strict=True)
    for user, position, history, truth, candidates, predicted in rows:
        generator = random.Random(f"rps/{seed}/{user}/{position}")
        negatives = [item for item in candidates if item != truth]
        shown = set(history)
        ranked = [item for item in predicted if item not in shown][: len(candidates)]
        taken = [*ranked, *(item for item in negatives if item not in ranked)][: len(candidates)]
        if len(taken) < len(candidates):  # every one of the top-h was a negative already
            spare = set(range(len(item_ids))).difference(shown, taken, [truth])
            taken += generator.sample(sorted(spare), min(1, len(spare)))
        generator.shuffle(taken)
        offer = titles_of(taken, titles) if listed else None
        chats.append([user_turn(rps_prompt(domain, titles_of(history, titles), offer))])
        offered.append(taken)
        targets.append(ranked[0])
    return batch_rows("rps", batch, chats, offered, targets, item_ids, titles)
