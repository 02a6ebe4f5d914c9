"""Turning a GGUF checkpoint into an ordinary folder: safetensors weights, tokenizer, card."""

import json
import tempfile
from pathlib import Path
from typing import Literal

import transformers
from tokenizers import Tokenizer, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from delrec_hf.errors import InputError
from delrec_hf.files import replace_folder, write_json, write_text
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.logging import get_logger
from delrec_hf.modeling.backbone import load_tokenizer
from delrec_hf.modeling.gguf_file import GgufFile, read_gguf
from delrec_hf.modeling.gguf_source import SOURCE_FILE, describe_source, source_card

_GPT2_SPLIT = ("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion")
_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""What llama.cpp calls vocabularies (`tokenizer.ggml.pre`) that split digits, then as GPT-2."""

_PROBE = "Heat (1995)\n  12 Angry Men\u00b2 don't, caf\u00e9 \u00bd <i>Alien\u00b3</i>"

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")

logger = get_logger(__name__)


def convert_gguf(
    gguf: str | Path,
    output_dir: str | Path,
    *,
    torch_dtype: Literal["float32", "bfloat16"] = "float32",
    licence: str | None = None,
    source: str | None = None,
) -> None:
    """Write a GGUF checkpoint as a folder that `from_pretrained` and the recipes take.

    The folder holds safetensors weights, tokenizer, chat template, generation config, a README.md,
    and in `gguf_source.json` what the weights came from; models trained on it carry that on.

    Args:
        gguf: The file.
        output_dir: Folder to write: a new or an empty one.
        torch_dtype: Dtype of the weights. float32 holds exactly what the file stands for.
        licence: The model's licence, in place of the one that the file states.
        source: The model that the file was made from (OWNER/NAME on the Hub), in place of the one
            that the file states.

    Raises:
        InputError: If the folder is not empty; if the file is missing, no GGUF, truncated, without
            tokenizer or chat template, or transformers cannot read its architecture; or if the
            package `gguf` is not installed.
    """
    place = Path(output_dir)
    _check_place(place)
    file = read_gguf(Path(gguf))
    with tempfile.TemporaryDirectory() as alone:
        # Alone and under a plain name: transformers would take files beside it for the model's.
        (Path(alone) / "model.gguf").symlink_to(file.path.resolve())
        _check_architecture(file, alone)
        tokenizer = _load_tokenizer(file, alone)
        model = _load_model(file, alone, torch_dtype)
    _check_weights(file, model, tokenizer)
    record = describe_source(file, torch_dtype, licence=licence, source=source)
    with replace_folder(place) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        if load_tokenizer(aside)(_PROBE)["input_ids"] != tokenizer(_PROBE)["input_ids"]:
            raise InputError(
                f"the tokenizer of {file.path} cannot be kept: for this architecture transformers "
                "loads another one from the folder; take the model's safetensors instead"
            )
        write_json(aside / SOURCE_FILE, record)
        write_text(aside / "README.md", source_card(record))
    logger.info("wrote %s in %s, from the %s file %s", place, torch_dtype, file.quantization, gguf)


def _check_place(place: Path) -> None:
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise InputError(f"{place} is not an empty folder; give a new one with --output_dir")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output_dir {place} cannot be a folder: {error.strerror}; give another one"
        ) from error


def _check_architecture(file: GgufFile, folder: str) -> None:
    try:
        AutoConfig.from_pretrained(folder, gguf_file="model.gguf")
    except Exception as error:  # transformers fails on keys it does not know in many ways
        raise _unreadable(file, error) from error


def _load_tokenizer(file: GgufFile, folder: str) -> PreTrainedTokenizerBase:
    """Return the file's tokenizer, which splits words as the file says.

    Raises:
        InputError: If it cannot be built, or its chat template shows no question and answer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    except Exception as error:  # tokenizers raises plain exceptions
        raise InputError(
            f"the tokenizer of GGUF file {file.path} cannot be read: {_reason(error)}"
        ) from error
    tokenizer = _of_the_file_alone(file, tokenizer)
    _set_word_split(file, tokenizer)
    ChatEncoder(tokenizer)  # a template that DELRec cannot use should be known now
    return tokenizer


def _of_the_file_alone(
    file: GgufFile, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """Return the tokenizer without the tokens of GPT-2 or Llama that transformers adds to it.

    They would stand behind the file's vocabulary, where the model has no rows for them. How and
    where it was loaded is left behind as well.
    """
    size = file.metadata["tokenizer.ggml.tokens"]
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < size]
    named = {name: getattr(tokenizer, name) for name in _NAMED_TOKENS}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        chat_template=tokenizer.chat_template,
        name_or_path=str(file.path),  # for messages; it is not saved
        **{
            name: token
            for name, token in named.items()
            if token is not None and tokenizer.convert_tokens_to_ids(token) < size
        },
    )


def _set_word_split(file: GgufFile, tokenizer: PreTrainedTokenizerBase) -> None:
    """Split digits apart where the vocabulary was learned so, which transformers does not know."""
    split = file.metadata.get("tokenizer.ggml.pre")
    backend = tokenizer.backend_tokenizer
    as_gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if backend.pre_tokenizer is None or repr(backend.pre_tokenizer) != repr(as_gpt2):
        return
    if split in _DIGITS_APART:
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, as_gpt2])
    elif split not in _GPT2_SPLIT:
        logger.warning(
            "%s says that its tokenizer splits words as `%s`, which transformers does not know: it "
            "splits them as GPT-2 does, and may cut numbers and white space otherwise than the "
            "model has learned",
            file.path,
            split,
        )


def _load_model(file: GgufFile, folder: str, torch_dtype: str) -> PreTrainedModel:
    """Return the model with plain weights.

    Raises:
        InputError: If transformers cannot read it, or weights are missing or of another shape.
    """
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file="model.gguf",
            dtype=torch_dtype,
            quantization_config=GgufConfig(dequantize=True),  # else it could not be saved
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    except Exception as error:  # see _check_architecture
        raise _unreadable(file, error) from error
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise InputError(
            f"GGUF file {file.path} lacks {len(missing)} weights of its architecture "
            f"`{file.architecture}` ({missing[0]}, ...); fetch it again, or give another file"
        )
    misfits = sorted(loaded["mismatched_keys"])
    if misfits:
        name, found, expected = misfits[0]
        raise InputError(
            f"the weights of GGUF file {file.path} do not fit its metadata: {name} is "
            f"{tuple(found)} and should be {tuple(expected)}; give another file"
        )
    if hasattr(model.config, "_model_name_or_path"):
        del model.config._model_name_or_path  # the file's title
    return model


def _check_weights(
    file: GgufFile, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Warn of what the file holds and the model has no place for.

    Raises:
        InputError: If the file's tokenizer has more tokens than its model.
    """
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer of GGUF file {file.path} has {len(tokenizer)} tokens and its model "
            f"{rows}; give another file"
        )
    unused = sum(file.weights.values()) - model.num_parameters()
    if unused > 0:
        logger.warning(
            "%d weights of %s have no place in transformers' `%s` and are left out%s; the model "
            "may answer otherwise than the file's",
            unused,
            file.path,
            model.config.model_type,
            " (rope_freqs.weight scales the positions)" * ("rope_freqs.weight" in file.tensors),
        )
    positions = getattr(model.config, "rope_parameters", None) or {}
    scaled = f"{file.architecture}.rope.scaling.factor" in file.metadata
    if scaled and positions.get("rope_type") == "default":
        logger.warning(
            "%s scales its positions and transformers does not read how: long prompts are read "
            "otherwise than by the file's model",
            file.path,
        )


def _unreadable(file: GgufFile, error: Exception) -> InputError:
    return InputError(
        f"GGUF file {file.path}, of architecture `{file.architecture}`, cannot be read by "
        f"transformers {transformers.__version__}: {_reason(error)}; give a file of a causal "
        "language model that it reads (llama, qwen2, gemma2, ...), or use the model's safetensors"
    )


def _reason(error: Exception) -> str:
    text = str(error).strip()
    plain = text and not isinstance(error, KeyError)  # which has the key alone
    return text.splitlines()[0].rstrip(".") if plain else repr(error)
