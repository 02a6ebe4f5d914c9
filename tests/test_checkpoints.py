"""Checkpoints are whole or not used, and the limit on their number never takes the wrong one."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from delrec_hf.checkpoints import last_checkpoint
from delrec_hf.errors import InputError
from delrec_hf.training.recommendation import RecommendationTrainer

Finetuner = Callable[..., RecommendationTrainer]
EACH_STEP: dict[str, Any] = {
    "save_strategy": "steps",
    "save_steps": 1,
    "lora_dropout": 0.1,
    "save_total_limit": 9,
}
PRINT = "of these settings"
FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "seal.json",
)
BEST: dict[str, Any] = {
    **EACH_STEP,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "ndcg@10",
    "greater_is_better": True,
}


def weights(trainer: RecommendationTrainer) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in trainer.model.named_parameters()}


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def trained(
    finetuner: Finetuner, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, torch.Tensor]]:
    """A training's folder with a checkpoint of each of its four steps, and where it ended."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoints"
    assert last_checkpoint(folder, PRINT) is None
    trainer = finetuner(folder, None, **EACH_STEP)
    trainer.train()
    return folder, weights(trainer)


@pytest.mark.parametrize("damage", ["cut", "emptied", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_cut_short_is_named_and_the_one_before_is_used(
    trained: tuple[Path, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: str,
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(trained[0], folder)
    file = folder / "checkpoint-4" / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 if damage == "cut" else 0])
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        assert last_checkpoint(folder, PRINT) == str(folder / "checkpoint-3")
    (said,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert said.startswith(str(file.parent))
    assert name in said or name == "seal.json"
    assert said.endswith("the training goes on from checkpoint-3")
    assert steps(folder) == [1, 2, 3]


def test_a_training_goes_on_from_the_checkpoint_before_to_the_same_weights(
    trained: tuple[Path, dict[str, torch.Tensor]], finetuner: Finetuner, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(trained[0], folder)
    for step, name in ((4, "optimizer.pt"), (3, "adapter_model.safetensors")):
        os.truncate(folder / f"checkpoint-{step}" / name, 100)
    trainer = finetuner(folder, None, **EACH_STEP)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder, PRINT))
    assert trainer._initial_global_step == 2
    for name, value in weights(trainer).items():
        # Exact: the same batches go through the same kernels on one thread.
        assert torch.equal(value, trained[1][name]), name


def test_without_a_whole_checkpoint_a_training_starts_anew_with_a_line(
    trained: tuple[Path, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(trained[0], folder)
    for step in (1, 2, 3, 4):
        os.truncate(folder / f"checkpoint-{step}" / "rng_state.pth", 0)
    assert last_checkpoint(folder, PRINT) is None
    assert len(caplog.messages) == 4
    for said in caplog.messages:
        assert said.endswith("rng_state.pth that was cut short or changed; removed, the training "
                             "starts anew")  # fmt: skip


def test_a_checkpoint_whose_best_one_is_lost_is_not_used(
    trained: tuple[Path, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(trained[0], folder)
    for step in (2, 3, 4):  # as if the second had been the best one
        tell_best(folder / f"checkpoint-{step}", 2)
    shutil.rmtree(folder / "checkpoint-2")
    assert last_checkpoint(folder, PRINT) == str(folder / "checkpoint-1")
    assert len(caplog.messages) == 2
    assert "needs the best one, checkpoint-2, which was never finished" in caplog.text


def tell_best(checkpoint: Path, step: int) -> None:
    from delrec_hf.checkpoints import _seal

    state = json.loads((checkpoint / "trainer_state.json").read_text())
    state["best_global_step"] = step
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    _seal(checkpoint)


def test_a_training_killed_behind_its_last_step_takes_no_more(
    trained: tuple[Path, dict[str, torch.Tensor]], finetuner: Finetuner, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(trained[0], folder)
    trainer = finetuner(folder, None, **EACH_STEP)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder, PRINT))
    assert trainer.state.global_step == 4
    for name, value in weights(trainer).items():
        assert torch.equal(value, trained[1][name]), name


class ClockSetBack(TrainerCallback):
    """Makes each checkpoint look older than those before it."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        then = 2_000_000_000 - 1000 * state.global_step
        os.utime(Path(args.output_dir) / f"checkpoint-{state.global_step}", (then, then))


@pytest.mark.parametrize("limit", [1, 2])
def test_a_clock_set_back_takes_no_new_checkpoint_for_an_old_one(
    finetuner: Finetuner, tmp_path: Path, limit: int
) -> None:
    trainer = finetuner(tmp_path, None, **{**EACH_STEP, "save_total_limit": limit})
    trainer.add_callback(ClockSetBack())
    trainer.train()
    assert steps(tmp_path) == [3, 4][-limit:]
    assert trainer.args.save_total_limit == limit


@pytest.mark.parametrize(("limit", "kept"), [(1, [2]), (2, [2, 4]), (3, [2, 3, 4])])
def test_the_best_checkpoint_outlives_the_limit_and_is_what_is_kept(
    finetuner: Finetuner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    kept: list[int],
) -> None:
    found = iter([0.1, 0.2, 0.9, 0.3, 0.4])  # before the first step, and after each
    monkeypatch.setattr(
        RecommendationTrainer, "ranked", lambda self, rows: {"ndcg@10": next(found)}
    )
    after: list[dict[str, torch.Tensor]] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
            after.append({name: one.clone() for name, one in model.named_parameters()})

    trainer = finetuner(tmp_path, None, **{**BEST, "save_total_limit": limit})
    trainer.add_callback(Watch())
    trainer.train()
    assert steps(tmp_path) == kept
    for name, value in weights(trainer).items():
        assert torch.equal(value, after[1][name]), name
        assert not value.requires_grad or not torch.equal(value, after[3][name])


def test_the_best_checkpoint_is_found_where_the_folder_was_moved(
    finetuner: Finetuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.1, 0.9, 0.4, 0.3, 0.2, *[0.1] * 9])
    monkeypatch.setattr(
        RecommendationTrainer, "ranked", lambda self, rows: {"ndcg@10": next(found)}
    )
    there, here = tmp_path / "there", tmp_path / "here"
    last_checkpoint(there, PRINT)
    straight = finetuner(there, None, **BEST)
    straight.train()
    there.rename(here)  # killed between its last step and what is left to do
    trainer = finetuner(here, None, **BEST)
    trainer.train(resume_from_checkpoint=last_checkpoint(here, PRINT))
    assert trainer.state.best_global_step == 1
    for name, value in weights(trainer).items():
        assert torch.equal(value, weights(straight)[name]), name


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What the Hub would hold, by path; calls are caught where they would leave the machine."""
    files: dict[str, bytes] = {}

    def create_repo(self: Any, repo_id: str, **options: Any) -> Any:
        return SimpleNamespace(repo_id=repo_id)

    def create_commit(self: Any, repo_id: str, operations: Any, **options: Any) -> None:
        for one in operations:
            with one.as_file() as stream:
                files[one.path_in_repo] = stream.read()

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr("huggingface_hub.hf_api.is_xet_available", lambda: False)
    return files


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint", "all_checkpoints"])
def test_each_hub_strategy_pushes_what_it_says_and_a_training_goes_on_from_it(
    finetuner: Finetuner,
    load_tiny: Callable[..., Any],
    save_prompt: Callable[..., Path],
    tmp_path: Path,
    pushed: dict[str, bytes],
    strategy: str,
) -> None:
    prompt = save_prompt(load_tiny())
    given = {**EACH_STEP, "save_steps": 2, "hub_strategy": strategy, "hub_always_push": True}
    last_checkpoint(tmp_path / "here", PRINT)
    straight = finetuner(
        tmp_path / "here", prompt, **given, push_to_hub=True, hub_model_id="someone/films"
    )
    straight.train()
    if strategy == "end":  # the finished model goes by `delrec push`
        assert pushed == {}
        return
    names = ["adapter_model.safetensors", "prompt/adapter_model.safetensors"]
    expected = {"checkpoint": ["last-checkpoint"], "every_save": []}.get(
        strategy, ["checkpoint-2", "checkpoint-4"]
    )
    for name in names:
        assert pushed[name] == (tmp_path / "here/checkpoint-4" / name).read_bytes()
    assert {name.partition("/")[0] for name in pushed if "checkpoint-" in name} <= {*expected}
    for place in expected:
        assert {f"{place}/{name}" for name in (*names, "optimizer.pt", "seal.json")} <= {*pushed}
        step = int(place.partition("-")[2]) if place != "last-checkpoint" else 4
        there = tmp_path / place
        for name, content in pushed.items():
            if name == "fingerprint" or name.startswith(f"{place}/"):
                (there / name).parent.mkdir(parents=True, exist_ok=True)
                (there / name).write_bytes(content)
        assert last_checkpoint(there, PRINT) == str(there / f"checkpoint-{step}")
        trainer = finetuner(there, prompt, **EACH_STEP)
        trainer.train(resume_from_checkpoint=last_checkpoint(there, PRINT))
        for name, value in weights(trainer).items():
            assert torch.equal(value, weights(straight)[name]), name


def test_a_hub_that_cannot_be_reached_is_one_line(
    finetuner: Finetuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_repo(self: Any, repo_id: str, **options: Any) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    with pytest.raises(InputError, match="repository someone/films: no route to host; check"):
        finetuner(tmp_path, None, push_to_hub=True, hub_model_id="someone/films")


def test_a_push_that_fails_is_told_and_the_training_goes_on(
    finetuner: Finetuner,
    tmp_path: Path,
    pushed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def create_commit(self: Any, repo_id: str, **options: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    given = {"push_to_hub": True, "hub_model_id": "someone/films", "save_steps": 4}
    finetuner(tmp_path, None, **{**EACH_STEP, **given}).train()
    assert "a checkpoint was not pushed: no route to host" in caplog.messages
    assert steps(tmp_path) == [4]
