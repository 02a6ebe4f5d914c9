"""Items that join a catalogue after training."""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from delrec_hf.data.titles import clean_title, distinct_titles, shorten, turn_article
from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.templates import lsr_messages
from delrec_hf.modeling.adapters import without_lora
from delrec_hf.modeling.artefact import ArtefactConfig
from delrec_hf.ranking.scoring import CandidateScorer


def new_titles(
    item_ids: Sequence[str], titles: Sequence[str], items: Mapping[str, str]
) -> list[str]:
    """Return the titles of new items, cleaned and told apart as those of a catalogue are.

    Args:
        item_ids: Ids of the catalogue.
        titles: Titles of the catalogue; none of the new ones is longer than the longest of them.
        items: New ids to titles.

    Raises:
        InputError: If an id is known already, or a title is empty.
    """
    known = set(item_ids)
    for item_id, title in items.items():
        if item_id in known:
            raise InputError(f"item `{item_id}` is in the catalogue already; give new ids")
        if not clean_title(title):
            raise InputError(f"item `{item_id}` has an empty title; give it one")
    longest = max(map(len, titles))
    new = [shorten(turn_article(clean_title(title)), longest) for title in items.values()]
    return distinct_titles([*titles, *new], longest)[len(titles) :]


def log_priors(
    backbone: PreTrainedModel,
    encoder: ChatEncoder,
    config: ArtefactConfig,
    answers: list[list[int]],
) -> list[float]:
    """Return titles' log-probabilities without a history, as `calibrate` measured the catalogue's.

    Args:
        backbone: The language model; its LoRA is left out.
        encoder: Writes prompts as token ids.
        config: How training asked.
        answers: The titles as token ids.
    """
    nothing = lsr_messages(config.domain, [], turns=config.turns)
    with without_lora(backbone):
        (found,) = CandidateScorer(backbone).score(encoder.encode_prompts([nothing]), [answers])
    return [float(one) for one in found]
