"""A tokenizer's chat template: conversations as text, and where answers stand in it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from delrec_hf.errors import InputError

Messages = Sequence[Mapping[str, str]]

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


class ChatTemplate:
    """Writes conversations as text with a tokenizer's own chat template.

    A template that asks for the date always gets the same one: a prompt must not change overnight.

    Args:
        tokenizer: A tokenizer with a chat template; of several named ones, the default is read.

    Raises:
        InputError: If the template cannot show a user's turn and an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        template: str = tokenizer.get_chat_template()
        dated = "strftime_now" in template and _SAME_DAY not in template
        self._text = _SAME_DAY + template if dated else template
        self._in_parts = self._reads_parts_only()

    def heads(self, prompts: Sequence[Messages]) -> list[str]:
        """Return each prompt as text, up to where the assistant's answer starts.

        Raises:
            InputError: If the template refuses one of them, or leaves the answer out.
        """
        heads = []
        for text in self._answered(prompts, in_parts=self._in_parts):
            head, found, _ = text.rpartition(_SENTINEL)
            if not found:
                raise self._leaves_out()
            heads.append(head)
        return heads

    def before_answers(self, prompts: Sequence[Messages]) -> list[list[str]]:
        """Return what stands before each answer of a prompt, the one to come included.

        The texts of a prompt, with its earlier answers between them, are the prompt; each answer's
        closing starts the text behind it.

        Raises:
            InputError: If the template refuses a prompt, or leaves an answer out.
        """
        blank = [[_blank(message) for message in prompt] for prompt in prompts]
        found = []
        for prompt, text in zip(blank, self._answered(blank, in_parts=self._in_parts), strict=True):
            answers = 1 + sum(message["role"] == "assistant" for message in prompt)
            *texts, _ = text.rsplit(_SENTINEL, answers)
            if len(texts) != answers:
                raise self._leaves_out()
            found.append(texts)
        return found

    def around_an_answer(self) -> tuple[str, str]:
        """Return the text before the answer to some question, and the text behind it."""
        head, _, tail = self._answered([_PROBE], in_parts=self._in_parts)[0].rpartition(_SENTINEL)
        return head, tail

    def served(self, spaces: str) -> str:
        """Return the template whose generation prompt is what trained answers begin behind.

        That is the template as it stands, where its own one is, and else the template without its
        own, followed by what stands between a user's turn and the answer.

        Args:
            spaces: What ends the text before an answer and belongs to the answer.

        Raises:
            InputError: If no generation prompt can end where answers begin.
        """
        probes = [_PROBE, _LONGER_PROBE]
        heads = [head.removesuffix(spaces) for head in self.heads(probes)]
        asked = self._render([_PROBE], self._text, in_parts=self._in_parts)[0]
        start = json.dumps(heads[0].removeprefix(asked), ensure_ascii=False)
        # Jinja drops one new line at the end of a file, which is no longer the end here.
        whole = self._text.removesuffix("\n").removesuffix("\r")
        before = _TEXT_AS_PARTS * self._in_parts + _NO_GENERATION_PROMPT
        with_start = before + whole + "{{ " + start + " if delrec_answers else '' }}"
        for template in (self._text, with_start):
            try:
                served = self._render(probes, template, add_generation_prompt=True)
            except InputError:  # some read no plain text, and some know no generation prompt
                continue
            if served == heads:
                return template
        raise InputError(
            f"the chat template of {self._tokenizer.name_or_path} writes more behind a user's last "
            "turn than where an answer follows, so that no generation prompt can end where answers "
            "begin; take that from its end, or set another template on its tokenizer"
        )

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

    def _leaves_out(self) -> InputError:
        return InputError(
            f"the chat template of {self._tokenizer.name_or_path} leaves the user's turn or the "
            "assistant's answer out; use a chat model, or set another template on its tokenizer"
        )

    def _answered(self, prompts: Iterable[Messages], *, in_parts: bool) -> list[str]:
        """Return each conversation as text, `_SENTINEL` being the assistant's answer."""
        answer = {"role": "assistant", "content": _SENTINEL}
        chats = [[*prompt, answer] for prompt in prompts]
        return self._render(chats, self._text, in_parts=in_parts)

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
            texts: list[str] = self._tokenizer.apply_chat_template(
                chats,
                tokenize=False,
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # jinja raises whatever the template's author thought of
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise InputError(
                f"the chat template of {self._tokenizer.name_or_path} refuses a user's turn and an "
                f"answer: {reason}; use a chat model, or set another template on its tokenizer"
            ) from error
        return texts


def _blank(message: Mapping[str, str]) -> Mapping[str, str]:
    """Return a message with `_SENTINEL` for what the assistant says."""
    return {**message, "content": _SENTINEL} if message["role"] == "assistant" else message


def _in_parts(message: Mapping[str, str]) -> dict[str, Any]:
    content = [{"type": "text", "text": message["content"]}]
    return {"role": message["role"], "content": content}
