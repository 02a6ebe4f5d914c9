"""What a GGUF file says about itself, and what is wrong with it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delrec_hf.errors import InputError

if TYPE_CHECKING:
    from gguf import GGUFReader

_MAGIC = b"GGUF"
_PLAIN_TYPES = ("F64", "F32", "F16", "BF16")
_HUB = "https://huggingface.co/"
# Where converters write which model they converted. `general.repo_url` may be the converted one's,
# and `general.base_model` is what that model was itself trained from.
_SOURCE_KEYS = (
    "general.source.huggingface.repository",
    "general.source.repo_url",
    "general.source.url",
)
_LICENCE_KEYS = ("general.license.name", "general.license")


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file says about itself.

    Attributes:
        path: Where it lies.
        metadata: Its keys and values; a list, such as the vocabulary, is given by its length.
        weights: How many weights are stored in each type, such as `{"Q4_1": 106168320}`.
        tensors: The names of its tensors.
    """

    path: Path
    metadata: Mapping[str, Any]
    weights: Mapping[str, int]
    tensors: frozenset[str]

    @property
    def architecture(self) -> str:
        """The architecture's name in llama.cpp, such as `llama`."""
        return str(self.metadata["general.architecture"])

    @property
    def quantization(self) -> str:
        """The type of the file as its name usually has it (`Q4_K_M`), or that of most weights."""
        from gguf import LlamaFileType

        names = {int(one): one.name for one in LlamaFileType}
        known = names.get(self.metadata.get("general.file_type", -1))
        if known is None:
            return max(self.weights, key=lambda name: self.weights[name])
        return known.removeprefix("MOSTLY_").removeprefix("ALL_")

    @property
    def is_quantized(self) -> bool:
        """Whether any weight was rounded to a block type."""
        return any(name not in _PLAIN_TYPES for name in self.weights)

    @property
    def source(self) -> str | None:
        """The model that was converted: an id on the Hub or an address, where the file has it."""
        stated = self._first(_SOURCE_KEYS)
        return None if stated is None else stated.removeprefix(_HUB).rstrip("/")

    @property
    def licence(self) -> str | None:
        """The licence that the file states."""
        return self._first(_LICENCE_KEYS)

    def _first(self, keys: tuple[str, ...]) -> str | None:
        found = (self.metadata.get(key) for key in keys)
        return next((one for one in found if isinstance(one, str) and one.strip()), None)


def read_gguf(path: Path) -> GgufFile:
    """Read what a GGUF file says about itself, and check that it holds a whole chat model.

    Args:
        path: The file.

    Raises:
        InputError: If there is no such file, the package `gguf` is not installed, or the file is no
            GGUF, truncated, one part of several, or without tokenizer or chat template.
    """
    _check_magic(path)
    reader = _open(path)
    weights: Counter[str] = Counter()
    for tensor in reader.tensors:
        weights[tensor.tensor_type.name] += int(tensor.n_elements)
    file = GgufFile(
        path=path,
        metadata={name: _value(field) for name, field in reader.fields.items()},
        weights=dict(weights),
        tensors=frozenset(tensor.name for tensor in reader.tensors),
    )
    _check_content(file)
    return file


def _check_magic(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"GGUF file {path} is not there; give the path of one with --gguf")
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_MAGIC))
    except OSError as error:
        raise InputError(f"GGUF file {path} cannot be read: {error.strerror}") from error
    if start != _MAGIC:
        raise InputError(
            f"{path} is no GGUF file: it begins with {start!r} instead of {_MAGIC!r}; give another "
            "one with --gguf (a folder of safetensors needs no conversion)"
        )


def _open(path: Path) -> "GGUFReader":
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise InputError(
            "reading a GGUF file needs the package gguf; install it with "
            "`pip install 'delrec-hf[gguf]'` (in a checkout: `pip install -c constraints.txt gguf`)"
        ) from error
    try:
        return GGUFReader(path)
    # What the reader stumbles over where a file ends early, or holds bytes that mean nothing.
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        size = path.stat().st_size
        raise InputError(
            f"GGUF file {path} is truncated or damaged ({size:,} bytes; {type(error).__name__}: "
            f"{_one_line(error)}); fetch it again and compare its size with that at its source"
        ) from error


def _check_content(file: GgufFile) -> None:
    known = file.metadata
    if not isinstance(known.get("general.architecture"), str) or not file.tensors:
        raise InputError(
            f"GGUF file {file.path} holds no model: it names no architecture or has no weights; "
            "give that of a language model"
        )
    parts = known.get("split.count", 1)
    if parts > 1:
        raise InputError(
            f"GGUF file {file.path} is one of {parts} parts; put them together with llama.cpp's "
            "`llama-gguf-split --merge`, and give the whole file"
        )
    if not known.get("tokenizer.ggml.tokens"):
        raise InputError(
            f"GGUF file {file.path} holds no tokenizer (`tokenizer.ggml.tokens`); convert the "
            "model again from a folder that has its tokenizer, or give another file"
        )
    if not known.get("tokenizer.chat_template"):
        raise InputError(
            f"GGUF file {file.path} holds no chat template, and DELRec asks in chats; give the "
            "file of the model's instruct or chat version, or add its template with "
            f"`gguf-new-metadata --chat-template-file TEMPLATE.jinja {file.path.name} NEW.gguf`"
        )


def _value(field: Any) -> Any:
    """Return a field's value; of a list its length, which may be hundreds of thousands."""
    from gguf import GGUFValueType

    return len(field.data) if field.types[:1] == [GGUFValueType.ARRAY] else field.contents()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
