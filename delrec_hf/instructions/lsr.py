"""LSR rows: LLM-based Sequential Recommendation asks for the true next item."""

from collections.abc import Sequence

from datasets import Dataset

from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.mapping import Batch, batch_rows, map_examples, titles_of
from delrec_hf.instructions.templates import Domain, lsr_messages


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
    return map_examples(
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
        named = (None if ids is None else titles_of(ids, titles) for ids in (listing, best))
        chats.append(lsr_messages(domain, titles_of(history, titles), *named, turns=turns))
    return batch_rows("lsr", batch, chats, offered, batch["target"], item_ids, titles)
