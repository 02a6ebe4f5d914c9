"""Examples as instruction rows: what TA, RPS and LSR ask, and what they want to hear."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import get_temporary_cache_files_directory, update_fingerprint

from delrec_hf.errors import InputError
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.joined import places_in, with_lists
from delrec_hf.instructions.templates import (
    Domain,
    WorkedExample,
    lsr_messages,
    rps_prompt,
    ta_prompt,
    user_turn,
)
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

Batch = dict[str, list[Any]]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
ROW_FEATURES = Features(
    {
        "prompt": _MESSAGES,
        "completion": _MESSAGES,
        "task": Value("string"),
        "user_id": Value("string"),
        "position": Value("int32"),
        "candidates": List(Value("string")),
        "target": Value("string"),
    }
)
"""TRL's conversational prompt-completion format, and what a row is about."""

_SHOWN_AT_FIRST = 3  # items of the worked example's history


def lsr_rows(
    examples: Dataset,
    items: Dataset,
    titles: Sequence[str],
    domain: Domain,
    config: InstructionsConfig,
    *,
    num_proc: int | None = None,
) -> Dataset:
    """Word LLM-based Sequential Recommendation (paper section IV-C): the true next item.

    Args:
        examples: `user_id, position, history, target, candidates`, items as rows of `items`; also
            `suggested`, the teacher's best items, or `ordered`, the candidates in its order, where
            the prompts show them (`with_suggested`, `with_order`).
        items: The catalogue, with `item_id`.
        titles: The safe title of each row of `items`.
        domain: How the items are spoken about.
        config: What the prompts show.
        num_proc: Processes that share the work.

    Returns:
        A row per example, with `ROW_FEATURES`.
    """
    return _map(
        _lsr,
        examples,
        items,
        titles,
        domain,
        config,
        "LSR instructions",
        num_proc,
        turns=config.turns,
    )


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
    _report(len(examples), len(joined), "RPS", "the teacher predicts nothing for them")
    return _map(
        _rps, joined, items, titles, domain, config, "RPS instructions", num_proc, seed=seed
    )


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
    _report(len(examples), len(kept), "TA", "fewer than three items come before their target")
    places = places_in(kept, sequences, ["user_id"], "the sequences")
    if (places < 0).any():
        user = kept[int(np.flatnonzero(places < 0)[0])]["user_id"]
        raise InputError(
            f"user {user} is in the examples and not in the sequences; expected both from one "
            "prepared dataset; run `delrec prepare` again"
        )
    joined = with_lists(kept, "opening", sequences, places, first=_SHOWN_AT_FIRST + 2)
    return _map(_ta, joined, items, titles, domain, config, "TA instructions", num_proc, seed=seed)


def _has_masked(positions: list[int], histories: list[list[int]]) -> list[bool]:
    pairs = zip(positions, histories, strict=True)
    return [position >= _SHOWN_AT_FIRST and len(history) >= 2 for position, history in pairs]


def _has_choice(predicted: list[list[int]], histories: list[list[int]]) -> list[bool]:
    pairs = zip(predicted, histories, strict=True)
    return [not set(ranked) <= set(history) for ranked, history in pairs]


def _report(given: int, kept: int, task: str, reason: str) -> None:
    if kept < given:
        logger.info("%s: %d of %d examples left out: %s", task, given - kept, given, reason)


def _map(
    function: Callable[..., Batch],
    examples: Dataset,
    items: Dataset,
    titles: Sequence[str],
    domain: Domain,
    config: InstructionsConfig,
    desc: str,
    num_proc: int | None,
    **more: Any,
) -> Dataset:
    if len(titles) != len(items):
        raise InputError(
            f"{len(titles)} titles are given for {len(items)} items; expected one title per item "
            "row; pass the safe titles of this catalogue"
        )
    given = {
        "item_ids": list(items["item_id"]),
        "titles": list(titles),
        "domain": domain,
        "listed": config.listed,
        **more,
    }
    # Beside the prepared data, where `datasets` would keep the rows, nobody would remove them.
    aside = get_temporary_cache_files_directory()
    print_ = update_fingerprint(examples._fingerprint, function, given)
    return examples.map(
        function,
        batched=True,
        fn_kwargs=given,
        remove_columns=examples.column_names,
        features=ROW_FEATURES,
        num_proc=num_proc,
        desc=desc,
        cache_file_name=str(Path(aside, f"{print_}.arrow")),
        new_fingerprint=print_,
    )


def _lsr(
    batch: Batch,
    *,
    item_ids: list[str],
    titles: list[str],
    domain: Domain,
    listed: bool,
    turns: bool,
) -> Batch:
    offered = batch["candidates"]
    chats = []
    for row, history in enumerate(batch["history"]):
        listing = batch.get("ordered", offered)[row] if listed else None
        best = None
        if "suggested" in batch:
            best = [item for item in batch["suggested"][row] or [] if item not in set(history)]
        named = (None if ids is None else _named(ids, titles) for ids in (listing, best))
        chats.append(lsr_messages(domain, _named(history, titles), *named, turns=turns))
    return _rows("lsr", batch, chats, offered, batch["target"], item_ids, titles)


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
        offer = _named(taken, titles) if listed else None
        chats.append([user_turn(rps_prompt(domain, _named(history, titles), offer))])
        offered.append(taken)
        targets.append(ranked[0])
    return _rows("rps", batch, chats, offered, targets, item_ids, titles)


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
            *first, solved, after = _named(opening, titles)
            example = WorkedExample(first, solved, after)
        shown, offer = _named(before, titles), _named(taken, titles) if listed else None
        question = ta_prompt(domain, shown, titles[following], offer, example)
        chats.append([user_turn(question)])
        offered.append(taken)
        targets.append(masked)
    return _rows("ta", batch, chats, offered, targets, item_ids, titles)


def _named(items: Sequence[int], titles: Sequence[str]) -> list[str]:
    return [titles[item] for item in items]


def _rows(
    task: str,
    batch: Batch,
    chats: list[list[dict[str, str]]],
    offered: list[list[int]],
    targets: list[int],
    item_ids: list[str],
    titles: list[str],
) -> Batch:
    return {
        "prompt": chats,
        "completion": [[{"role": "assistant", "content": titles[item]}] for item in targets],
        "task": [task] * len(chats),
        "user_id": batch["user_id"],
        "position": batch["position"],
        "candidates": [[item_ids[item] for item in items] for items in offered],
        "target": [item_ids[item] for item in targets],
    }
