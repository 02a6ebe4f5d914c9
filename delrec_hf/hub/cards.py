"""A model's card, written from what its folder records and nothing else."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError

# There for everybody, and not in the list that the type checker reads.
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from delrec_hf.errors import InputError
from delrec_hf.evaluation.metrics import METRICS
from delrec_hf.evaluation.notes import weighed
from delrec_hf.evaluation.report import format_markdown
from delrec_hf.evaluation.table import escape
from delrec_hf.files import read_json
from delrec_hf.modeling.artefact import CONFIG_FILE
from delrec_hf.modeling.gguf_source import hub_id
from delrec_hf.reporting.reading import PICTURE_FILE
from delrec_hf.resources import card_environment

RESULTS_FILE = "results.json"

SECTIONS = ("base_model", "teacher", "domain", "data", "distil", "finetune", "versions")
"""What `delrec_config.json` must hold for a card."""

TAGS = ("delrec", "recommendation", "lora")
SYSTEM = "delrec"  # the system of results.json that the artefact is


def model_card(folder: Path, repo_id: str | None = None) -> str:
    """Return the card of an artefact: its YAML header and its text.

    Every number in it stands in `delrec_config.json` or `results.json`. Without `results.json` the
    card says that nothing was measured.

    Args:
        folder: The artefact's folder.
        repo_id: Name on the Hub that the card's examples load, if there is one.

    Raises:
        InputError: If `delrec_config.json` is missing, or a file of the two cannot be read.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(
            f"{folder} is no DELRec model: {CONFIG_FILE} is missing; give the folder `model` of a "
            "finished run"
        )
    config = read_facts(folder / CONFIG_FILE)
    missing = [name for name in SECTIONS if not isinstance(config.get(name), dict)]
    if missing:
        raise InputError(
            f"{folder / CONFIG_FILE} lacks {', '.join(missing)}; make the model again with "
            "`delrec run`"
        )
    measured = folder / RESULTS_FILE
    results = read_facts(measured) if measured.is_file() else None
    try:
        return _render(config, results, repo_id, (folder / PICTURE_FILE).is_file())
    except (KeyError, jinja2.UndefinedError) as error:
        raise InputError(
            f"the card of {folder} cannot be written: {CONFIG_FILE} or {RESULTS_FILE} lacks {error}"
            "; make the model again with `delrec run`"
        ) from error


def _render(
    config: dict[str, Any], results: dict[str, Any] | None, repo_id: str | None, pictured: bool
) -> str:
    environment = card_environment()
    environment.filters |= {"md": _markdown_value, "py": json.dumps, "rows": _rows}
    environment.filters |= {"arguments": _arguments, "sh": _shell_word}
    environment.filters["fusion"] = lambda parts: escape(weighed(parts))
    return environment.get_template("model_card.md.jinja").render(
        header=_header(config, results, repo_id),
        config=config,
        base_on_hub=_base_on_hub(config),
        upstream=_upstream(config),
        prompt="cartridge of keys and values" if _has_cartridge(config) else "soft prompt",
        loading=_loading(config["base_model"]),
        repo_id=repo_id,
        results=results and format_markdown(results),
        picture=PICTURE_FILE if pictured and results else None,
    )


def _header(config: dict[str, Any], results: dict[str, Any] | None, repo_id: str | None) -> str:
    base = _base_on_hub(config) or _upstream(config)
    dataset = " ".join(str(config["data"]["dataset"]).split())
    measured = (results or {}).get("systems", {}).get(SYSTEM, {})
    name = repo_id.rpartition("/")[2] if repo_id else "DELRec"
    prompt = "cartridge" if _has_cartridge(config) else "prompt-tuning"
    data = ModelCardData(
        base_model=base,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=[*TAGS, prompt, *([f"base_model:adapter:{base}"] if base else [])],
        datasets=[dataset] if _is_hub_id(dataset) else None,
        metrics=[metric for metric in METRICS if metric in measured] or None,
        model_name=name if measured else None,
        eval_results=_eval_results(measured, results or {}, dataset) or None,
    )
    return data.to_yaml()


def _has_cartridge(config: dict[str, Any]) -> bool:
    return bool(config["distil"].get("prompt_type") == "cartridge")


def _eval_results(
    measured: Mapping[str, Any], results: dict[str, Any], dataset: str
) -> list[EvalResult]:
    candidates = results.get("protocol", {}).get("num_candidates")
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Sequential recommendation",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split="test",
            metric_type=metric,
            metric_name=f"{metric.upper()} of {candidates} candidates",
            metric_value=measured[metric],
        )
        for metric in METRICS
        if metric in measured
    ]


def _base_on_hub(config: Mapping[str, Any]) -> str | None:
    """Return the backbone's Hub id; a local backbone, known by its weights' hash, has none."""
    base = config["base_model"]
    return str(base["name"]) if base.get("sha256") is None else None


def _upstream(config: Mapping[str, Any]) -> str | None:
    """Return the Hub id of the model that a GGUF file came from, which became the backbone."""
    return hub_id((config["base_model"].get("gguf") or {}).get("source"))


def _loading(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the lines say that load the backbone without delrec_hf.

    Returns:
        Its `place`; the `arguments` of `from_pretrained`; the arguments of `BitsAndBytesConfig`,
        `quantization`; and whether bitsandbytes `packs` its weights on some CPUs.
    """
    on_hub = base.get("sha256") is None
    quantization = base.get("quantization") or {}
    own = quantization.get("pre_quantized")  # quantised in its own files: they say how
    revision = {"revision": base["revision"]} if on_hub and base["revision"] else {}
    return {
        "place": base["name"] if on_hub else "PATH_OF_THE_BACKBONE",
        "arguments": {**revision, "dtype": base.get("torch_dtype", "auto")},
        "quantization": {} if own else quantization,
        "packs": "load_in_4bit" in quantization or own == "bitsandbytes",
    }


def _arguments(given: Mapping[str, Any]) -> str:
    """Return keyword arguments as Python reads them, a line each.

    >>> print(_arguments({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}))
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
    """
    values = {name: json.dumps(v) if isinstance(v, str) else repr(v) for name, v in given.items()}
    return "\n".join(f"    {n}={value}," for n, value in values.items() if n.isidentifier())


def _shell_word(value: str) -> str:
    """Return a text as one word of a command line, on one line."""
    return shlex.quote(" ".join(value.split()))


def _is_hub_id(name: str) -> bool:
    """Say whether a dataset's name is that of a Hub dataset, OWNER/NAME."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def _rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return settings as escaped cells; what is not set is left out."""
    return [
        (escape(str(name)), _markdown_value(value))
        for name, value in settings.items()
        if value is not None
    ]


def _markdown_value(value: Any) -> str:
    """Return a value as the JSON files show it; texts without their quotes."""
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def read_facts(path: Path) -> dict[str, Any]:
    """Return the keys and values of a JSON file of an artefact.

    Args:
        path: The file, which is there.

    Raises:
        InputError: If it holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no keys and values; make the model again")
    return content
