"""The one place where chat messages become token ids, for training and for ranking alike."""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from delrec_hf.errors import InputError
from delrec_hf.labels import IGNORED

Messages = Sequence[Mapping[str, str]]

DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For tokenizers without a chat template; after the BOS token where the tokenizer puts one."""

_SENTINEL = "@@answer@@"
_PROBE: Messages = ({"role": "user", "content": "Which one?"},)
_LONGER_PROBE: Messages = ({"role": "user", "content": "Which one?\n- Heat (1995)\n- M (1931)"},)

# What follows goes before a template. Each ends with a tag and a new line, which jinja drops behind
# a tag: the template is then read as it is at the start of a file, white space included.
# For a template that asks for the date. Llama 3's falls back on this day by itself.
_SAME_DAY = (
    "{% macro strftime_now(format) %}{{ '2024-07-26' if '-' in format else '26 Jul 2024' }}"
    "{% endmacro %}\n"
)
# For a template that would take a plain text for a list of parts, and write nothing of it.
_TEXT_AS_PARTS = (
    "{% set delrec = namespace(messages=[]) %}\n"
    "{% for message in messages %}\n"
    "{% if message.content is string %}\n"
    "{% set message = dict(message, content=[{'type': 'text', 'text': message.content}]) %}\n"
    "{% endif %}\n"
    "{% set delrec.messages = delrec.messages + [message] %}\n"
    "{% endfor %}\n"
    "{% set messages = delrec.messages %}\n"
)
# For a template whose own generation prompt is not where answers begin.
_NO_GENERATION_PROMPT = (
    "{% set delrec_answers = add_generation_prompt %}\n{% set add_generation_prompt = false %}\n"
)


class ChatEncoder:
    """Turns messages into token ids with a tokenizer's own chat template.

    The prompt is everything that the template writes before the assistant's answer (with some
    templates an empty thought or a channel name, too). The answer is tokenised apart from it, so
    that all candidates of a prompt share the prompt's tokens exactly, in training as in ranking.
    A space that the template puts before the answer belongs to the answer's first token, as it
    does wherever a title stands in running text. Tokenizers that put a space before every text
    (Llama 2's) put it before the answer as well.

    A template that asks for the date always gets the same one: a prompt must not change overnight.

    Attributes:
        tokenizer: The tokenizer, with a plain default chat template if it had none.

    Raises:
        InputError: If the chat template cannot show a user's turn and an answer, or if no
            generation prompt can be written for it that ends where answers begin.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            tokenizer = copy.deepcopy(tokenizer)
            bos = tokenizer.bos_token_id
            starts = bos is not None and tokenizer("?")["input_ids"][:1] == [bos]
            tokenizer.chat_template = "{{ bos_token }}" * starts + DEFAULT_CHAT_TEMPLATE
        self.tokenizer = tokenizer
        # All there is to know about the template, found once: this object never changes again, and
        # so neither does its fingerprint in `Dataset.map`.
        template: str = tokenizer.get_chat_template()
        dated = "strftime_now" in template and _SAME_DAY not in template
        self._template = _SAME_DAY + template if dated else template
        self._in_parts = self._reads_parts_only()
        head, _, tail = self._answered([_PROBE], in_parts=self._in_parts)[0].rpartition(_SENTINEL)
        self._spaces, self._lead = self._space_before_answers(head)
        self._end_of_turn = self._closing(tail)
        self._served_template = self._find_served_template()

    def head(self, prompt: Messages) -> str:
        """Return the rendered text up to where the assistant's answer starts.

        Raises:
            InputError: If the chat template refuses this conversation.
        """
        return self._heads([prompt])[0]

    def encode_prompts(self, prompts: Sequence[Messages]) -> list[list[int]]:
        """Return the token ids of each prompt, without the answer.

        Earlier answers in a prompt are written as `encode_answers` writes them.

        Raises:
            InputError: If the chat template refuses one of the conversations.
        """
        return [[token for ids, _ in pieces for token in ids] for pieces in self._pieces(prompts)]

    def encode_answers(self, titles: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each title as an answer, the end of the turn included."""
        encoded = self._encode([self._lead + title for title in titles])
        return [[*ids, *self._end_of_turn] for ids in encoded]

    def encode_rows(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[list[int]]]:
        """Encode a batch of instruction rows for training; a function for `Dataset.map`.

        Args:
            rows: `prompt` and `completion`, each a list of lists of messages.

        Returns:
            `input_ids`, and `labels` that are -100 on what users say: the loss is on the answers
            alone, those that a prompt of several turns shows included.
        """
        answers = self.encode_answers([turns[-1]["content"] for turns in rows["completion"]])
        chats = [
            [*pieces, (answer, True)]
            for pieces, answer in zip(self._pieces(rows["prompt"]), answers, strict=True)
        ]
        return {
            "input_ids": [[token for ids, _ in chat for token in ids] for chat in chats],
            "labels": [
                [token if is_answer else IGNORED for ids, is_answer in chat for token in ids]
                for chat in chats
            ],
        }

    def served_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return a copy of the tokenizer for all who use the model without delrec_hf.

        Its `apply_chat_template(messages, add_generation_prompt=True)` gives the ids of
        `encode_prompts`. Many a template's own generation prompt does not: it opens a thought that
        answers in training did not have (DeepSeek R1), or stops before the empty one that they had
        (Qwen3). Whatever else the template can do stays as it was; of several named templates the
        default one is kept, which training read.
        """
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.chat_template = self._served_template
        return tokenizer

    def _encode(self, texts: list[str]) -> list[list[int]]:
        # Templates write BOS and EOS themselves: the tokenizer must not add them once more.
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _heads(self, prompts: Sequence[Messages]) -> list[str]:
        heads = []
        for text in self._answered(prompts, in_parts=self._in_parts):
            head, found, _ = text.rpartition(_SENTINEL)
            if not found:
                raise self._leaves_out()
            heads.append(head.removesuffix(self._spaces))
        return heads

    def _pieces(self, prompts: Sequence[Messages]) -> list[list[tuple[list[int], bool]]]:
        """Return each prompt as token ids, its earlier answers apart: each piece, and if it is one.

        The last piece ends where the answer starts. What closes an answer belongs to it, wherever
        the template closes earlier ones as it does the last.
        """
        given = [[m["content"] for m in prompt if m["role"] == "assistant"] for prompt in prompts]
        blank = [[_blank(message) for message in prompt] for prompt in prompts]
        asked: list[list[str]] = []
        for titles, text in zip(given, self._answered(blank, in_parts=self._in_parts), strict=True):
            *heads, _ = text.rsplit(_SENTINEL, len(titles) + 1)
            if len(heads) != len(titles) + 1:
                raise self._leaves_out()
            asked.append([head.removesuffix(self._spaces) for head in heads])
        encoded = iter(self._encode([head for heads in asked for head in heads]))
        answers = iter(self.encode_answers([title for titles in given for title in titles]))
        found = []
        for titles in given:
            pieces = [(next(encoded), False)]
            for _ in titles:
                answer, question = next(answers), next(encoded)
                closed = len(self._end_of_turn)
                if closed and question[:closed] == self._end_of_turn:
                    question = question[closed:]
                else:
                    answer = answer[: len(answer) - closed]
                pieces += [(answer, True), (question, False)]
            found.append(pieces)
        return found

    def _reads_parts_only(self) -> bool:
        """Say whether the template reads a message's content as a list of typed parts only."""
        refusal: InputError | None = None
        for in_parts in (False, True):
            try:
                text = self._answered([_PROBE], in_parts=in_parts)[0]
            except InputError as error:
                refusal = refusal or error
                continue
            if _SENTINEL in text and _PROBE[0]["content"] in text:
                return in_parts
        raise refusal or self._leaves_out()

    def _space_before_answers(self, head: str) -> tuple[str, str]:
        """Return the spaces that end the head, and what an answer starts with in their place."""
        bare = head.rstrip(" ")
        spaces = head[len(bare) :]
        before, whole = self._encode([bare, f"{head}The"])
        for lead in ("", spaces):
            if [*before, *self._encode([f"{lead}The"])[0]] == whole:
                return spaces, lead
        return "", ""

    def _closing(self, tail: str) -> list[int]:
        """Return what closes an answer: up to the first marker after it, else the end of text."""
        markers = marker_ids(self.tokenizer)
        answer, whole = self._encode(["The", f"The{tail}"])
        ids = whole[len(answer) :]
        for place, token in enumerate(ids):
            if token in markers:
                return ids[: place + 1]
        end = self.tokenizer.eos_token_id
        return [] if end is None else [end]

    def _leaves_out(self) -> InputError:
        return InputError(
            f"the chat template of {self.tokenizer.name_or_path} leaves the user's turn or the "
            "assistant's answer out; use a chat model, or set another template on its tokenizer"
        )

    def _find_served_template(self) -> str:
        """Return the template whose generation prompt is what trained answers begin behind.

        That is the template as it stands, where its own one is, and else the template without its
        own, followed by what stands between a user's turn and the answer.
        """
        head = self.head(_PROBE)
        asked = self._render([_PROBE], self._template, in_parts=self._in_parts)[0]
        start = json.dumps(head.removeprefix(asked), ensure_ascii=False)
        # Jinja drops one new line at the end of a file, which is no longer the end here.
        whole = self._template.removesuffix("\n").removesuffix("\r")
        before = _TEXT_AS_PARTS * self._in_parts + _NO_GENERATION_PROMPT
        with_start = before + whole + "{{ " + start + " if delrec_answers else '' }}"
        probes = [_PROBE, _LONGER_PROBE]
        heads = self._heads(probes)
        for template in (self._template, with_start):
            try:
                served = self._render(probes, template, add_generation_prompt=True)
            except InputError:  # some read no plain text, and some know no generation prompt
                continue
            if served == heads:
                return template
        raise InputError(
            f"the chat template of {self.tokenizer.name_or_path} writes more behind a user's last "
            "turn than where an answer follows, so that no generation prompt can end where answers "
            "begin; take that from its end, or set another template on its tokenizer"
        )

    def _answered(self, prompts: Iterable[Messages], *, in_parts: bool) -> list[str]:
        """Return each conversation as text, `_SENTINEL` being the assistant's answer."""
        answer = {"role": "assistant", "content": _SENTINEL}
        chats = [[*prompt, answer] for prompt in prompts]
        return self._render(chats, self._template, in_parts=in_parts)

    def _render(
        self,
        chats: Sequence[Messages],
        template: str,
        *,
        in_parts: bool = False,
        add_generation_prompt: bool = False,
    ) -> list[str]:
        if not chats:
            return []
        if in_parts:
            chats = [[_in_parts(message) for message in chat] for chat in chats]
        try:
            texts: list[str] = self.tokenizer.apply_chat_template(
                chats,
                tokenize=False,
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # jinja raises whatever the template's author thought of
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise InputError(
                f"the chat template of {self.tokenizer.name_or_path} refuses a user's turn and an "
                f"answer: {reason}; use a chat model, or set another template on its tokenizer"
            ) from error
        return texts


def marker_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of all special and added tokens that can structure a chat.

    Added whitespace is no marker, and neither is the token for unknown text, unless it has another
    job as well.
    """
    special = {
        tokenizer.convert_tokens_to_ids(token)
        for name, token in tokenizer.special_tokens_map.items()
        if name != "unk_token" and isinstance(token, str)
    }
    added = {i: t.content for i, t in tokenizer.added_tokens_decoder.items() if t.content.strip()}
    return special | {i for i, content in added.items() if content != tokenizer.unk_token}


def _blank(message: Mapping[str, str]) -> Mapping[str, str]:
    """Return a message with `_SENTINEL` for what the assistant says."""
    return {**message, "content": _SENTINEL} if message["role"] == "assistant" else message


def _in_parts(message: Mapping[str, str]) -> dict[str, Any]:
    content = [{"type": "text", "text": message["content"]}]
    return {"role": message["role"], "content": content}
