"""Tiny backbones beyond the shared shapes, and a count of what their decoders read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    BloomConfig,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPTJConfig,
    GPTNeoXConfig,
    GraniteConfig,
    JambaConfig,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
    RecurrentGemmaConfig,
)

_SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # lively logits: with the usual 0.02 everything would look alike
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GEMMA = {**_SIZES, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
_MAMBA = {"mamba_d_state": 16, "mamba_d_head": 8, "mamba_n_heads": 8, "mamba_chunk_size": 16}
_MIXED = ["sliding_attention", "full_attention"] * 2
_CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**_SIZES),
    # A sliding window of 16 tokens, in every layer or in some.
    "mistral, window": lambda: MistralConfig(**_SIZES, sliding_window=16),
    "gemma2, window": lambda: Gemma2Config(**_GEMMA, layer_types=_MIXED),
    "gemma3, window": lambda: Gemma3TextConfig(**_GEMMA, layer_types=_MIXED),
    "qwen2, window": lambda: Qwen2Config(
        **_SIZES, sliding_window=16, use_sliding_window=True, max_window_layers=2
    ),
    "qwen3": lambda: Qwen3Config(**_SIZES, head_dim=8),
    "gpt_neox": lambda: GPTNeoXConfig(**_SIZES),
    # Something around the output layer.
    "gemma2, softcap": lambda: Gemma2Config(**_GEMMA, final_logit_softcapping=2.0),
    "cohere, scale": lambda: CohereConfig(**_SIZES, logit_scale=0.25),
    "granite, scale": lambda: GraniteConfig(**_SIZES, logits_scaling=3.0),
    "gptj, bias": lambda: GPTJConfig(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=512, n_inner=48, rotary_dim=4,
        initializer_range=0.2, bos_token_id=1, eos_token_id=2,
    ),
    # Layers that carry a state along the row.
    "qwen3_next": lambda: Qwen3NextConfig(
        **_SIZES, head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
        linear_key_head_dim=8, linear_value_head_dim=8, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=16, shared_expert_intermediate_size=16,
    ),
    "lfm2": lambda: Lfm2Config(**_SIZES, layer_types=["conv", "full_attention"] * 2),
    "falcon_h1": lambda: FalconH1Config(
        **_SIZES, **_MAMBA, head_dim=8, mamba_d_ssm=64, mamba_n_groups=1
    ),
    "bamba": lambda: BambaConfig(
        **_SIZES, **_MAMBA, mamba_n_groups=1, attn_layer_indices=[1, 3]
    ),
    "jamba": lambda: JambaConfig(
        **_SIZES, mamba_d_state=16, mamba_dt_rank=4, attn_layer_period=2, attn_layer_offset=1,
        num_experts=4, use_mamba_kernels=False,
    ),
    "mamba2": lambda: Mamba2Config(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_heads=8, head_dim=8, n_groups=1,
        state_size=16, chunk_size=16, initializer_range=0.2,
    ),
    "recurrent_gemma": lambda: RecurrentGemmaConfig(
        **_SIZES, head_dim=8, lru_width=32, attention_window_size=16
    ),
    # Distances to earlier tokens in the row instead of position_ids.
    "bloom": lambda: BloomConfig(
        vocab_size=400, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny() -> Callable[..., PreTrainedModel]:
    """A function that makes an untrained backbone with biases that are not zero."""

    def make(name: str, **settings: Any) -> PreTrainedModel:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(_CONFIGS[name](), dtype=torch.float32, **settings)
        bias = getattr(model.get_output_embeddings(), "bias", None)
        if bias is not None:
            bias.data.normal_(0, 1)
        return model.eval()

    return make


@dataclass
class Reading:
    """What a decoder has read: forwards, and tokens with their padding."""

    forwards: int = 0
    tokens: int = 0


@pytest.fixture(scope="session")
def reading() -> Callable[[PreTrainedModel], Reading]:
    """A function that counts from now on what a backbone's decoder reads."""

    def count(backbone: PreTrainedModel) -> Reading:
        found = Reading()

        def note(_: Any, args: Any, given: dict[str, Any]) -> None:
            tokens = given.get("inputs_embeds")
            tokens = given["input_ids"] if tokens is None else tokens
            found.forwards += 1
            found.tokens += tokens.shape[0] * tokens.shape[1]

        backbone.base_model.register_forward_pre_hook(note, with_kwargs=True)
        return found

    return count


@pytest.fixture(scope="session")
def naive() -> Callable[..., list[float]]:
    """A function that scores each candidate by log_softmax over one plain forward of its row."""

    def score(
        backbone: PreTrainedModel,
        prompt: list[int],
        candidates: Sequence[list[int]],
        soft_prompt: torch.Tensor | None = None,
    ) -> list[float]:
        found = []
        for one in candidates:
            embeds = backbone.get_input_embeddings()(torch.tensor([prompt + one]))
            if soft_prompt is not None:
                embeds = torch.cat([soft_prompt[None], embeds], dim=1)
            with torch.inference_mode():
                logits = backbone(inputs_embeds=embeds, use_cache=False).logits
            logs = logits[0, -len(one) - 1 : -1].log_softmax(-1)
            found.append(float(logs[range(len(one)), one].sum()))
        return found

    return score
