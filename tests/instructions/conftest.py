"""Tokenizers made on the spot, one per chat template or kind, and a world to ask about."""

import re
from collections.abc import Callable, Sequence

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.instructions.world import World

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]

_TEXT = ["Heat (1995) Alien (1979) Which candidate will the user watch next? user assistant"] * 3
_MARKER = re.compile(
    r"<\|[^<>|\s]+\|?>|<[^<>|\s]+\|>|<\uff5c[^<>|\s]+\uff5c>|"
    r"</?(?:s|think|image|sop|start_of_turn|end_of_turn|end_of_utterance|start_of_image)>"
)


def _bpe(kind: str) -> Tokenizer:
    bpe = Tokenizer(models.BPE(unk_token="<unk>" if kind != "byte-level" else None))
    special = []
    if kind == "byte-level":  # as GPT-2, Llama 3, Qwen
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:  # as Llama 2: a space before every text, in one of two ways
        special = ["<unk>"]
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        bpe.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.Fuse(),
                decoders.Strip(content=" ", left=1),
            ]
        )
        alphabet = [*map(chr, range(33, 127)), "\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    bpe.train_from_iterator(_TEXT, trainer)
    if kind == "prepend":
        bpe.pre_tokenizer = None
        bpe.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    return bpe


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """A function that makes a tokenizer whose special tokens are those that a template writes."""
    trained = {kind: _bpe(kind).to_str() for kind in ("byte-level", "prepend", "metaspace")}

    def make(
        template: str | None = None,
        special: Sequence[str | AddedToken] = (),
        kind: str = "byte-level",
        **more: object,
    ) -> PreTrainedTokenizerFast:
        found = sorted(set(_MARKER.findall(template or "")) - {"<bos>", "<eos>"})
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(trained[kind]),
            additional_special_tokens=[*found, *special],
            chat_template=template,
            clean_up_tokenization_spaces=False,
            **{"bos_token": "<bos>", "eos_token": "<eos>", **more},
        )

    return make
