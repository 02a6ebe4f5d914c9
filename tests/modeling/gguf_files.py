"""Real GGUF files of tiny Llamas, whole and broken, written as llama.cpp's converter does."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

KEYS: dict[str, Any] = {
    "general.name": "Tiny Llama",
    "general.license": "apache-2.0",
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.add_bos_token": False,
}


def write_llama(
    path: Path,
    folder: Path,
    *,
    architecture: str = "llama",
    keys: Mapping[str, Any] = {},
    without: Collection[str] = (),
    weights: Mapping[str, np.ndarray[Any, Any]] = {},
    quantization: str = "F32",
) -> Path:
    """Write the Llama of a folder as a GGUF file.

    Args:
        path: The file.
        folder: A Llama with a byte-level BPE.
        architecture: What it calls itself.
        keys: Metadata over, or beside, what the model and `KEYS` say.
        without: Keys and tensors that are left out.
        weights: Tensors beside the model's.
        quantization: Type of the matrices.
    """
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    known = {**KEYS, **_shape(model.config, architecture), **_vocabulary(folder), **keys}
    writer = GGUFWriter(path, architecture)
    for name, value in known.items():
        if name not in without:
            _add(writer, name, value)
    kind = GGMLQuantizationType[quantization]
    for name, weight in {**llama_tensors(model), **weights}.items():
        if name in without:
            continue
        matrix = weight.ndim == 2 and quantization != "F32"
        data = quantize(weight, kind) if matrix else weight
        writer.add_tensor(name, data, raw_dtype=kind if matrix else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama_tensors(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return a Llama's weights under their GGUF names, as llama.cpp orders them."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = model.config
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {
        "attn_q.weight": config.num_attention_heads,
        "attn_k.weight": config.num_key_value_heads,
    }
    found = {}
    for name, weight in model.state_dict().items():
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        kind = gguf_name.split(".", 2)[-1]
        if kind in heads:  # llama.cpp turns pairs of neighbours, transformers pairs of halves
            weight = _by_neighbours(weight, heads[kind])
        found[gguf_name] = weight.numpy().copy()
    return found


def _by_neighbours(weight: torch.Tensor, heads: int) -> torch.Tensor:
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, -1)


def _shape(config: Any, architecture: str) -> dict[str, Any]:
    shape = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
        "rope.dimension_count": config.head_dim,
        "vocab_size": config.vocab_size,
    }
    return {f"{architecture}.{name}": value for name, value in shape.items()}


def _vocabulary(folder: Path) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=lambda token: vocab[token])
    merges = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
    ids = {"eos": tokenizer.eos_token_id, "padding": tokenizer.pad_token_id}
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [
            3 if vocab[token] in tokenizer.added_tokens_decoder else 1 for token in tokens
        ],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.chat_template": tokenizer.chat_template,
        **{f"tokenizer.ggml.{name}_token_id": value for name, value in ids.items()},
    }


def _add(writer: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
