"""Folding soft prompt and LoRA into a plain checkpoint that any server loads."""

from pathlib import Path

import torch
from peft import PeftConfig, PeftType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from delrec_hf.errors import InputError
from delrec_hf.files import replace_folder
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.logging import get_logger
from delrec_hf.modeling.adapters import load_lora
from delrec_hf.modeling.artefact import ArtefactConfig, artefact_folder
from delrec_hf.modeling.backbone import (
    Dtype,
    cast_weights,
    dequantized,
    load_recorded_backbone,
    load_tokenizer,
)
from delrec_hf.modeling.stacked import PROMPT_FOLDER, DelRecModel

VIRTUAL_TOKEN = "<|delrec_{}|>"
_UNLIKELY = 64  # tokens whose mean stands for "never answered"
_QUESTIONS = (
    [{"role": "user", "content": "Which one?"}],
    [{"role": "user", "content": "Which one?\n- Heat (1995)\n- Alien\u00b3, don't (1992)\n"}],
)

logger = get_logger(__name__)


def export(
    model: str | Path,
    output_dir: str | Path,
    *,
    revision: str | None = None,
    base_model: str | None = None,
    torch_dtype: Dtype | None = None,
    load_in_4bit: bool | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Write a plain checkpoint whose chat template puts the virtual tokens first.

    LoRA is merged into the weights. Each virtual token becomes a special token of the vocabulary
    with the soft prompt's row as its embedding, and the chat template begins with them and ends, if
    asked for a generation prompt, where answers began in training. Embeddings that were tied to the
    output are untied: a virtual token must never be an answer.

    Quantised weights are made plain again, and LoRA is merged into those: into what it was trained
    on. The checkpoint computes with them in the dtype that it is stored in, so in bfloat16 it
    rounds otherwise than the stacked model; and 8-bit layers round what they read, which plain
    ones do not.

    Args:
        model: Folder or Hub id of an artefact.
        output_dir: Folder of the checkpoint.
        revision: Commit, tag or branch on the Hub.
        base_model: Backbone to use instead of the recorded one.
        torch_dtype: Dtype of the checkpoint; by default that of the backbone in training.
        load_in_4bit: Merge into weights rounded to 4 bits, or not; by default as in training.
        device: Where to load and merge.
        trust_remote_code: Whether the backbone's repository may run its own code.

    Raises:
        InputError: If the model cannot be loaded, its prompt is a cartridge, the folder is not
            empty, or the checkpoint's tokenizer would read a prompt otherwise than training did.
    """
    place = Path(output_dir)
    if place.exists() and any(place.iterdir()):
        raise InputError(f"folder {place} is not empty; give a new one with --output_dir")
    folder = artefact_folder(model, revision)
    config = ArtefactConfig.load(folder)
    if PeftConfig.from_pretrained(str(folder / PROMPT_FOLDER)).peft_type == PeftType.CARTRIDGE:
        raise InputError(
            f"the prompt of {model} is a cartridge, keys and values in each layer, and a plain "
            "checkpoint can hold virtual tokens as embeddings alone; load it with delrec_hf or "
            "PEFT, or export one that was distilled with `distil.prompt_type: prompt_tuning`"
        )
    backbone = load_recorded_backbone(
        config,
        folder,
        base_model=base_model,
        torch_dtype=torch_dtype,  # read in it: weights cast from another are rounded already
        load_in_4bit=load_in_4bit,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    backbone = dequantized(backbone)
    if torch_dtype not in (None, "auto"):
        cast_weights(backbone, torch_dtype)
    merged: PreTrainedModel = load_lora(backbone, folder).merge_and_unload().cpu()
    soft_prompt = DelRecModel.with_prompt(merged, folder / PROMPT_FOLDER).soft_prompt.detach()
    encoder = ChatEncoder(load_tokenizer(folder, trust_remote_code=trust_remote_code))
    unlikely = _least_likely_tokens(merged, soft_prompt, encoder)
    tokenizer, rows = _with_virtual_tokens(encoder, len(soft_prompt))
    _add_rows(merged, soft_prompt, rows, unlikely)
    with replace_folder(place) as aside:
        merged.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        written = load_tokenizer(aside, trust_remote_code=trust_remote_code)
        if not _reads_as_trained(written, encoder, rows):
            raise InputError(
                f"the tokenizer of {model} cannot be exported: with the virtual tokens it would "
                "cut prompts otherwise than in training; load the model with delrec_hf or PEFT"
            )
    logger.info("exported a plain checkpoint with %d virtual tokens to %s", len(rows), place)


def _with_virtual_tokens(
    encoder: ChatEncoder, number: int
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """Return a tokenizer whose chat template begins with the virtual tokens, and their ids."""
    tokenizer = encoder.served_tokenizer()
    names = [VIRTUAL_TOKEN.format(count) for count in range(number)]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": names}, replace_extra_special_tokens=False
    )
    rows = tokenizer.convert_tokens_to_ids(names)
    template = tokenizer.chat_template
    # Some tokenizers put a space before a text, but not before one that follows a token.
    for space in ("", " "):
        # Jinja drops the new line behind a comment, and reads on as at the start of a file.
        first = "{{ '" + "".join(names) + space + "' }}{# the soft prompt #}\n"
        tokenizer.chat_template = first + template
        if _reads_as_trained(tokenizer, encoder, rows):
            break
    return tokenizer, rows


def _reads_as_trained(
    tokenizer: PreTrainedTokenizerBase, encoder: ChatEncoder, virtual: list[int]
) -> bool:
    """Say whether a prompt's ids are the virtual tokens and what training read."""
    expected = [[*virtual, *ids] for ids in encoder.encode_prompts(_QUESTIONS)]
    found = tokenizer.apply_chat_template(list(_QUESTIONS), add_generation_prompt=True)
    return bool(found["input_ids"] == expected)


@torch.inference_mode()
def _least_likely_tokens(
    model: PreTrainedModel, soft_prompt: torch.Tensor, encoder: ChatEncoder
) -> torch.Tensor:
    """Return the ids of the tokens that the model would answer last."""
    ids = torch.tensor(encoder.encode_prompts([[{"role": "user", "content": "?"}]]))
    embeds = model.get_input_embeddings()(ids)
    embeds = torch.cat([soft_prompt[None].to(embeds), embeds], dim=1)
    words = len(encoder.tokenizer)
    likelihood = model(inputs_embeds=embeds).logits[0, :, :words].float().mean(0)
    return likelihood.argsort()[: min(_UNLIKELY, len(likelihood))]


@torch.no_grad()
def _add_rows(
    model: PreTrainedModel, soft_prompt: torch.Tensor, rows: list[int], unlikely: torch.Tensor
) -> None:
    """Put the soft prompt into the input embeddings, and unlikely rows into the output.

    The new output rows are the mean of others: their logits are below the largest of those,
    whatever the model has read.
    """
    output = model.get_output_embeddings()
    outputs = output.weight.detach().clone()
    size = max(model.get_input_embeddings().num_embeddings, max(rows) + 1)
    model.resize_token_embeddings(size, mean_resizing=False)
    embedding = model.get_input_embeddings()
    # Some models (Gemma) scale what they read from the table.
    some = torch.arange(min(rows), device=embedding.weight.device)
    scale = embedding(some).float().norm() / embedding.weight[some].float().norm()
    embedding.weight[rows] = (soft_prompt / scale).to(embedding.weight)
    head = torch.nn.Linear(outputs.shape[1], size, bias=output.bias is not None)
    head.to(outputs.dtype)
    head.weight[: len(outputs)] = outputs
    new = [*range(len(outputs), size), *rows]
    head.weight[new] = outputs[unlikely].float().mean(0).to(outputs)
    if output.bias is not None:
        head.bias[: len(outputs)] = output.bias[: len(outputs)]
        head.bias[new] = output.bias[unlikely].mean()
    model.set_output_embeddings(head)
    model.config.get_text_config().tie_word_embeddings = False
    model.config.tie_word_embeddings = False
    model.generation_config.suppress_tokens = rows
