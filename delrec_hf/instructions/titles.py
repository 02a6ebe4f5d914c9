"""Titles as data: whatever an item is called, it opens no turn and breaks no line."""

import re
import unicodedata
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from delrec_hf.data.titles import CONTROLS, INVISIBLE, number_twins
from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import marker_ids
from delrec_hf.instructions.templates import MASK

_UNTITLED = "Untitled"

_BREAKS = re.compile(f"[{CONTROLS}]+")
_SURROGATES = re.compile("[\ud800-\udfff]")

# How chat templates mark turns, thoughts and tools in plain text, vocabulary or not.
_PLAIN_MARKERS = (
    re.escape(MASK),
    r"<[|\uff5c]|[|\uff5c]>",
    r"</?SYS>",
    r"\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|THINK)\]",
    r"</?(?:s|bos|eos|pad|unk|mask|think|tool|tools|tool_call|tool_response|image|sop)>",
    r"<(?:start_of_turn|end_of_turn|start_of_image|end_of_utterance)>",
)


def safe_titles(titles: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return titles that a prompt can hold without harm, in the same order and pairwise distinct.

    Control characters and line breaks become a space, characters that nobody sees go, and a marker
    of turns, thoughts or tools gets a space behind its first character: `<|im_end|>` becomes
    `< |im_end| >`. Markers are all special and added tokens of the tokenizer, and those that chat
    templates write as plain text. What the tokenizer still takes for a marker (after its own
    normalisation, say) is rewritten more and more plainly until it does not. A title that has none
    of these stays as it is, unless another one has the same text or the same tokens: all but one of
    such twins get a number, those that were rewritten first of all.

    Args:
        titles: Titles by item row.
        tokenizer: The tokenizer of the model that will read them.

    Raises:
        InputError: If the tokenizer takes whatever is left of a title for a control token.
    """
    markers = marker_ids(tokenizer)
    break_up = _breaker(tokenizer, markers)
    cleaned = [break_up(_clean(title)) for title in titles]
    safe, encoded = _without_markers(cleaned, tokenizer, markers, break_up)
    changed = [title != given for title, given in zip(safe, titles, strict=True)]
    readings = [(title, tuple(ids)) for title, ids in zip(safe, encoded, strict=True)]
    order = sorted(range(len(safe)), key=changed.__getitem__)
    return number_twins(safe, readings, " ({})", order=order)


def _clean(title: str) -> str:
    text = _SURROGATES.sub("\ufffd", INVISIBLE.sub("", title))
    return _BREAKS.sub(" ", text).strip() or _UNTITLED


def _breaker(tokenizer: PreTrainedTokenizerBase, ids: set[int]) -> Callable[[str], str]:
    """Return a function that puts a space into each marker of a text."""
    single = {
        added.content for added in tokenizer.added_tokens_decoder.values() if added.single_word
    }
    words = [str(word) for word in tokenizer.convert_ids_to_tokens(sorted(ids))]
    words = sorted((word for word in words if len(word.strip()) > 1), key=len, reverse=True)
    exact = [rf"(?<!\w){re.escape(w)}(?!\w)" if w in single else re.escape(w) for w in words]
    marker = re.compile("|".join([*exact, *_PLAIN_MARKERS]))
    # Vocabularies hold thousands of markers; nearly no title holds even the start of one.
    starts = sorted({word[:2] for word in words})
    suspect = re.compile("|".join([*map(re.escape, starts), *_PLAIN_MARKERS]))

    def break_up(text: str) -> str:
        while suspect.search(text):
            broken = marker.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
            if broken == text:
                break
            text = broken
        return text

    return break_up


def _without_markers(
    titles: list[str],
    tokenizer: PreTrainedTokenizerBase,
    markers: set[int],
    break_up: Callable[[str], str],
) -> tuple[list[str], list[list[int]]]:
    """Rewrite the titles whose tokens hold a marker; return all titles and their tokens."""

    def encode(texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def without_single(text: str) -> str:
        """Leave out the characters that are markers by themselves."""
        ids = encode(list(text))
        kept = (one for one, tokens in zip(text, ids, strict=True) if markers.isdisjoint(tokens))
        return "".join(kept).strip() or _UNTITLED

    rewrites = (
        lambda text: break_up(unicodedata.normalize("NFKC", text)),
        without_single,
        " ".join,
    )
    encoded = encode(titles)
    for rewrite in rewrites:
        bad = [place for place, ids in enumerate(encoded) if not markers.isdisjoint(ids)]
        for place, ids in zip(bad, encode([rewrite(titles[p]) for p in bad]), strict=True):
            titles[place], encoded[place] = rewrite(titles[place]), ids
    for title, ids in zip(titles, encoded, strict=True):
        if not markers.isdisjoint(ids):
            raise InputError(
                f"the tokenizer {tokenizer.name_or_path} reads a control token in the title "
                f"`{title}`, however it is written; rename the item"
            )
    return titles, encoded
