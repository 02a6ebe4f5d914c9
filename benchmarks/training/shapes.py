"""Shapes of well-known backbones, which are filled with random weights."""

from typing import Any

from transformers import LlamaConfig, Qwen3Config


def _shape(
    kind: Any,
    vocabulary: int,
    hidden: int,
    inner: int,
    layers: int,
    heads: tuple[int, int],
    **more: int,
) -> Any:
    return kind(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        **more,
    )


SHAPES = {
    "smollm2-135m": _shape(LlamaConfig, 49152, 576, 1536, 30, (9, 3)),
    "qwen3-0.6b": _shape(Qwen3Config, 151936, 1024, 3072, 28, (16, 8), head_dim=128),
    "llama-3.2-3b": _shape(LlamaConfig, 128256, 3072, 8192, 28, (24, 8), head_dim=128),
}
