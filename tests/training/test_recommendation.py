"""Stage 2: only LoRA moves, behind a prompt that does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from datasets import Dataset
from peft import PeftModel

from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.rows import ranking_rows
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.scoring import Scoring
from delrec_hf.training.recommendation import RecommendationTrainer, with_lora
from delrec_hf.training.trainer import RankingTrainer
from tests.film_rows import ITEMS
from tests.training.settings import every

Finetuner = Callable[..., RecommendationTrainer]


@pytest.fixture
def prompt(load_tiny: Callable[..., Any], save_prompt: Callable[..., Path]) -> Path:
    return save_prompt(load_tiny())


def _copies(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("shape", ["qwen2", "llama", "gemma2", "gpt_neox", "gpt2"])
def test_every_lora_matrix_moves_and_prompt_and_backbone_keep_every_bit(
    finetuner: Finetuner,
    load_tiny: Callable[..., Any],
    save_prompt: Callable[..., Path],
    tmp_path: Path,
    shape: str,
) -> None:
    backbone = load_tiny(shape)
    trainer = finetuner(tmp_path, save_prompt(backbone), backbone)
    before = _copies(trainer.model)
    trainer.train()
    moved = {
        name
        for name, value in _copies(trainer.model).items()
        if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if ".lora_" in name}
    assert len(moved) >= 4


def test_lora_alone_trains_every_lora_matrix(finetuner: Finetuner, tmp_path: Path) -> None:
    trainer = finetuner(tmp_path, None)
    assert not isinstance(trainer.model, DelRecModel)
    before = _copies(trainer.model)
    trainer.train()
    moved = {
        name
        for name, value in _copies(trainer.model).items()
        if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if ".lora_" in name}
    assert len(moved) == 8


def test_lora_learns_to_recommend(finetuner: Finetuner, prompt: Path, tmp_path: Path) -> None:
    trainer = finetuner(tmp_path, prompt, max_steps=40, per_device_train_batch_size=6)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 2


def test_the_prompt_takes_part_in_the_loss(
    finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    with_prompt = finetuner(tmp_path, prompt).evaluate()["eval_loss"]
    without = finetuner(tmp_path, None).evaluate()["eval_loss"]
    assert abs(with_prompt - without) > 1e-3


@pytest.mark.parametrize("loss", ["title", "listwise"])
@pytest.mark.parametrize("stacked", [True, False], ids=["delrec", "lora-only"])
def test_resumed_training_equals_straight_training_bit_for_bit(
    finetuner: Finetuner, prompt: Path, tmp_path: Path, stacked: bool, loss: str
) -> None:
    settings: dict[str, Any] = {
        "loss": loss,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "linear",
        "lora_dropout": 0.1,
    }
    straight = finetuner(tmp_path / "straight", prompt if stacked else None, **settings)
    straight.train()
    resumed = finetuner(tmp_path / "resumed", prompt if stacked else None, **settings)
    for name, parameter in resumed.model.named_parameters():
        if parameter.requires_grad or name.startswith("prompt_encoder."):
            parameter.data.fill_(0.5)  # all must come from the checkpoint
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    expected = dict(straight.model.named_parameters())
    found = dict(resumed.model.named_parameters())
    assert expected.keys() == found.keys(), "resuming made another adapter"
    for name, value in expected.items():
        # Exact: a checkpoint is copied into weights laid out as ever, and the same batches follow.
        assert torch.equal(value, found[name]), name
        assert value.requires_grad == found[name].requires_grad, name


def test_the_best_checkpoint_brings_both_adapters_back(
    finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    trainer = finetuner(
        tmp_path,
        prompt,
        metric_for_best_model="loss",
        greater_is_better=True,  # the loss falls, so the first checkpoint counts as the best
        learning_rate=0.05,
        **every(1),
        save_total_limit=None,
    )
    soft_prompt = trainer.model.soft_prompt.detach().clone()
    super(RankingTrainer, trainer).train()  # the start has the highest loss of all
    losses = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
    assert losses[-1] < max(losses), "the last one counts as the best: the test shows nothing"
    assert trainer.evaluate()["eval_loss"] == pytest.approx(max(losses), abs=1e-6)
    assert torch.equal(trainer.model.soft_prompt, soft_prompt)


def test_a_checkpoint_holds_both_adapters_and_no_card(
    finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    finetuner(tmp_path, prompt, max_steps=1, save_strategy="steps", save_steps=1).train()
    folder = tmp_path / "checkpoint-1"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "prompt/adapter_config.json",
        "prompt/adapter_model.safetensors",
    } <= names
    assert not {"README.md", "model.safetensors"} & names


@pytest.mark.parametrize("loss", ["title", "listwise"])
@pytest.mark.parametrize("stacked", [True, False], ids=["delrec", "lora-only"])
def test_gradient_checkpointing_gives_the_same_lora(
    finetuner: Finetuner, prompt: Path, tmp_path: Path, stacked: bool, loss: str
) -> None:
    found = []
    for on in (False, True):
        folder = prompt if stacked else None
        settings = {"loss": loss, "gradient_checkpointing": on, "lora_dropout": 0.0}
        trainer = finetuner(tmp_path / str(on), folder, **settings)
        trainer.train()
        found.append({n: p for n, p in trainer.model.named_parameters() if ".lora_" in n})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["lora", "adalora"])
@pytest.mark.parametrize("loss", ["title", "listwise"])
def test_two_micro_batches_of_two_equal_one_batch_of_four(
    finetuner: Finetuner, prompt: Path, tmp_path: Path, loss: str, kind: str
) -> None:
    found = []
    for size, steps in ((4, 1), (2, 2)):
        trainer = finetuner(
            tmp_path / str(size),
            prompt,
            loss=loss,
            lora_type=kind,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            lora_dropout=0.0,
            optim="sgd",
            learning_rate=0.1 if loss == "title" else 0.001,  # rankings make larger gradients
            max_grad_norm=0,
        )
        trainer.train()
        found.append({n: p for n, p in trainer.model.named_parameters() if ".lora_" in n})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-5, rtol=0)


def test_validation_reports_loss_and_hits(
    finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    trainer = finetuner(tmp_path, prompt, eval_strategy="steps", eval_steps=2)
    trainer.train()
    logged = {name: entry[name] for entry in trainer.state.log_history for name in entry}
    assert logged["eval_loss"] > 0
    assert 0 <= logged["eval_hr@1"] <= 1


@pytest.mark.parametrize("scoring", ["sum", "mean"])
def test_validation_scores_candidates_as_they_will_be_ranked(
    finetuner: Finetuner,
    encoded_rows: Callable[..., Dataset],
    instruction_rows: Callable[..., Dataset],
    encoder: ChatEncoder,
    prompt: Path,
    tmp_path: Path,
    scoring: Literal["sum", "mean"],
) -> None:
    plain = finetuner(tmp_path, prompt)
    rows = ranking_rows(instruction_rows("lsr", 12, seed=1), encoder, ITEMS)
    chosen: dict[str, list[int]] = {"sum": [], "mean": []}
    for row in rows:
        gained = []
        for title in row["candidate_ids"]:
            ids = torch.tensor([row["prompt_ids"] + title])
            with torch.inference_mode():
                logits = plain.model.eval()(input_ids=ids).logits[0, -len(title) - 1 : -1]
            gained.append(logits.log_softmax(-1)[range(len(title)), title])
        chosen["sum"].append(int(torch.stack([one.sum() for one in gained]).argmax()))
        chosen["mean"].append(int(torch.stack([one.mean() for one in gained]).argmax()))
    assert chosen["sum"] != chosen["mean"], "both choose alike: the test shows nothing"
    rows = rows.remove_columns("target_place").add_column("target_place", chosen[scoring])
    trainer = RecommendationTrainer(
        model=plain.model,
        args=plain.args,
        train_rows=encoded_rows("lsr"),
        validation_rows=encoded_rows("lsr", 6, seed=1),
        ranking_rows=rows,
        processing_class=encoder.tokenizer,
        scoring=Scoring(scoring),
    )
    assert trainer.evaluate()["eval_hr@1"] == 1


def test_layers_that_are_not_there_are_refused(
    load_tiny: Callable[..., Any], finetune_config: Callable[..., Any], prompt: Path, tmp_path: Path
) -> None:
    config = finetune_config(tmp_path, lora_target_modules=["nowhere"])
    for folder in (prompt, None):
        with pytest.raises(InputError, match=r"finetune\.lora_target_modules") as refused:
            with_lora(load_tiny(), config, folder)
        assert "\n" not in str(refused.value)


def test_the_start_of_lora_is_seeded(
    load_tiny: Callable[..., Any], finetune_config: Callable[..., Any], prompt: Path, tmp_path: Path
) -> None:
    config = finetune_config(tmp_path)
    models: list[PeftModel] = []
    for _ in range(2):
        torch.manual_seed(torch.seed())
        models.append(with_lora(load_tiny(), config, prompt))
    first, second = map(_copies, models)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("lora_r", 0, "expected a rank of 1 or more"),
        ("packing", True, "read their neighbours"),
        ("padding_free", True, "read their neighbours"),
        ("assistant_only_loss", True, "learns from the answer alone"),
        ("completion_only_loss", False, "learns from the answer alone"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(
    finetune_config: Callable[..., Any], tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        finetune_config(tmp_path, **{key: value})
    assert "`finetune" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_rows_longer_than_the_limit_are_refused_not_cut(
    finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"tokens, more than the 20 that"):
        finetuner(tmp_path, prompt, max_length=20)
