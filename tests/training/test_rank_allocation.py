"""AdaLoRA: ranks go where they do most, within the budget, under both losses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from delrec_hf.errors import InputError
from delrec_hf.modeling.adapters import as_lora
from delrec_hf.runs.trainings import save_adapters
from delrec_hf.training.rank_allocation import STATE_FILE
from delrec_hf.training.recommendation import RecommendationTrainer
from delrec_hf.training.trainer import RankingTrainer
from tests.training.settings import every

Finetuner = Callable[..., RecommendationTrainer]
BUDGET = 4 * 4  # ranks a layer by layers
losses = pytest.mark.parametrize("loss", ["title", "listwise"])
models = pytest.mark.parametrize("stacked", [True, False], ids=["delrec", "lora-only"])


@pytest.fixture
def adalora(
    finetuner: Finetuner, load_tiny: Callable[..., Any], save_prompt: Callable[..., Path]
) -> Finetuner:
    """A function that returns a trainer of AdaLoRA, behind a soft prompt or not."""

    def make(folder: Path, stacked: bool = True, **given: Any) -> RecommendationTrainer:
        prompt = save_prompt(load_tiny()) if stacked else None
        return finetuner(folder, prompt, lora_type="adalora", **given)

    return make


def _parts(trainer: RecommendationTrainer, part: str) -> list[torch.nn.Parameter]:
    return [p for n, p in trainer.model.named_parameters() if f".lora_{part}." in n]


def _ranks(trainer: RecommendationTrainer) -> list[int]:
    return [int((values != 0).sum()) for values in _parts(trainer, "E")]


@losses
@models
def test_ranks_fall_to_the_budget_stay_there_and_differ_between_layers(
    adalora: Finetuner, tmp_path: Path, stacked: bool, loss: str
) -> None:
    trainer = adalora(tmp_path, stacked, loss=loss, max_steps=12, learning_rate=0.02)
    seen: list[list[int]] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen.append(_ranks(trainer))

    trainer.add_callback(Watch())
    trainer.train()
    sums = [sum(ranks) for ranks in seen]
    assert sums[0] == 6 * 4, "the first tenth of the steps takes no rank"
    assert sums[:6] == sorted(sums[:6], reverse=True)
    assert BUDGET < sums[2] < 6 * 4, "the budget falls step by step"
    assert sums[5:] == [BUDGET] * 7
    assert seen[5:] == [seen[5]] * 7, "what is taken does not come back"
    assert len(set(seen[-1])) > 1, "all layers got the same: the test shows nothing"


@losses
@models
def test_the_gradient_is_that_of_the_rows_and_of_pefts_regulariser(
    adalora: Finetuner, load_tiny: Callable[..., Any], tmp_path: Path, stacked: bool, loss: str
) -> None:
    gradients = {}
    for weight in (0.0, 0.5):
        trainer = adalora(tmp_path, stacked, loss=loss, lora_dropout=0.0)
        trainer.model.get_base_model().peft_config["default"].orth_reg_weight = weight
        trainer.current_gradient_accumulation_steps = 1
        for values in _parts(trainer, "E"):
            values.data.fill_(0.3)  # at first they are zero, and so is the rows' gradient
        batch = next(iter(trainer.get_train_dataloader()))
        count = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
        value = trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)
        value.backward()
        gradients[weight] = [p.grad for part in "AB" for p in _parts(trainer, part)]
        gradients[f"loss {weight}"] = value.detach()
    torch.testing.assert_close(gradients["loss 0.5"], gradients["loss 0.0"])
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients[0.0])

    # PEFT's own model, where PEFT adds its term itself.
    config = AdaLoraConfig(init_r=6, target_r=4, total_step=9, task_type="CAUSAL_LM")
    own = get_peft_model(load_tiny(), config)
    mine = [
        (p, q)
        for part in "AB"
        for p, q in zip(
            [p for n, p in own.named_parameters() if f".lora_{part}." in n],
            _parts(trainer, part),
            strict=True,
        )
    ]
    for parameter, value in mine:
        parameter.data.copy_(value)
    ids = torch.tensor([[5, 30, 77]])
    # Its E is zero, so the rows move neither A nor B.
    own(input_ids=ids, labels=ids).loss.backward()
    for (parameter, _), with_it, without in zip(mine, gradients[0.5], gradients[0.0], strict=True):
        assert parameter.grad.abs().max() > 1e-3
        torch.testing.assert_close(with_it - without, parameter.grad, atol=1e-5, rtol=1e-4)


@losses
@models
def test_training_resumed_while_ranks_are_taken_equals_straight_training_bit_for_bit(
    adalora: Finetuner, tmp_path: Path, stacked: bool, loss: str
) -> None:
    settings: dict[str, Any] = {
        "loss": loss,
        "max_steps": 8,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": None,
        "gradient_accumulation_steps": 2,
        "lora_dropout": 0.1,
    }
    straight = adalora(tmp_path / "straight", stacked, **settings)
    straight.train()
    place = tmp_path / "straight" / "checkpoint-2"
    resumed = adalora(tmp_path / "resumed", stacked, **settings)
    for one in resumed.model.parameters():
        if one.requires_grad:
            one.data.fill_(0.5)  # all must come from the checkpoint
    resumed.train(resume_from_checkpoint=str(place))
    found = dict(resumed.model.named_parameters())
    for name, value in straight.model.named_parameters():
        # Exact: a checkpoint is copied into weights laid out as ever, and the same batches follow.
        assert torch.equal(value, found[name]), name
    assert sum(_ranks(resumed)) == BUDGET

    # The averages decide: with others, other ranks are taken.
    state = load_file(place / STATE_FILE)
    turned = {n: 1 / (v + 1e-9) if n.startswith("importance/") else v for n, v in state.items()}
    save_file(turned, place / STATE_FILE)
    other = adalora(tmp_path / "other", stacked, **settings)
    other.train(resume_from_checkpoint=str(place))
    assert any(
        not torch.equal(one != 0, two != 0)
        for one, two in zip(_parts(other, "E"), _parts(straight, "E"), strict=True)
    )
    (place / STATE_FILE).unlink()
    with pytest.raises(InputError, match=r"holds no rank_allocation\.safetensors") as refused:
        adalora(tmp_path / "none", stacked, **settings).train(resume_from_checkpoint=str(place))
    assert "\n" not in str(refused.value)


@models
def test_the_best_checkpoint_is_one_within_the_budget(
    adalora: Finetuner, tmp_path: Path, stacked: bool
) -> None:
    trainer = adalora(
        tmp_path,
        stacked,
        max_steps=6,
        metric_for_best_model="loss",
        greater_is_better=True,  # the loss falls, so the first checkpoint that counts is the best
        learning_rate=0.05,
        **every(1),
    )
    super(RankingTrainer, trainer).train()  # the start has the highest loss of all
    found = {e["step"]: e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e}
    assert max(found, key=found.__getitem__) < 3, "the best has few ranks: the test shows nothing"
    assert trainer.state.best_global_step >= 3
    assert sum(_ranks(trainer)) == BUDGET


def test_what_is_saved_is_plain_lora_with_the_ranks_that_are_left(
    adalora: Finetuner, tmp_path: Path
) -> None:
    trainer = adalora(tmp_path / "training", max_steps=8, learning_rate=0.02)
    trainer.train()
    with torch.no_grad():
        _parts(trainer, "E")[0].zero_()  # a layer that has lost all its ranks
    save_adapters(trainer.model, tmp_path / "model", "backbone")
    config = json.loads((tmp_path / "model" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["base_model_name_or_path"]) == ("LORA", "backbone")
    expected = [max(1, ranks) for ranks in _ranks(trainer)]
    assert list(config["rank_pattern"].values()) == expected
    weights = load_file(tmp_path / "model" / "adapter_model.safetensors")
    for module, ranks in config["rank_pattern"].items():
        name = f"base_model.model.{module}"
        assert len(weights[f"{name}.lora_A.weight"]) == ranks
        assert weights[f"{name}.lora_B.weight"].shape[1] == ranks
    before = {path: path.read_bytes() for path in (tmp_path / "model").glob("adapter*")}
    as_lora(tmp_path / "model")
    assert before == {path: path.read_bytes() for path in before}, "it is LoRA already"


def test_a_training_too_short_to_allocate_ranks_is_refused(
    adalora: Finetuner, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"over 3 steps or more, and this training has 2") as told:
        adalora(tmp_path, max_steps=2).train()
    assert "\n" not in str(told.value)
    adalora(tmp_path, max_steps=3).train()


def test_what_cuts_weights_up_or_loses_gradients_is_refused(
    adalora: Finetuner, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"finetune\.bf16") as told:
        adalora(tmp_path, fp16=True)
    assert "\n" not in str(told.value)
    trainer = adalora(tmp_path)
    trainer.is_fsdp_enabled = True  # as under a launcher, whose processes this test spares
    with pytest.raises(InputError, match=r"train with DDP") as told:
        trainer._check_adalora()
    assert "\n" not in str(told.value)
