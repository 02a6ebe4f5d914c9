"""Learning by ranking, against losses and gradients by hand."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from delrec_hf.errors import InputError
from delrec_hf.ranking import budget
from delrec_hf.ranking.rows import scorer_of
from delrec_hf.ranking.scoring import CandidateScorer, Scoring
from delrec_hf.training.common import widths
from delrec_hf.training.listwise import ListwiseCollator, listwise_losses
from delrec_hf.training.pairs import pair_tasks
from delrec_hf.training.recommendation import RecommendationTrainer, with_lora
from tests.processes import run_in
from tests.training.finetuning_processes import learn_lora
from tests.training.settings import every

Finetuner = Callable[..., RecommendationTrainer]


@pytest.fixture(scope="module")
def prompt(save_prompt: Callable[..., Path], load_tiny: Callable[..., Any]) -> Path:
    return save_prompt(load_tiny())


def by_hand(model: Any, row: dict[str, Any], wanted: torch.Tensor, temperature: float) -> Any:
    """The loss of one row from a separate forward for each candidate."""
    totals = []
    for title in row["candidate_ids"]:
        logits = model(input_ids=torch.tensor([row["prompt_ids"] + title])).logits[0]
        gained = logits[-len(title) - 1 : -1].log_softmax(-1)
        totals.append(gained[range(len(title)), title].sum())
    return -(wanted * (torch.stack(totals).double() / temperature).log_softmax(0)).sum()


def _note(read: list[int], _: Any, args: Any, out: Any) -> None:
    read.append(args[0].numel())


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("soft_labels", [False, True])
@pytest.mark.parametrize("stacked", [True, False], ids=["delrec", "lora-only"])
def test_loss_and_gradient_are_those_of_separate_forwards(
    finetuner: Finetuner,
    rows_to_rank: Callable[..., Dataset],
    prompt: Path,
    tmp_path: Path,
    stacked: bool,
    soft_labels: bool,
) -> None:
    trainer = finetuner(tmp_path, prompt if stacked else None, loss="listwise", lora_dropout=0.0)
    model = trainer.model.train()
    rows = list(rows_to_rank("lsr", 3))
    generator = np.random.default_rng(0)
    if soft_labels:
        rows = [{**row, "chances": generator.dirichlet(np.ones(4)).tolist()} for row in rows]
    batch = ListwiseCollator()(rows)
    hot = [torch.eye(4, dtype=torch.float64)[row["target_place"]] for row in rows]
    assert soft_labels or all(map(torch.equal, batch["chances"], hot))
    expected = sum(
        by_hand(model, row, wanted, 2.5) for row, wanted in zip(rows, batch["chances"], strict=True)
    )
    expected.backward()
    separate = gradients(model)
    model.zero_grad()
    found = listwise_losses(scorer_of(model), batch, 2.5, 0.0).sum()
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert any(one.abs().max() > 1e-3 for one in separate.values())
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, separate[name], atol=1e-5, rtol=1e-4)


def test_the_titles_own_loss_is_mixed_in(
    finetuner: Finetuner, rows_to_rank: Callable[..., Dataset], tmp_path: Path
) -> None:
    model = finetuner(tmp_path, None, loss="listwise").model.eval()
    rows = list(rows_to_rank("lsr", 4))
    batch = ListwiseCollator()(rows)
    alone, mixed = (listwise_losses(scorer_of(model), batch, 1.0, w).detach() for w in (0.0, 0.5))
    for row, difference in zip(rows, (mixed - alone).tolist(), strict=True):
        title = row["candidate_ids"][row["target_place"]]
        logits = model(input_ids=torch.tensor([row["prompt_ids"] + title])).logits[0]
        gained = logits[-len(title) - 1 : -1].log_softmax(-1)[range(len(title)), title]
        assert difference == pytest.approx(-0.5 * float(gained.mean()), abs=1e-5)


@pytest.mark.parametrize("tokens", [1, 60, 150])
def test_candidates_cut_to_a_budget_of_tokens_give_the_same_gradient(
    finetuner: Finetuner,
    rows_to_rank: Callable[..., Dataset],
    prompt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tokens: int,
) -> None:
    trainer = finetuner(tmp_path, prompt, loss="listwise", lora_dropout=0.1)
    model, batch = trainer.model.train(), ListwiseCollator()(list(rows_to_rank("lsr", 3)))
    model.eval()  # in train mode dropout would draw by the forward
    found = []
    for limit in (budget.TOKENS, tokens):
        monkeypatch.setattr(budget, "TOKENS", limit)
        read: list[int] = []
        layer = model.get_base_model().model.layers[0]
        hook = layer.register_forward_hook(partial(_note, read))
        listwise_losses(scorer_of(model), batch, 1.0, 0.0).sum().backward()
        hook.remove()
        found.append((gradients(model), len(read)))
        model.zero_grad()
    (whole, once), (cut, often) = found
    assert once == 1
    assert often > 2
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, atol=5e-5, rtol=1e-4)


def test_a_learned_ranking_puts_every_target_first(
    finetuner: Finetuner, rows_to_rank: Callable[..., Dataset], prompt: Path, tmp_path: Path
) -> None:
    settings = {"max_steps": 60, "per_device_train_batch_size": 6, "learning_rate": 0.02}
    trainer = finetuner(tmp_path, prompt, loss="listwise", lora_dropout=0.0, **settings)
    before = trainer.ranked(rows_to_rank("lsr"))
    trainer.train()
    after = trainer.ranked(rows_to_rank("lsr"))
    assert before["hr@1"] < 0.7
    assert after["hr@1"] == 1
    assert after["ndcg@10"] == 1
    assert after["loss"] < 0.1 < before["loss"]


def test_validation_loss_of_soft_labels_is_their_cross_entropy(
    finetuner: Finetuner, rows_to_rank: Callable[..., Dataset], tmp_path: Path
) -> None:
    trainer = finetuner(tmp_path, None, loss="listwise")
    rows = rows_to_rank("lsr", 5)
    flat = rows.add_column("chances", [[0.25] * 4] * 5)
    losses = listwise_losses(scorer_of(trainer.model.eval()), ListwiseCollator()(list(flat)), 1, 0)
    assert trainer.ranked(flat)["loss"] == pytest.approx(float(losses.mean()), abs=1e-6)
    assert trainer.ranked(flat)["loss"] > trainer.ranked(rows)["loss"] - 10
    assert trainer.ranked(flat)["loss"] >= math.log(4) - 1e-6


def test_the_checkpoint_with_the_best_ranking_is_kept(
    finetuner: Finetuner, prompt: Path, tmp_path: Path
) -> None:
    trainer = finetuner(
        tmp_path,
        prompt,
        loss="listwise",
        max_steps=6,
        **every(1),
        save_total_limit=None,
    )
    trainer.train()
    measured = [
        e["eval_ndcg@10"] for e in trainer.state.log_history if "eval_ndcg@10" in e and e["step"]
    ]
    assert len(measured) == 6
    assert trainer.state.best_metric == max(measured)
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(max(measured))


@pytest.mark.parametrize("stacked", [True, False], ids=["delrec", "lora-only"])
def test_where_no_checkpoint_ranks_better_the_start_is_kept(
    finetuner: Finetuner,
    rows_to_rank: Callable[..., Dataset],
    prompt: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    stacked: bool,
) -> None:
    trainer = finetuner(
        tmp_path,
        prompt if stacked else None,
        loss="listwise",
        max_steps=40,
        per_device_train_batch_size=6,
        metric_for_best_model="loss",
        learning_rate=0.02,
        **every(20),
    )
    rows = rows_to_rank("lsr", 6, seed=1)
    wrong = [(place + 1) % 4 for place in rows["target_place"]]
    rows = rows.remove_columns("target_place").add_column("target_place", wrong)
    trainer.train_dataset = rows  # the validation rows with other targets
    start = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.state.best_metric > before, "it has learned: the test shows nothing"
    assert "no checkpoint has a better loss on validation than the start" in caplog.text
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, start[name]), name
    assert trainer.evaluate()["eval_loss"] == pytest.approx(before)


def test_calibrated_scores_take_off_what_titles_score_without_a_history(
    load_tiny: Callable[..., Any], rows_to_rank: Callable[..., Dataset]
) -> None:
    rows = rows_to_rank("lsr", 2)
    priors = {
        tuple(ids): float(k)
        for k, ids in enumerate(one for r in rows for one in r["candidate_ids"])
    }
    asked = (rows["prompt_ids"][:], rows["candidate_ids"][:])
    backbone = load_tiny()
    plain = CandidateScorer(backbone).score(*asked)
    found = CandidateScorer(backbone, None, Scoring("calibrated", 0.5, priors)).score(*asked)
    for row, before, after in zip(rows["candidate_ids"], plain, found, strict=True):
        taken = np.array([0.5 * priors[tuple(ids)] for ids in row])
        np.testing.assert_allclose(after, before - taken, atol=1e-6)


def test_a_title_without_a_prior_is_refused(
    load_tiny: Callable[..., Any], rows_to_rank: Callable[..., Dataset]
) -> None:
    rows = rows_to_rank("lsr", 2)
    scorer = CandidateScorer(load_tiny(), None, Scoring("calibrated", 1.0, {}))
    with pytest.raises(InputError, match="delrec calibrate"):
        scorer.score(rows["prompt_ids"][:], rows["candidate_ids"][:])


@pytest.mark.parametrize(("key", "value"), [("temperature", 0.0), ("title_weight", -1.0)])
def test_numbers_that_make_no_loss_are_refused(
    finetune_config: Callable[..., Any], tmp_path: Path, key: str, value: float
) -> None:
    with pytest.raises(InputError, match=rf"finetune\.{key}"):
        finetune_config(tmp_path, **{key: value})


def test_widths_count_the_tokens_of_all_tasks_and_candidates(
    rows_to_rank: Callable[..., Dataset], encoded_rows: Callable[..., Dataset]
) -> None:
    def tokens(row: dict[str, Any], prefix: str = "") -> int:
        return len(row[f"{prefix}prompt_ids"]) + sum(map(len, row[f"{prefix}candidate_ids"]))

    rows = {task: rows_to_rank(task, 6) for task in ("ta", "rps")}
    assert widths(rows["ta"]) == [tokens(row) for row in rows["ta"]]
    paired = pair_tasks(rows, seed=0)
    assert widths(paired) == [tokens(row, "ta/") + tokens(row, "rps/") for row in paired]
    encoded = encoded_rows("lsr", 6)
    assert widths(encoded) == list(map(len, encoded["input_ids"]))


def test_batches_by_length_hardly_pad(
    load_tiny: Callable[..., Any],
    finetune_config: Callable[..., Any],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    generator = np.random.default_rng(0)
    rows = Dataset.from_dict(
        {
            "prompt_ids": [[5] * int(generator.integers(5, 200)) for _ in range(100)],
            "candidate_ids": [[[6, 7], [8]]] * 100,
            "target_place": [0] * 100,
        }
    )

    def padding(strategy: str) -> float:
        config = finetune_config(tmp_path, loss="listwise", train_sampling_strategy=strategy)
        model = with_lora(load_tiny(), config, None)
        trainer = RecommendationTrainer(model, config, rows, rows, rows, tokenizer)
        held, real = 0, 0
        for batch in trainer.get_train_dataloader():
            tokens = [len(prompt) + 3 for prompt in batch["prompt_ids"]]
            held, real = held + max(tokens) * len(tokens), real + sum(tokens)
        return 1 - real / held

    assert padding("random") > 0.2
    assert padding("group_by_length") < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_two_processes_learn_lora_as_one(tmp_path: Path, kind: str) -> None:
    found = {}
    for processes, size in ((1, 4), (2, 2)):
        out = tmp_path / f"{processes}.safetensors"
        run_in(processes, learn_lora, out, size, kind)
        found[processes] = load_file(out)
        assert json.loads(out.with_suffix(".json").read_text()) == processes
    assert found[1].keys() == found[2].keys()
    for name, value in found[1].items():
        torch.testing.assert_close(found[2][name], value, atol=1e-5, rtol=1e-4)
