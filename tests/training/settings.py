"""Settings that several tests of both stages train with."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from delrec_hf.modeling.backbone import BackboneConfig, load_backbone
from delrec_hf.resources import resource

PLAIN_GRADIENT: dict[str, Any] = {
    "max_steps": 3,
    "optim": "sgd",  # an optimizer that divides by the gradient's size would hide a wrong one
    "learning_rate": 1.0,
    "max_grad_norm": 0,
    "logging_steps": 1,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}
"""Three steps that move weights by the gradient itself, and nothing else."""


def plain_settings(output_dir: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Four steps with a log line each, the keys given over them."""
    plain = {
        "output_dir": str(output_dir),
        "loss": "title",
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "logging_steps": 1,
        "max_steps": 4,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "gradient_checkpointing": False,
        "lr_scheduler_type": "constant",
    }
    return plain | given


def every(steps: int) -> dict[str, Any]:
    """Validate and save every so many steps, and keep the best."""
    return {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": steps,
        "save_steps": steps,
        "load_best_model_at_end": True,
    }


def toy_backbone() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the shipped backbone."""
    place = str(resource("recipes/backbones/toy"))
    return load_backbone(BackboneConfig(model_name_or_path=place, torch_dtype="float32"))
