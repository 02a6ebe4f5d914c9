"""A cartridge: keys and values in place of the soft prompt's embeddings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BloomConfig, PreTrainedTokenizerFast

from delrec_hf.errors import InputError
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.rows import scorer_of
from delrec_hf.training.distillation import PatternDistillationTrainer
from delrec_hf.training.recommendation import RecommendationTrainer
from delrec_hf.training.soft_prompt import new_soft_prompt

Distiller = Callable[..., PatternDistillationTrainer]
Finetuner = Callable[..., RecommendationTrainer]
CARTRIDGE: dict[str, Any] = {"prompt_type": "cartridge"}
LEARNED = "prompt_encoder.default.trainable_embedding"
PROMPTS = [[7, 300, 12, 45, 9, 88, 120, 31, 6], [15, 16], [200], list(range(20, 60))]
CANDIDATES = [
    [[50, 51, 2], [50, 51, 60, 2], [50, 2], [90, 91, 92, 93, 94, 95, 2]],
    [[70], [71], [70, 71]],
    [[5, 2], [5, 2], [6, 2]],
    [[9, 8, 7, 2]],
]


def _copies(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def _plain(shape: str, folders: Callable[[str], Path], prompt: Path) -> Any:
    """Load a saved cartridge with PEFT alone."""
    base = AutoModelForCausalLM.from_pretrained(folders(shape), dtype=torch.float32)
    return PeftModel.from_pretrained(base, str(prompt)).eval()


def _total(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """The log-probability of an answer, by one plain forward of its whole row."""
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, -len(answer) - 1 : -1]
    return logits.log_softmax(-1)[range(len(answer)), answer].sum()


@pytest.mark.parametrize("shape", ["llama", "qwen3", "gemma2", "gpt2"])
def test_scores_and_gradients_are_those_of_pefts_own_rows(
    load_tiny: Callable[..., Any],
    tiny_backbone: Callable[[str], Path],
    save_prompt: Callable[..., Path],
    shape: str,
) -> None:
    folder = save_prompt(load_tiny(shape), **CARTRIDGE)
    model = DelRecModel.with_prompt(load_tiny(shape), folder).eval()
    model.train_only("prompt")
    plain = _plain(shape, tiny_backbone, folder)
    rows = plain.prompt_encoder["default"].trainable_embedding.requires_grad_()
    weights = torch.linspace(-1, 1, 11)  # each candidate pulls its own way
    expected = torch.stack(
        [
            _total(plain, prompt, one)
            for prompt, offered in zip(PROMPTS, CANDIDATES, strict=True)
            for one in offered
        ]
    )
    (expected * weights).sum().backward()
    found = torch.cat(scorer_of(model).totals(PROMPTS, CANDIDATES)).float()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    (found * weights).sum().backward()
    assert rows.grad.abs().max() > 0.1
    torch.testing.assert_close(model.learned_prompt.grad, rows.grad, atol=1e-4, rtol=1e-4)
    scorer = scorer_of(model)
    begun = [[7, 300, 12, *prompt] for prompt in PROMPTS]  # read once behind the cartridge
    for read in (scorer, scorer.with_prefix(begun)):
        ranked = read.score(begun, CANDIDATES)
        with torch.no_grad():
            right = [_total(plain, begun[0], one) for one in CANDIDATES[0]]
        torch.testing.assert_close(
            torch.tensor(ranked[0]).float(), torch.stack(right), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("shape", ["llama", "qwen3"])
def test_the_loss_of_titles_has_the_gradient_of_pefts_own_rows(
    distiller: Distiller,
    load_tiny: Callable[..., Any],
    tiny_backbone: Callable[[str], Path],
    tmp_path: Path,
    shape: str,
) -> None:
    trainer = distiller(tmp_path, load_tiny(shape), **CARTRIDGE)
    trainer.model.save_pretrained(tmp_path / "prompt")
    plain = _plain(shape, tiny_backbone, tmp_path / "prompt")
    rows = plain.prompt_encoder["default"].trainable_embedding.requires_grad_()
    batch = next(iter(trainer.get_train_dataloader()))["rps"]
    expected = plain(**batch).loss
    expected.backward()
    for training in (True, False):  # then TRL's own loss
        trainer.model.train(training)
        trainer.model.learned_prompt.grad = None
        found = trainer.compute_loss(trainer.model, batch)
        found.backward()
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(trainer.model.learned_prompt.grad, rows.grad, atol=1e-4, rtol=0)


@pytest.mark.parametrize("loss", ["title", "listwise"])
def test_tasks_are_weighed_by_their_gradients_on_all_keys_and_values(
    distiller: Distiller, tmp_path: Path, loss: str
) -> None:
    trainer = distiller(tmp_path, loss=loss, **CARTRIDGE)
    batch, learned = next(iter(trainer.get_train_dataloader())), trainer.model.learned_prompt
    trainer.model.train()
    gradients = {
        task: torch.autograd.grad(trainer.compute_loss(trainer.model, batch[task]), learned)[0]
        for task in ("ta", "rps")
    }
    assert all((one != 0).all() for one in gradients.values()), "a key or value does not learn"
    raw = {task: float(one.norm()) ** -0.5 for task, one in gradients.items()}
    batches, items = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 1
    trainer.training_step(trainer.model, batches[0], items)
    expected = sum(raw[task] / sum(raw.values()) * gradients[task] for task in raw)
    torch.testing.assert_close(learned.grad, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("loss", ["title", "listwise"])
def test_keys_and_values_alone_move_and_a_resumed_training_ends_bit_for_bit_alike(
    distiller: Distiller, load_tiny: Callable[..., Any], tmp_path: Path, loss: str
) -> None:
    settings: dict[str, Any] = {
        **CARTRIDGE,
        "loss": loss,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "linear",
    }
    straight = distiller(tmp_path / "straight", load_tiny("qwen3"), **settings)
    before = _copies(straight.model)
    straight.train()
    after = _copies(straight.model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {LEARNED}
    assert (before[LEARNED] != after[LEARNED]).all()
    resumed = distiller(tmp_path / "resumed", load_tiny("qwen3"), **settings)
    for name, parameter in resumed.model.named_parameters():
        if name.startswith("prompt_encoder."):
            parameter.data.zero_()  # all must come from the checkpoint
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    assert resumed.state.global_step == 4
    # Exact: a checkpoint is copied into weights laid out as ever, and the same batches follow.
    assert torch.equal(straight.model.soft_prompt, resumed.model.soft_prompt)


def test_stage_two_trains_lora_behind_a_cartridge_that_keeps_every_bit(
    finetuner: Finetuner,
    load_tiny: Callable[..., Any],
    save_prompt: Callable[..., Path],
    tmp_path: Path,
) -> None:
    prompt = save_prompt(load_tiny("llama"), **CARTRIDGE)
    settings: dict[str, Any] = {
        "loss": "listwise",
        "save_strategy": "steps",
        "save_steps": 2,
        "lora_dropout": 0.1,
    }
    straight = finetuner(tmp_path / "straight", prompt, load_tiny("llama"), **settings)
    alone = finetuner(tmp_path / "alone", None, load_tiny("llama"), loss="listwise")
    assert abs(straight.evaluate()["eval_loss"] - alone.evaluate()["eval_loss"]) > 1e-3
    before = _copies(straight.model)
    straight.train()
    after = _copies(straight.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if ".lora_" in name}
    resumed = finetuner(tmp_path / "resumed", prompt, load_tiny("llama"), **settings)
    for name, parameter in resumed.model.named_parameters():
        if parameter.requires_grad or name.startswith("prompt_encoder."):
            parameter.data.fill_(0.5)  # all must come from the checkpoint
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    for name, parameter in resumed.model.named_parameters():
        assert torch.equal(parameter, after[name]), name


@pytest.mark.parametrize("start", ["text", "vocabulary", "random"])
def test_a_cartridge_starts_as_what_the_backbone_keeps_of_tokens(
    load_tiny: Callable[..., Any],
    distil_config: Callable[..., Any],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    start: str,
) -> None:
    backbone = load_tiny("qwen3")
    config = distil_config(
        tmp_path,
        prompt_init=start,
        prompt_init_text="Heat, then Alien",
        **CARTRIDGE,
        num_virtual_tokens=30,
    )
    model = new_soft_prompt(backbone, config, tokenizer)
    again = new_soft_prompt(backbone, config, tokenizer)
    assert torch.equal(model.soft_prompt, again.soft_prompt), "the start is not seeded"
    words = tokenizer("Heat, then Alien")["input_ids"]
    assert len(words) < 30  # repeated to fill the cartridge
    ids = torch.tensor([(words * 30)[:30]])
    with torch.no_grad():
        read = backbone(torch.cat([ids, torch.tensor([[5, 6]])], 1)).logits[:, -2:]
        found = model(torch.tensor([[5, 6]])).logits
    same = torch.allclose(found, read, atol=1e-4)
    assert same == (start == "text")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"gradient_checkpointing": True}, "gradient_checkpointing` is true"),
        ({"num_virtual_tokens": 1}, "expected 2 or more"),
    ],
)
def test_settings_that_leave_nothing_of_a_cartridge_are_refused(
    distiller: Distiller, tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        distiller(tmp_path, **CARTRIDGE, **given)
    assert "\n" not in str(refused.value)


def test_sharded_weights_are_refused_in_stage_two(
    finetuner: Finetuner,
    load_tiny: Callable[..., Any],
    save_prompt: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompt = save_prompt(load_tiny(), **CARTRIDGE)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch` does
    with pytest.raises(InputError, match="launch it with ddp") as refused:
        finetuner(tmp_path, prompt)
    assert "\n" not in str(refused.value)


def test_a_backbone_that_goes_on_from_no_keys_and_values_is_refused(
    distil_config: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bloom = BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4)
    backbone = AutoModelForCausalLM.from_config(bloom)
    with pytest.raises(InputError, match="it takes no position_ids") as refused:
        new_soft_prompt(backbone, distil_config(tmp_path, **CARTRIDGE), tokenizer)
    assert "\n" not in str(refused.value)
