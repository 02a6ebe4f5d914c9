"""The one place where chat messages become token ids, for training and for ranking alike."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from delrec_hf.instructions.chat_template import ChatTemplate, Messages
from delrec_hf.labels import IGNORED

DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For tokenizers without a chat template; after the BOS token where the tokenizer puts one."""


class ChatEncoder:
    """Turns messages into token ids with a tokenizer's own chat template.

    The prompt is everything that the template writes before the assistant's answer (with some
    templates an empty thought or a channel name, too). The answer is tokenised apart from it, so
    that all candidates of a prompt share the prompt's tokens exactly, in training as in ranking.
    A space that the template puts before the answer belongs to the answer's first token, as it
    does wherever a title stands in running text. Tokenizers that put a space before every text
    (Llama 2's) put it before the answer as well.

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
        self._template = ChatTemplate(tokenizer)
        head, tail = self._template.around_an_answer()
        self._spaces, self._lead = self._space_before_answers(head)
        self._end_of_turn = self._closing(tail)
        self._served_template = self._template.served(self._spaces)

    def head(self, prompt: Messages) -> str:
        """Return the rendered text up to where the assistant's answer starts.

        Raises:
            InputError: If the chat template refuses this conversation.
        """
        return self._template.heads([prompt])[0].removesuffix(self._spaces)

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

    def _pieces(self, prompts: Sequence[Messages]) -> list[list[tuple[list[int], bool]]]:
        """Return each prompt as token ids, its earlier answers apart: each piece, and if it is one.

        The last piece ends where the answer starts. What closes an answer belongs to it, wherever
        the template closes earlier ones as it does the last.
        """
        given = [[m["content"] for m in prompt if m["role"] == "assistant"] for prompt in prompts]
        asked = [
            text.removesuffix(self._spaces)
            for texts in self._template.before_answers(prompts)
            for text in texts
        ]
        encoded = iter(self._encode(asked))
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
