"""Stage 1: only the soft prompt moves, by the weighted sum of both tasks' gradients."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from accelerate import DeepSpeedPlugin
from datasets import Dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from delrec_hf.errors import InputError
from delrec_hf.ranking.scoring import Scoring
from delrec_hf.training.distillation import PatternDistillationTrainer
from delrec_hf.training.pairs import TaskCollator, pair_tasks
from delrec_hf.training.trainer import RankingTrainer
from tests.processes import run_in
from tests.sharding import NEEDS_DEEPSPEED
from tests.training.distilling_processes import distil
from tests.training.settings import every

Distiller = Callable[..., PatternDistillationTrainer]
WEIGHTINGS = ("dynamic", "fixed")
LOSSES = ("title", "listwise")


def _copies(trainer: PatternDistillationTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def _batch(trainer: PatternDistillationTrainer) -> dict[str, Any]:
    return next(iter(trainer.get_train_dataloader()))


def _loss_by_hand(trainer: PatternDistillationTrainer, batch: dict[str, Any]) -> torch.Tensor:
    model = trainer.model
    virtual = len(model.soft_prompt)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return torch.nn.functional.cross_entropy(
        logits[:, virtual:-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100
    )


@pytest.mark.parametrize("weighting", ["dynamic", "fixed"])
def test_only_the_prompt_moves(distiller: Distiller, tmp_path: Path, weighting: str) -> None:
    trainer = distiller(tmp_path, task_weighting=weighting)
    before = _copies(trainer)
    trainer.train()
    assert trainer.state.global_step == 4
    moved = {n for n, value in _copies(trainer).items() if not torch.equal(value, before[n])}
    assert moved == {"prompt_encoder.default.embedding.weight"}
    rows = (trainer.model.soft_prompt != before.popitem()[1]).any(1)
    assert rows.all(), "a virtual token did not move"


def test_the_prompt_learns(distiller: Distiller, tmp_path: Path) -> None:
    trainer = distiller(tmp_path, max_steps=40, per_device_train_batch_size=6)
    before = trainer.evaluate(trainer.eval_dataset)
    trainer.eval_dataset = None
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "ta_loss" in entry]
    assert log[-1]["rps_loss"] < log[0]["rps_loss"] - 0.5
    assert log[-1]["ta_loss"] < log[0]["ta_loss"] - 0.5
    assert before["eval_rps_loss"] > 0


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_gradient_is_the_weighted_sum_of_the_tasks_gradients(
    distiller: Distiller, tmp_path: Path, exponent: float
) -> None:
    trainer = distiller(tmp_path, weighting_exponent=exponent)
    batch, prompt = _batch(trainer), trainer.model.soft_prompt
    gradients = {
        task: torch.autograd.grad(_loss_by_hand(trainer, batch[task]), prompt)[0]
        for task in ("ta", "rps")
    }
    raw = {task: float(found.norm()) ** -exponent for task, found in gradients.items()}
    weights = {task: value / sum(raw.values()) for task, value in raw.items()}
    batches, tokens = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 1
    trainer.training_step(trainer.model, batches[0], tokens)
    expected = weights["ta"] * gradients["ta"] + weights["rps"] * gradients["rps"]
    torch.testing.assert_close(prompt.grad, expected, atol=1e-6, rtol=1e-5)
    for task, weight in weights.items():
        assert trainer._metrics["train"][f"{task}_weight"][-1] == pytest.approx(weight, rel=1e-5)


def test_fixed_weights_give_the_gradient_of_the_weighted_loss(
    distiller: Distiller, tmp_path: Path
) -> None:
    trainer = distiller(tmp_path, task_weighting="fixed", ta_weight=1.0, rps_weight=3.0)
    batch, prompt = _batch(trainer), trainer.model.soft_prompt
    loss = 0.25 * _loss_by_hand(trainer, batch["ta"]) + 0.75 * _loss_by_hand(trainer, batch["rps"])
    expected = torch.autograd.grad(loss, prompt)[0]
    batches, tokens = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 1
    found = trainer.training_step(trainer.model, batches[0], tokens)
    torch.testing.assert_close(prompt.grad, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found, loss.detach())


@pytest.mark.parametrize("loss", ["title", "listwise"])
@pytest.mark.parametrize("weighting", ["dynamic", "fixed"])
def test_two_micro_batches_of_two_equal_one_batch_of_four(
    distiller: Distiller, tmp_path: Path, weighting: str, loss: str
) -> None:
    prompts, logs = [], []
    for size, steps in ((4, 1), (2, 2)):
        trainer = distiller(
            tmp_path / str(size),
            loss=loss,
            task_weighting=weighting,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0,
        )
        trainer.train()
        prompts.append(trainer.model.soft_prompt.detach())
        logs.append(trainer.state.log_history)
    torch.testing.assert_close(prompts[0], prompts[1], atol=1e-5, rtol=0)
    for whole, halves in zip(*logs, strict=True):
        for name in ("ta_loss", "rps_loss"):
            assert whole.get(name) == pytest.approx(halves.get(name), abs=1e-4)


def test_losses_and_weights_of_each_task_are_logged(distiller: Distiller, tmp_path: Path) -> None:
    trainer = distiller(tmp_path, eval_strategy="steps", eval_steps=2)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == 4
    for entry in steps:
        assert entry["ta_weight"] + entry["rps_weight"] == pytest.approx(1)
        assert entry["ta_loss"] > 0
        assert entry["rps_loss"] > 0
        assert entry["loss"] == pytest.approx(
            entry["ta_weight"] * entry["ta_loss"] + entry["rps_weight"] * entry["rps_loss"],
            abs=1e-3,
        )
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert {"eval_ta_loss", "eval_rps_loss", "eval_rps_agreement", "eval_rps_ndcg@10"} <= logged


@pytest.mark.parametrize("scoring", ["sum", "mean"])
def test_agreement_is_the_share_of_the_teachers_first_choices(
    distiller: Distiller, tmp_path: Path, scoring: Literal["sum", "mean"]
) -> None:
    trainer = distiller(tmp_path, scoring=Scoring(scoring))
    rows = trainer._ranking_rows["rps"]
    chosen: dict[str, list[int]] = {"sum": [], "mean": []}
    for row in rows:
        gained = []
        for title in row["candidate_ids"]:
            ids = torch.tensor([row["prompt_ids"] + title])
            with torch.inference_mode():
                logits = trainer.model.eval()(input_ids=ids).logits[0, -len(title) - 1 : -1]
            gained.append(logits.log_softmax(-1)[range(len(title)), title])
        chosen["sum"].append(int(torch.stack([one.sum() for one in gained]).argmax()))
        chosen["mean"].append(int(torch.stack([one.mean() for one in gained]).argmax()))
    shares = {
        name: np.mean(np.array(found) == np.array(rows["target_place"][:]))
        for name, found in chosen.items()
    }
    assert shares["sum"] != shares["mean"], "both score alike: the test shows nothing"
    assert trainer.evaluate()["eval_rps_agreement"] == pytest.approx(shares[scoring])


@pytest.mark.parametrize("loss", ["title", "listwise"])
@pytest.mark.parametrize("weighting", ["dynamic", "fixed"])
def test_resumed_training_equals_straight_training_bit_for_bit(
    distiller: Distiller, tmp_path: Path, weighting: str, loss: str
) -> None:
    settings: dict[str, Any] = {
        "loss": loss,
        "task_weighting": weighting,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "linear",
    }
    straight = distiller(tmp_path / "straight", **settings)
    straight.train()
    checkpoint = tmp_path / "straight" / "checkpoint-3"
    resumed = distiller(tmp_path / "resumed", **settings)
    resumed.model.soft_prompt.data.zero_()  # all must come from the checkpoint
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 6
    # Exact: a checkpoint is copied into weights laid out as ever, and the same batches follow.
    assert torch.equal(straight.model.soft_prompt, resumed.model.soft_prompt)


def test_the_best_checkpoint_is_the_one_kept(distiller: Distiller, tmp_path: Path) -> None:
    trainer = distiller(
        tmp_path,
        metric_for_best_model="rps_loss",
        greater_is_better=True,  # the loss falls, so the first checkpoint counts as the best
        **every(1),
        save_total_limit=None,
    )
    super(RankingTrainer, trainer).train()  # the start has the highest loss of all
    losses = [e["eval_rps_loss"] for e in trainer.state.log_history if "eval_rps_loss" in e]
    assert trainer.state.best_metric == max(losses)
    assert losses[-1] < max(losses), "the last one counts as the best: the test shows nothing"
    again = trainer.evaluate(trainer.eval_dataset["rps"], metric_key_prefix="eval_rps")
    assert again["eval_rps_loss"] == pytest.approx(max(losses), abs=1e-6)


def test_a_checkpoint_holds_the_prompt_at_its_root_and_no_card(
    distiller: Distiller, tmp_path: Path
) -> None:
    distiller(tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    names = {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert not {"README.md", "prompt", "model.safetensors"} & names


@pytest.mark.parametrize("loss", ["title", "listwise"])
def test_gradient_checkpointing_gives_the_same_prompt(
    distiller: Distiller, tmp_path: Path, loss: str
) -> None:
    prompts = []
    for on in (False, True):
        trainer = distiller(tmp_path / str(on), loss=loss, gradient_checkpointing=on)
        trainer.train()
        assert trainer.model.backbone.is_gradient_checkpointing == on
        prompts.append(trainer.model.soft_prompt.detach())
    torch.testing.assert_close(prompts[0], prompts[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("start", ["random", "vocabulary", "text"])
def test_every_start_of_the_prompt_trains(distiller: Distiller, tmp_path: Path, start: str) -> None:
    trainer = distiller(tmp_path, prompt_init=start, max_steps=1)
    prompt = trainer.model.soft_prompt.detach().clone()
    words = trainer.model.backbone.get_input_embeddings().weight
    of_words = (prompt[:, None] == words).all(2).any(1).all()
    assert bool(of_words) == (start != "random")
    again = distiller(tmp_path, prompt_init=start)
    assert torch.equal(again.model.soft_prompt, prompt), "the start is not seeded"
    trainer.train()
    assert not torch.equal(trainer.model.soft_prompt, prompt)


def test_one_task_alone_trains(distiller: Distiller, tmp_path: Path) -> None:
    trainer = distiller(tmp_path, tasks=["ta"], eval_strategy="steps", eval_steps=2)
    trainer.train()
    assert trainer.args.metric_for_best_model == "ta_ndcg@10"
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert "ta_loss" in logged
    assert not {"rps_loss", "eval_rps_loss", "eval_rps_agreement", "eval_rps_ndcg@10"} & logged


def test_every_batch_holds_equally_many_rows_of_each_task(
    encoded_rows: Callable[..., Dataset],
) -> None:
    rows = pair_tasks({"ta": encoded_rows("ta", 5), "rps": encoded_rows("rps", 12)}, seed=3)
    assert len(rows) == 12
    batch = TaskCollator(("ta", "rps"), DataCollatorForLanguageModeling(0))(list(rows)[:4])
    assert {task: len(found["labels"]) for task, found in batch.items()} == {"ta": 4, "rps": 4}
    seen = {tuple(ids) for ids in rows["ta/input_ids"]}
    assert len(seen) == 5, "a row of the shorter task is never shown"


def test_paired_rows_are_the_tasks_own_rows_drawn_by_seed(
    encoded_rows: Callable[..., Dataset],
) -> None:
    encoded = {"ta": encoded_rows("ta", 5), "rps": encoded_rows("rps", 12)}
    paired = pair_tasks(encoded, seed=3)
    for number, (task, rows) in enumerate(encoded.items()):
        order = np.resize(np.random.default_rng([3, number]).permutation(len(rows)), 12)
        for name in ("input_ids", "labels"):
            expected = [rows[int(place)][name] for place in order]
            assert paired[f"{task}/{name}"][:] == expected


def test_paired_rows_are_not_held_in_memory(
    encoded_rows: Callable[..., Dataset], tmp_path: Path
) -> None:
    encoded = {}
    for task in ("ta", "rps"):
        encoded_rows(task).save_to_disk(tmp_path / task)
        encoded[task] = Dataset.load_from_disk(tmp_path / task)
    files = [one["filename"] for one in pair_tasks(encoded, seed=3).cache_files]
    assert {Path(one).parent.name for one in files} == {"ta", "rps"}


@pytest.mark.parametrize("sharding", ["FSDP", "ZeRO-3"])
def test_launches_that_shard_the_prompt_are_refused(
    distiller: Distiller,
    encoded_rows: Callable[..., Dataset],
    tmp_path: Path,
    sharding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = distiller(tmp_path)
    rows = {task: encoded_rows(task) for task in ("ta", "rps")}
    if sharding == "FSDP":
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch` does
    else:
        trainer.args.deepspeed_plugin = DeepSpeedPlugin(zero_stage=3)
    with pytest.raises(InputError, match=f"{sharding} shards the soft prompt") as refused:
        PatternDistillationTrainer(
            trainer.model, trainer.args, rows, rows, rows, trainer.processing_class
        )
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weighting", "loss", "prompt_type"),
    [
        *((*one, "prompt_tuning") for one in itertools.product(WEIGHTINGS, LOSSES)),
        ("dynamic", "listwise", "cartridge"),
    ],
)
def test_two_processes_distil_as_one_where_each_counts_its_own_tokens(
    tmp_path: Path, weighting: str, loss: str, prompt_type: str
) -> None:
    settings = {"loss": loss, "average_tokens_across_devices": False, "task_weighting": weighting}
    settings |= {"prompt_type": prompt_type}
    _assert_two_distil_as_one(tmp_path, settings, "ddp")


@pytest.mark.slow
@NEEDS_DEEPSPEED
@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_of_deepspeed_distil_as_one(tmp_path: Path, loss: str) -> None:
    """Also where a step is of several micro-batches, whose losses DeepSpeed would divide again."""
    settings = {"loss": loss, "task_weighting": "fixed", "gradient_accumulation_steps": 2}
    _assert_two_distil_as_one(tmp_path, settings, "zero2")


def _assert_two_distil_as_one(tmp_path: Path, settings: dict[str, Any], kind: str) -> None:
    found = {}
    for processes, batch_size in ((1, 4), (2, 2)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        given = (settings, kind if processes > 1 else "ddp")
        run_in(processes, distil, folder, batch_size, *given)
        found[processes] = json.loads((folder / "found.json").read_text())
        assert found[processes]["processes"] == processes
    for one, two in zip(found[1]["losses"], found[2]["losses"], strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    torch.testing.assert_close(
        torch.tensor(found[1]["prompt"]), torch.tensor(found[2]["prompt"]), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("packing", True, "read their neighbours"),
        ("eval_packing", True, "read their neighbours"),
        ("padding_free", True, "read their neighbours"),
        ("assistant_only_loss", True, "learns from the answer alone"),
        ("completion_only_loss", False, "learns from the answer alone"),
        ("tasks", ["tea"], "expected `ta`, `rps` or both"),
        ("num_virtual_tokens", 0, "expected 1 or more"),
        ("ta_weight", -1.0, "0 or more"),
    ],
)
def test_what_a_soft_prompt_cannot_bear_is_refused_with_the_reason(
    distil_config: Callable[..., Any], tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        distil_config(tmp_path, **{key: value})
    assert f"distil.{key}" in str(refused.value) or "`distil`" in str(refused.value)
    assert "\n" not in str(refused.value)
