"""The question for the next item, worded and encoded as training asked it."""

from collections.abc import Sequence

from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.templates import lsr_messages
from delrec_hf.modeling.artefact import ArtefactConfig
from delrec_hf.ranking.fused_teacher import FloatArray, top_unseen


def next_item_prompts(
    config: ArtefactConfig,
    encoder: ChatEncoder,
    titles: Sequence[str],
    seen: Sequence[int],
    groups: Sequence[Sequence[int]],
    advice: FloatArray | None,
) -> list[list[int]]:
    """Return the token ids of a prompt for each group of candidates, up to where the answer starts.

    Args:
        config: How training asked.
        encoder: Writes prompts as token ids.
        titles: Titles by item row, safe in prompts.
        seen: The history's rows, oldest first; prompts show the last `config.history_length`.
        groups: Rows of candidates, which prompts name where training's did.
        advice: `(items,)` scores of the teacher, shown where training showed them.
    """

    def named(items: Sequence[int]) -> list[str]:
        return [titles[item] for item in items]

    suggested, listings = None, groups
    if config.prompt_teacher == "list" and advice is not None:
        suggested = named(top_unseen(advice, seen, config.teacher["top_h"]))
    if config.prompt_teacher == "order" and advice is not None:
        listings = [sorted(group, key=lambda item: -advice[item]) for group in groups]
    history = named(seen[-config.history_length :])
    is_listed = config.candidates == "listed"
    messages = [
        lsr_messages(
            config.domain,
            history,
            named(listing) if is_listed else None,
            suggested,
            turns=config.turns,
        )
        for listing in listings
    ]
    return encoder.encode_prompts(messages)
