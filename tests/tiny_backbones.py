"""What untrained backbones of several shapes are made from: configs, and one tokenizer for all."""

from functools import partial
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from delrec_hf.instructions.templates import DOMAINS, rps_prompt
from tests.film_rows import TITLES

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SHAPE = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # lively logits: with the usual 0.02 everything would look alike
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}
_GQA = {**_SHAPE, "num_key_value_heads": 2}
SHAPES: dict[str, Any] = {
    "qwen2": lambda: Qwen2Config(**_GQA, tie_word_embeddings=True),
    "qwen2-wide": lambda: Qwen2Config(  # bitsandbytes quantises blocks of 64
        **_GQA | {"hidden_size": 128, "intermediate_size": 128}, tie_word_embeddings=True
    ),
    "qwen3": lambda: Qwen3Config(**_GQA, head_dim=8, tie_word_embeddings=False),
    "llama": lambda: LlamaConfig(**_GQA, tie_word_embeddings=False),
    "llama-wide": lambda: LlamaConfig(
        **_GQA | {"hidden_size": 128, "intermediate_size": 128}, tie_word_embeddings=False
    ),
    "mistral": lambda: MistralConfig(**_GQA, sliding_window=16),
    "gemma2": lambda: Gemma2Config(
        **_GQA, head_dim=8, sliding_window=16, query_pre_attn_scalar=8, tie_word_embeddings=True
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_GQA, head_dim=8, sliding_window=512, query_pre_attn_scalar=8, tie_word_embeddings=True
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**_SHAPE, tie_word_embeddings=False),
    "gpt2": lambda: GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=512, n_inner=48,
        initializer_range=0.2, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    ),
}  # fmt: skip
_WIDE = _GQA | {"hidden_size": 64, "intermediate_size": 64}  # bitsandbytes quantises blocks of 64
SHAPES |= {
    f"{name}-64{'-tied' if tied else ''}": partial(make, **given, tie_word_embeddings=tied)
    for tied in (False, True)
    for name, make, given in (
        ("llama", LlamaConfig, _WIDE),
        ("qwen3", Qwen3Config, _WIDE | {"head_dim": 16}),
        (
            "gemma3",
            Gemma3TextConfig,
            _WIDE | {"head_dim": 16, "sliding_window": 512, "query_pre_attn_scalar": 16},
        ),
        ("gpt_neox", GPTNeoXConfig, _SHAPE | {"hidden_size": 64, "intermediate_size": 64}),
    )
}


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 pieces with the ChatML template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    wording = rps_prompt(DOMAINS["movie"], TITLES, TITLES)
    bpe.train_from_iterator([wording, *TITLES] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )
