"""Stage 2 in two processes that hold a part of the weights each is the stage 2 of one process."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from delrec_hf.errors import InputError
from delrec_hf.training.recommendation import RecommendationTrainer
from tests.processes import run_in
from tests.sharding import NEEDS_DEEPSPEED
from tests.training.sharded_processes import learn

FILES = ("adapter_model.safetensors", "prompt/adapter_model.safetensors")

pytestmark = pytest.mark.slow


@pytest.fixture
def backbone_and_prompt(
    tiny_backbone: Callable[[str], Path],
    load_tiny: Callable[..., Any],
    save_prompt: Callable[..., Path],
) -> Callable[[str], tuple[str, str]]:
    """A function that returns the folders of a backbone and of a soft prompt for it."""

    def make(shape: str) -> tuple[str, str]:
        return str(tiny_backbone(shape)), str(save_prompt(load_tiny(shape)))

    return make


def logged(out: Path) -> list[dict[str, float]]:
    """Return what a training logged, but for its times and what the Trainer sums up."""
    other = ("_runtime", "_per_second", "total_flos", "train_loss")
    history = json.loads(out.with_suffix(".json").read_text())
    return [{key: one[key] for key in one if not key.endswith(other)} for one in history]


def assert_same_adapters(one: Path, two: Path, files: tuple[str, ...] = FILES) -> None:
    for name in files:
        expected, found = load_file(one / name), load_file(two / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4)


def checkpoint(out: Path, step: int) -> Path:
    return out.with_suffix(".checkpoints") / f"checkpoint-{step}"


@pytest.mark.parametrize(
    ("kind", "shape", "loss"),
    [
        ("fsdp2", "llama-64", "title"),
        ("fsdp2", "llama-64", "listwise"),
        ("fsdp2", "qwen3-64-tied", "listwise"),
        ("fsdp2", "gemma3-64-tied", "title"),
        ("fsdp2", "gpt_neox-64", "listwise"),
        pytest.param("zero2", "llama-64", "title", marks=NEEDS_DEEPSPEED),
        pytest.param("zero2", "llama-64", "listwise", marks=NEEDS_DEEPSPEED),
        pytest.param("zero3", "llama-64", "title", marks=NEEDS_DEEPSPEED),
        pytest.param("zero3", "gemma3-64-tied", "listwise", marks=NEEDS_DEEPSPEED),
    ],
)
def test_two_processes_learn_what_one_learns(
    backbone_and_prompt: Callable[[str], tuple[str, str]],
    tmp_path: Path,
    kind: str,
    shape: str,
    loss: str,
) -> None:
    backbone, prompt = backbone_and_prompt(shape)
    one, two = tmp_path / "one", tmp_path / "two"
    run_in(1, partial(learn, loss=loss), one, backbone, prompt, 1)
    run_in(2, partial(learn, loss=loss, kind=kind), two, backbone, prompt, 2)
    for expected, found in zip(logged(one), logged(two), strict=True):
        # TRL's own way of learning titles, which shards take, logs more.
        shared = {name: found[name] for name in expected}
        assert shared == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert_same_adapters(one, two)
    for step in (1, 2, 3):  # in checkpoints, too, LoRA and the prompt are whole
        assert_same_adapters(*(checkpoint(out, step) for out in (one, two)))


@pytest.mark.parametrize(
    "kind",
    [
        "ddp",
        "fsdp2",
        pytest.param("zero2", marks=NEEDS_DEEPSPEED),
        pytest.param("zero3", marks=NEEDS_DEEPSPEED),
    ],
)
def test_two_processes_go_on_from_a_checkpoint_bit_for_bit(
    backbone_and_prompt: Callable[[str], tuple[str, str]], tmp_path: Path, kind: str
) -> None:
    """They go on in front of an epoch's last batch, which they share unevenly."""
    backbone, prompt = backbone_and_prompt("llama-64")
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    given = {"loss": "listwise", "optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 4}
    given |= {"kind": kind}
    run_in(2, partial(learn, **given), straight, backbone, prompt, 2)
    again = given | {"resume_from_checkpoint": str(checkpoint(straight, 2))}
    run_in(2, partial(learn, **again), resumed, backbone, prompt, 2)
    for name in FILES:
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()
    assert logged(resumed) == logged(straight)


@pytest.mark.parametrize(
    ("version", "said_of_backbone", "told"),
    [
        (1, {}, "`fsdp_version: 1`; expected 2"),
        (2, {"is_quantized": True}, "leaves weights of 4 and 8 bits whole"),
        (2, {"_is_stateful": True}, "in one forward: it keeps a running state"),
    ],
)
def test_what_cannot_be_cut_up_is_refused(
    finetuner: Callable[..., RecommendationTrainer],
    load_tiny: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    version: int,
    said_of_backbone: dict[str, bool],
    told: str,
) -> None:
    backbone = load_tiny()
    trainer = finetuner(tmp_path, None, backbone, loss="listwise")
    plugin = SimpleNamespace(fsdp_version=version)
    monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", plugin, raising=False)
    vars(backbone).update(said_of_backbone)

    def check() -> None:  # as under a launcher, whose processes this test spares
        trainer._check_fsdp()
        trainer._check_shards("FSDP")

    with pytest.raises(InputError) as refused:
        check()
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_optimizer_of_bitsandbytes_is_refused_in_shards(
    finetuner: Callable[..., RecommendationTrainer], tmp_path: Path
) -> None:
    trainer = finetuner(tmp_path, None, loss="listwise", optim="lion_32bit")
    trainer.is_fsdp_enabled = True
    with pytest.raises(InputError, match=r"set `finetune\.optim: adamw_torch_fused`"):
        trainer.create_optimizer()
