"""Every causal language model of transformers that can be made small scores as separate rows do."""

import math
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from delrec_hf.ranking import budget
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.support import no_prefix, way_of

PROMPT = [5 + (53 * k) % 380 for k in range(45)]  # beyond the windows below
CANDIDATES = [[50, 51, 2], [70], [90, 91, 92, 93, 2], [50, 51, 2]]
NOT_CAUSAL = {"prophetnet", "xlnet"}  # a token's own row is not all that its logits depend on
MILLIONS = 5  # of parameters; what stays larger is left out

# What configurations call their sizes; each takes those that it knows.
SIZES: dict[str, Any] = {
    **dict.fromkeys(["vocab_size", "vocab_size_per_layer_input"], 400),
    **dict.fromkeys(
        ["hidden_size", "n_embd", "d_model", "embedding_size", "embedding_dim", "lru_width",
         "word_embed_proj_dim", "conv_dim", "block_dim"], 32,
    ),
    **dict.fromkeys(
        ["intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "d_ff",
         "intermediate_size_mlp", "block_ff_dim"], 48,
    ),
    **dict.fromkeys(
        ["num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers",
         "encoder_layers", "num_attention_heads", "n_head", "n_heads", "num_heads",
         "attention_heads", "decoder_attention_heads", "encoder_attention_heads", "num_experts",
         "num_local_experts", "n_routed_experts", "moe_num_experts", "linear_num_value_heads",
         "mamba_dt_rank", "rotary_dim"], 4,
    ),
    **dict.fromkeys(
        ["num_key_value_heads", "num_query_groups", "num_experts_per_tok", "linear_num_key_heads",
         "index_n_heads", "max_window_layers", "mamba_expand", "altup_num_inputs"], 2,
    ),
    **dict.fromkeys(
        ["head_dim", "global_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
         "index_head_dim", "linear_key_head_dim", "linear_value_head_dim", "mamba_n_heads",
         "mamba_d_head", "mamba_num_heads", "mamba_head_dim", "hidden_size_per_layer_input",
         "query_pre_attn_scalar"], 8,
    ),
    **dict.fromkeys(
        ["q_lora_rank", "kv_lora_rank", "qk_head_dim", "moe_intermediate_size", "mamba_d_state",
         "shared_expert_intermediate_size", "shared_intermediate_size", "expert_ffn_hidden_size",
         "ssm_state_size", "state_size", "mamba_chunk_size", "chunk_size", "dim_model_base",
         "sliding_window", "window_size", "attention_window_size", "attention_chunk_size",
         "local_attention"], 16,
    ),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "index_topk"], 512),
    **dict.fromkeys(
        ["n_group", "n_groups", "topk_group", "mamba_n_groups", "num_shared_experts"], 1
    ),
    "laurel_rank": 4, "mamba_d_ssm": 64, "num_kv_shared_layers": 0, "use_mamba_kernels": False,
    "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    # What stands behind the output layer, lively enough to be missed.
    "final_logit_softcapping": 5.0, "logits_soft_cap": 5.0, "lm_head_multiplier": 2.0,
    "logits_scaling": 0.5, "logit_scale": 2.0,
}  # fmt: skip
_LATENT = {"num_key_value_heads": 4}
_RECURRENT = {"layer_types": ["linear_attention", "full_attention"] * 2}
_CONV = {"layer_types": ["conv", "full_attention"] * 2}
_WINDOW = {"layer_types": ["sliding_attention", "full_attention"] * 2}
OWN_SIZES: dict[str, dict[str, Any]] = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "bamba": {"attn_layer_indices": [1, 3]},
    "deepseek_v3": _LATENT,
    "deepseek_v32": _LATENT,
    "gemma3_text": _WINDOW,
    "gemma3n_text": {**_WINDOW, "activation_sparsity_pattern": [0.0] * 4},
    "gemma4_text": {**_WINDOW, "per_layer_config": None},
    "glm4_moe_lite": _LATENT,
    "glm_moe_dsa": _LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": _RECURRENT,
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "laguna": {"num_attention_heads_per_layer": [4] * 4},
    "lfm2": _CONV,
    "lfm2_moe": _CONV,
    "longcat_flash": _LATENT,
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "minicpm3": _LATENT,
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "qwen2": {"use_sliding_window": True},
    "qwen3": {"use_sliding_window": True},
    "smollm3": {"use_sliding_window": True},
    "youtu": _LATENT,
    "zaya": {"num_experts_per_tok": 1},
}
# Lists by layer, which are made anew for fewer layers.
BY_LAYER = [
    "layer_types", "layers_block_type", "block_types", "mlp_layer_types", "attention_layers",
    "no_rope_layers", "hybrid_layer_ids", "rope_parameters",
]  # fmt: skip
MUST = {
    "bamba", "bloom", "cohere", "falcon", "falcon_h1", "gemma2", "gemma3_text", "gpt2", "gpt_oss",
    "granite", "jamba", "lfm2", "llama", "mamba2", "mistral", "olmo3", "phi3", "qwen2", "qwen3",
    "qwen3_next",
}  # fmt: skip


def _small(kind: str) -> PreTrainedModel | None:
    """Return an untrained model of a few thousand parameters, or None if it cannot be had."""
    try:
        whole = AutoConfig.for_model(kind)
        if whole.sub_configs:
            return None
        config = type(whole)(**_sizes(kind, whole))
        config.is_decoder = True  # encoders look back only if told
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        if sum(math.prod(one.shape) for one in model.parameters()) > MILLIONS * 1_000_000:
            return None
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.inference_mode():
            model(inputs_embeds=model.get_input_embeddings()(torch.tensor([PROMPT])))
    except Exception:  # sizes that do not fit each other, each type in its own way
        return None
    return model


def _sizes(kind: str, whole: PreTrainedConfig) -> dict[str, Any]:
    dropped = [*BY_LAYER, "architectures", "dtype", "model_type", "transformers_version"]
    given = {name: value for name, value in whole.to_dict().items() if name not in dropped}
    known = {
        name: value
        for name, value in SIZES.items()
        if given.get(name) is not None or (name in given and name.endswith(("_id", "_window")))
    }
    return {**given, **known, **OWN_SIZES.get(kind, {})}


@pytest.mark.slow
def test_every_kind_of_backbone_scores_as_separate_rows(
    naive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "LOGITS", 400 * 7)
    tried, with_prefix, wrong = set(), set(), {}
    for kind in sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - NOT_CAUSAL):
        model = _small(kind)
        if model is None:
            continue
        tried.add(kind)
        expected = naive(model, PROMPT, CANDIDATES)
        scorer = CandidateScorer(model)
        found = scorer.score_batch([PROMPT, [7, 8]], [CANDIDATES, [[9, 2]]])[0]
        difference = max(abs(one - other) for one, other in zip(found, expected, strict=True))
        if not no_prefix(model):
            scorer = scorer.with_prefix([PROMPT, PROMPT[:30]])
            found = scorer.score_batch([PROMPT, [*PROMPT[:29], 8]], [CANDIDATES, [[9, 2]]])[0]
            behind = max(abs(one - other) for one, other in zip(found, expected, strict=True))
            difference = max(difference, behind)
            with_prefix.add(kind)
        # float32: the same sums in another layout; Qwen3.5's states, carried by token instead of
        # by block, are 4e-4 away. A wrong place, mask or state is more than 1e-2.
        if difference > (1e-4 if way_of(model)[0] == "tree" else 1e-3):
            wrong[kind] = difference
    assert not wrong
    assert tried >= MUST
    assert len(tried) >= 120
    assert len(with_prefix) >= 90
