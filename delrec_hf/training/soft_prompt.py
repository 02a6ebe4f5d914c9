"""The untrained soft prompt that stage 1 starts from."""

import numpy as np
import torch
from peft import PromptTuningConfig, PromptTuningInit, TaskType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.training.distillation import DistilConfig


def new_soft_prompt(
    backbone: PreTrainedModel, config: DistilConfig, tokenizer: PreTrainedTokenizerBase
) -> DelRecModel:
    """Put an untrained soft prompt in front of a frozen backbone.

    Args:
        backbone: The language model.
        config: Number and initialisation of the virtual tokens.
        tokenizer: The backbone's; `prompt_init: text` reads its text with it.
    """
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
        prompt_tuning_init=starts[config.prompt_init],
        prompt_tuning_init_text=config.prompt_init_text if from_text else None,
        tokenizer_name_or_path=backbone.name_or_path if from_text else None,
        token_dim=backbone.get_input_embeddings().embedding_dim,
        num_layers=text_config.num_hidden_layers,
        num_attention_heads=text_config.num_attention_heads,
    )
    torch.manual_seed(config.seed)
    # PEFT would load the tokenizer by its name once more, and never one that brings its own code.
    prompt_config.inference_mode = from_text
    model = DelRecModel(backbone, prompt_config)
    prompt_config.inference_mode = False
    if from_text:
        words = np.resize(tokenizer(config.prompt_init_text)["input_ids"], len(model.soft_prompt))
        embedding = backbone.get_input_embeddings()
        with torch.no_grad():
            places = torch.from_numpy(words).to(embedding.weight.device)
            model.soft_prompt.copy_(embedding(places))
    model.train_only("prompt")
    return model
