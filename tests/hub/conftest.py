import json
from pathlib import Path
from typing import Any

import pytest

RAW = {"kind": "raw", "smoothing": 0.0, "floor": -9.5}
WEIGHTS: dict[str, Any] = {
    "delrec": {"weight": 0.0712, "ci95": [0.0613, 0.0811], "scale": RAW},
    "teacher": {"weight": 0.845, "ci95": [0.699, 0.991], "scale": RAW},
}
CONFIG: dict[str, Any] = {
    "format_version": 3,
    "base_model": {
        "name": "Qwen/Qwen3-0.6B",
        "revision": "c1899de289a0",
        "sha256": None,
        "torch_dtype": "bfloat16",
        "quantization": None,
    },
    "teacher": {"type": "sasrec", "hidden_size": 64, "num_layers": 2, "dropout": 0.2},
    "domain": {"item": "movie", "items": "movies", "chosen": "watched", "choose": "watch"},
    "template_version": 1,
    "history_length": 10,
    "num_candidates": 20,
    "scoring": "sum",
    "data": {
        "dataset": "ml-100k",
        "terms": "research use | no redistribution",
        "split": "leave-one-out",
        "users": 943,
        "items": 1682,
        "interactions": 99287,
        "seed": 42,
    },
    "distil": {
        "num_virtual_tokens": 80,
        "learning_rate": 0.005,
        "optim": "lion",
        "init_text": None,
    },
    "finetune": {"lora_r": 8, "target_modules": ["q_proj", "v_proj"], "weight_decay": 1e-06},
    "versions": {"peft": "0.21.2", "trl": "1.16.0"},
    "fusion": WEIGHTS,
}


def _system(hr: float) -> dict[str, Any]:
    names = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr")
    values = {name: round(hr + 0.0711 * place, 4) for place, name in enumerate(names)}
    values["log_loss"] = round(3 - hr, 4)
    bounds = {name: [round(v - 0.031, 4), round(v + 0.029, 4)] for name, v in values.items()}
    return {**values, "ci95": bounds, "seconds": 61.25}


RESULTS: dict[str, Any] = {
    "protocol": {
        "dataset": "ml-100k",
        "split": "leave-one-out",
        "users": 943,
        "num_candidates": 20,
        "history_length": 10,
        "seeds": [42],
        "tie_rule": "expected value under random tie-breaking",
    },
    "systems": {
        name: _system(hr)
        for name, hr in {"random": 0.0518, "teacher/sasrec": 0.2873, "delrec": 0.3127}.items()
    }
    | {"delrec+teacher": {**_system(0.3419), "weights": WEIGHTS}},
    "comparisons": [
        {"a": "delrec", "b": "teacher/sasrec", "metric": "hr@1", "difference": 0.0254}
        | {"ci95": [-0.0063, 0.0571], "p": 0.1139}
    ],
    "distillation": {"prompt-only": {"agreement": 0.5321, "ci95": [0.5013, 0.5637], "users": 943}},
}

FILES = (
    "adapter_model.safetensors",
    "prompt/adapter_model.safetensors",
    "catalogue.parquet",
    "teacher/model.safetensors",
    "chat_template.jinja",
    "tokenizer.json",
)


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """A folder with the files of an artefact; only the JSON ones have real content."""
    folder = tmp_path / "model"
    for name in ("prompt", "teacher"):
        (folder / name).mkdir(parents=True)
    for number, name in enumerate(FILES):
        (folder / name).write_bytes(b"x" * (1000 + number))
    adapter = {"base_model_name_or_path": "Qwen/Qwen3-0.6B"}
    for name, content in {
        "adapter_config.json": adapter,
        "prompt/adapter_config.json": {**adapter, "tokenizer_name_or_path": None},
        "tokenizer_config.json": {"eos_token": "/s", "extra": ["/think/", "/no_think"]},
        "delrec_config.json": CONFIG,
        "results.json": RESULTS,
        "teacher/config.json": {"model_type": "delrec_sasrec"},
        "teacher/teacher.json": {"type": "sasrec"},
    }.items():
        (folder / name).write_text(json.dumps(content))
    return folder
