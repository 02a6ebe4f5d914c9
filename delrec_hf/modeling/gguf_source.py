"""What a folder's weights came from, where that was a GGUF file: the record and the card."""

import hashlib
import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.errors import HFValidationError

# There for everybody, and not in the list that the type checker reads.
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from delrec_hf.files import read_json
from delrec_hf.logging import get_logger
from delrec_hf.modeling.gguf_file import GgufFile
from delrec_hf.resources import card_environment

SOURCE_FILE = "gguf_source.json"

logger = get_logger(__name__)


def describe_source(
    file: GgufFile, torch_dtype: str, *, licence: str | None = None, source: str | None = None
) -> dict[str, Any]:
    """Return what `gguf_source.json` holds.

    Args:
        file: The GGUF file.
        torch_dtype: Dtype that its weights are written in.
        licence: The model's licence, in place of the one that the file states.
        source: The model that the file was made from, in place of the one that the file states.

    Returns:
        `source`, `licence` (each None where nobody knows), `file`, `sha256`, `architecture`,
        `quantization`, `is_quantized`, `weights`: how many are stored in each type, `torch_dtype`.
    """
    stated = {"source": file.source, "licence": file.licence}
    given = {"source": source, "licence": licence}
    for name, known in stated.items():
        if (given[name] or known or "").lower() != (known or given[name] or "").lower():
            logger.warning(
                "%s states the %s `%s`; recorded is the given `%s`",
                file.path,
                name,
                known,
                given[name],
            )
        elif not given[name] and not known:
            logger.warning("%s states no %s; where you know it, give --%s", file.path, name, name)
    with file.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        **{name: given[name] or known for name, known in stated.items()},
        "file": file.path.name,
        "sha256": digest,
        "architecture": file.architecture,
        "quantization": file.quantization,
        "is_quantized": file.is_quantized,
        "weights": dict(file.weights),
        "torch_dtype": torch_dtype,
    }


def read_source(folder: Path) -> dict[str, Any] | None:
    """Return the record of a backbone's folder, or None if it was not made from a GGUF file.

    Raises:
        InputError: If the record cannot be read.
    """
    path = folder / SOURCE_FILE
    return read_json(path) if path.is_file() else None


def hub_id(source: str | None) -> str | None:
    """Return a source that is a model's id on the Hub, OWNER/NAME; of anything else, None.

    >>> hub_id("HuggingFaceTB/SmolLM2-135M-Instruct")
    'HuggingFaceTB/SmolLM2-135M-Instruct'
    >>> hub_id("https://example.org/model")
    """
    try:
        validate_repo_id(source)
    except HFValidationError:
        return None
    return source if source and "/" in source else None


def source_card(record: dict[str, Any]) -> str:
    """Return the README.md of a folder that was made from a GGUF file."""
    environment = card_environment()
    environment.filters["code"] = _code
    upstream = hub_id(record["source"])
    header = ModelCardData(
        base_model=upstream,
        license=_licence_id(record["licence"]),
        library_name="transformers",
        pipeline_tag="text-generation",
    )
    return environment.get_template("backbone_card.md.jinja").render(
        header=header.to_yaml(), upstream=upstream, **record
    )


def _licence_id(licence: str | None) -> str | None:
    """Return a licence as the Hub's header has it; what is no id stands in the text alone."""
    name = (licence or "").lower()
    return name if re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name) else None


def _code(value: Any) -> str:
    r"""Return a value as Markdown shows it letter by letter, in a table's cell too.

    >>> print(_code("a|b\n`c`"))
    `a\|b 'c'`
    """
    text = " ".join(str(value).split()).replace("`", "'")
    return "`" + text.replace("|", "\\|") + "`"
