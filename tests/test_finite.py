"""Numbers that are not finite end a training, and are never saved, loaded or ranked with."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from transformers import Trainer

from delrec_hf.data.config import DataConfig
from delrec_hf.data.prepared import PreparedData, prepare
from delrec_hf.errors import InputError
from delrec_hf.files import write_json
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.teachers.config import TeacherConfig
from delrec_hf.teachers.learning.training import train_teacher
from delrec_hf.training.distillation import PatternDistillationTrainer
from delrec_hf.training.recommendation import RecommendationTrainer

Distiller = Callable[..., PatternDistillationTrainer]
Finetuner = Callable[..., RecommendationTrainer]


@pytest.fixture
def prompt(load_tiny: Callable[..., Any], save_prompt: Callable[..., Path]) -> Path:
    return save_prompt(load_tiny())


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare(DataConfig(path="toy"), tmp_path_factory.mktemp("toy") / "data")


@pytest.mark.parametrize("weighting", ["dynamic", "fixed"])
def test_stage_one_ends_at_the_first_loss_that_is_not_finite(
    distiller: Distiller, tmp_path: Path, weighting: str
) -> None:
    trainer = distiller(tmp_path, task_weighting=weighting, learning_rate=1e30)
    with pytest.raises(InputError, match="the loss is nan") as refused:
        trainer.train()
    assert f"`distil` ended at step {trainer.state.global_step + 1}: " in str(refused.value)
    assert "`distil.learning_rate` to less than 1e+30" in str(refused.value)
    assert "bfloat16 instead of float16" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert trainer.state.global_step < 4


@pytest.mark.parametrize("stacked", [True, False], ids=["delrec", "lora-only"])
def test_stage_two_ends_at_the_first_loss_that_is_not_finite(
    finetuner: Finetuner, prompt: Path, tmp_path: Path, stacked: bool
) -> None:
    trainer = finetuner(
        tmp_path,
        prompt if stacked else None,
        learning_rate=1e30,
        gradient_accumulation_steps=2,
        save_strategy="steps",
        save_steps=1,
    )
    with pytest.raises(InputError, match=r"`finetune` ended at step 2: the loss is nan"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
    for value in load_file(tmp_path / "checkpoint-1" / "adapter_model.safetensors").values():
        assert value.isfinite().all()


def test_a_gradient_that_is_not_finite_ends_the_training(
    finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    trainer = finetuner(tmp_path, prompt)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    weight = next(value for value in trainer.model.parameters() if value.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(InputError, match=r"ended at step 1: the gradient is (nan|inf)"):
        trainer.train()
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, before[name]), name


def test_weights_that_the_last_step_made_too_large_are_refused(
    finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    trainer = finetuner(
        tmp_path, prompt, max_steps=1, optim="sgd", learning_rate=3e38, max_grad_norm=0
    )
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.register_hook(lambda gradient: gradient * 1e6)
    with pytest.raises(InputError, match="ended at step 1: a weight is inf"):
        trainer.train()
    with pytest.raises(InputError, match="a weight is inf"):
        trainer.save_model(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


def test_a_float16_backbone_that_overflows_is_named_with_the_cure(
    finetuner: Finetuner, load_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    backbone = load_tiny(torch_dtype="float16")
    backbone.get_input_embeddings().weight.data *= 1e4
    with pytest.raises(InputError, match=r"ended at step 1.*bfloat16 instead of float16"):
        finetuner(tmp_path, None, backbone).train()


@pytest.fixture
def in_float16(monkeypatch: pytest.MonkeyPatch) -> Callable[[Trainer, float], None]:
    """A function that gives a trainer float16 and its loss scaler, which accelerate has for GPUs.

    Both run on a CPU as well.
    """

    def switch(trainer: Trainer, scale: float) -> None:
        monkeypatch.setitem(AcceleratorState._shared_state, "_mixed_precision", "fp16")
        trainer.accelerator.native_amp = True
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    return switch


@pytest.mark.parametrize("weighting", ["dynamic", "fixed"])
def test_steps_that_the_loss_scaler_leaves_out_do_not_end_the_training(
    distiller: Distiller,
    in_float16: Callable[[Trainer, float], None],
    tmp_path: Path,
    weighting: str,
) -> None:
    trainer = distiller(tmp_path, max_steps=12, task_weighting=weighting)
    in_float16(trainer, 2.0**24)
    before = trainer.model.soft_prompt.detach().clone()
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    left_out = sum("grad_norm" not in entry for entry in log)
    assert 2 < left_out < len(log) == 12
    assert all(math.isfinite(value) for entry in log for value in entry.values())
    assert not torch.equal(trainer.model.soft_prompt, before)


@pytest.mark.parametrize(("steps", "last"), [(30, 20), (3, 3)])
def test_a_loss_scaler_that_leaves_out_every_step_ends_the_training(
    distiller: Distiller,
    in_float16: Callable[[Trainer, float], None],
    tmp_path: Path,
    steps: int,
    last: int,
) -> None:
    trainer = distiller(tmp_path, max_steps=steps)
    in_float16(trainer, 2.0**40)
    with pytest.raises(InputError, match=rf"ended at step {last}: the gradient is"):
        trainer.train()


def test_validation_with_a_loss_that_is_not_finite_is_refused(
    distiller: Distiller, finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    for trainer in (distiller(tmp_path), finetuner(tmp_path, prompt)):
        trainer.model.soft_prompt.data.fill_(math.nan)
        with pytest.raises(InputError, match=r"`eval.*loss` is nan"):
            trainer.evaluate()


def test_validation_with_scores_that_are_not_finite_is_refused(
    distiller: Distiller, tmp_path: Path
) -> None:
    trainer = distiller(tmp_path)
    trainer.model.soft_prompt.data.fill_(math.nan)
    with pytest.raises(InputError, match="instead of float16"):
        trainer.ranked(trainer._ranking_rows["rps"])


def test_a_teachers_training_ends_at_the_first_loss_that_is_not_finite(
    toy: PreparedData, tmp_path: Path
) -> None:
    config = TeacherConfig(
        output_dir=str(tmp_path / "checkpoints"),
        learning_rate=1e30,
        hidden_size=16,
        max_steps=5,
        use_cpu=True,
        disable_tqdm=True,
    )
    with pytest.raises(InputError, match=r"`teacher` ended at step [23]: the loss is nan"):
        train_teacher(toy, config, tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()


@pytest.mark.parametrize("part", [".", "prompt"])
def test_an_artefact_with_a_weight_that_is_not_finite_is_refused(
    make_artefact: Callable[..., Path], part: str
) -> None:
    folder = make_artefact()
    path = folder / part / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] = math.nan
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="holds numbers that are not finite"):
        DelRecModel.from_pretrained(folder)


def test_no_checkpoint_with_a_weight_that_is_not_finite_is_resumed(
    finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    finetuner(tmp_path, prompt, max_steps=1, save_strategy="steps", save_steps=1).train()
    path = tmp_path / "checkpoint-1" / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).fill_(math.inf)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="holds numbers that are not finite"):
        finetuner(tmp_path, prompt).train(resume_from_checkpoint=str(path.parent))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_stays_json(tmp_path: Path, value: float) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"hr@1": 0.5})
    with pytest.raises(ValueError, match=r"results\.json is not written"):
        write_json(path, {"hr@1": value})
    assert json.loads(path.read_text()) == {"hr@1": 0.5}
