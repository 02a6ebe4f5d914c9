"""The untrained soft prompt that stage 1 starts from."""

import numpy as np
import torch
from peft import (
    CartridgeConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
    initialize_kv_prefix_from_past_key_values,
)
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from delrec_hf.errors import InputError
from delrec_hf.modeling.prompt import cartridge_shape
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.prefix import Prefix
from delrec_hf.ranking.support import masked_attention, no_prefix
from delrec_hf.training.distillation import DistilConfig


def new_soft_prompt(
    backbone: PreTrainedModel, config: DistilConfig, tokenizer: PreTrainedTokenizerBase
) -> DelRecModel:
    """Put an untrained soft prompt in front of a frozen backbone.

    Args:
        backbone: The language model.
        config: Kind, number and initialisation of the virtual tokens.
        tokenizer: The backbone's; `prompt_init: text` reads its text with it.

    Raises:
        InputError: If the prompt shall be a cartridge, and the backbone cannot go on from one.
    """
    torch.manual_seed(config.seed)
    new = _new_cartridge if config.prompt_type == "cartridge" else _new_embeddings
    model = new(backbone, config, tokenizer)
    model.train_only("prompt")
    return model


def _new_embeddings(
    backbone: PreTrainedModel, config: DistilConfig, tokenizer: PreTrainedTokenizerBase
) -> DelRecModel:
    starts = {
        "random": PromptTuningInit.RANDOM,
        "vocabulary": PromptTuningInit.SAMPLE_VOCAB,
        "text": PromptTuningInit.TEXT,
    }
    from_text = config.prompt_init == "text"
    text_config = backbone.config.get_text_config()
    prompt_config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=config.num_virtual_tokens,
        prompt_tuning_init=starts[str(config.prompt_init)],
        prompt_tuning_init_text=config.prompt_init_text if from_text else None,
        tokenizer_name_or_path=backbone.name_or_path if from_text else None,
        token_dim=backbone.get_input_embeddings().embedding_dim,
        num_layers=text_config.num_hidden_layers,
        num_attention_heads=text_config.num_attention_heads,
    )
    # PEFT would load the tokenizer by its name once more, and never one that brings its own code.
    prompt_config.inference_mode = from_text
    model = DelRecModel(backbone, prompt_config)
    prompt_config.inference_mode = False
    if from_text:
        embedding = backbone.get_input_embeddings()
        with torch.no_grad():
            places = torch.tensor(_words(config, tokenizer), device=embedding.weight.device)
            model.learned_prompt.copy_(embedding(places))
    return model


def _new_cartridge(
    backbone: PreTrainedModel, config: DistilConfig, tokenizer: PreTrainedTokenizerBase
) -> DelRecModel:
    """Put keys and values in front of a backbone: noise, or its own of tokens that it reads."""
    cure = "set `distil.prompt_type: prompt_tuning`"
    reason = no_prefix(backbone)
    if reason:
        raise InputError(
            f"`distil.prompt_type` is cartridge, and {type(backbone).__name__} does not go on from "
            f"keys and values: {reason}; {cure}"
        )
    words = _words(config, tokenizer)
    if config.prompt_init == "vocabulary":
        words = torch.randint(len(tokenizer), (config.num_virtual_tokens,)).tolist()
    with masked_attention(backbone):
        states = Prefix.read(backbone, None, words).states
    layers, heads, size = cartridge_shape(backbone)
    found = {None if one is None else (one[0].shape, one[1].shape) for one in states}
    wanted = torch.Size((1, heads, len(words), size))
    if len(states) != layers or found != {(wanted, wanted)}:
        raise InputError(
            f"`distil.prompt_type` is cartridge, and the layers of {type(backbone).__name__} do "
            f"not all keep {heads} heads of keys and values of their own, {size} wide; {cure}"
        )
    prompt_config = CartridgeConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=len(words),
        token_dim=heads * size,
        num_layers=layers,
        num_attention_heads=heads,
    )
    model = DelRecModel(backbone, prompt_config)
    if config.prompt_init != "random":
        initialize_kv_prefix_from_past_key_values(model, past_key_values=list(states))
    return model


def _words(config: DistilConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of the text, repeated or cut to the number of virtual tokens."""
    ids = tokenizer(config.prompt_init_text)["input_ids"]
    words: list[int] = np.resize(ids, config.num_virtual_tokens).tolist()
    return words
