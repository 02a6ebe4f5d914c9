"""The soft prompt in front, LoRA inside: what the stacked model computes and saves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from delrec_hf.errors import InputError
from delrec_hf.modeling.stacked import DelRecModel

Stacked = Callable[..., DelRecModel]
IDS = torch.tensor([[5, 30, 77, 200, 9, 41]])


@pytest.mark.parametrize("shape", ["qwen2", "llama", "gemma2", "gpt_neox", "gpt2"])
@torch.inference_mode()
def test_the_prompt_and_lora_change_the_logits(stacked: Stacked, shape: str) -> None:
    model = stacked(shape)
    whole = model(input_ids=IDS).logits[:, -1]
    assert (whole - model.backbone(input_ids=IDS).logits[:, -1]).abs().max() > 1e-2
    model.backbone.disable_adapters()
    without_lora = model(input_ids=IDS).logits[:, -1]
    model.backbone.enable_adapters()
    assert (whole - without_lora).abs().max() > 1e-2
    torch.testing.assert_close(model(input_ids=IDS).logits[:, -1], whole)  # LoRA is back


@pytest.mark.parametrize("shape", ["qwen2", "llama", "gemma2", "gpt_neox", "gpt2"])
@torch.inference_mode()
def test_left_padded_equals_right_padded_equals_alone(stacked: Stacked, shape: str) -> None:
    model = stacked(shape)
    short, padding = IDS[:, :4], torch.zeros(1, 2, dtype=torch.long)
    virtual = len(model.soft_prompt)
    alone = model(input_ids=short).logits[0, virtual:]
    left = model(
        input_ids=torch.cat([torch.cat([padding, short], 1), IDS]),
        attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6]),
    ).logits[:, virtual:]
    right = model(
        input_ids=torch.cat([torch.cat([short, padding], 1), IDS]),
        attention_mask=torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6]),
    ).logits[:, virtual:]
    torch.testing.assert_close(left[0, 2:], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(right[0, :4], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(left[1], right[1], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_embeddings_in_place_of_ids_and_no_mask_give_the_same(stacked: Stacked) -> None:
    model = stacked()
    expected = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=IDS)
    embeds = model.backbone.get_input_embeddings()(IDS)
    found = model(inputs_embeds=embeds, labels=IDS)
    # Exact: ids become these very embeddings, and the same kernels follow.
    torch.testing.assert_close(found.logits, expected.logits, atol=0, rtol=0)
    torch.testing.assert_close(found.loss, expected.loss, atol=0, rtol=0)


def test_the_loss_is_on_the_labels_alone(stacked: Stacked) -> None:
    model = stacked()
    labels = IDS.clone()
    labels[:, :3] = -100
    logits = model(input_ids=IDS).logits[0, len(model.soft_prompt) :]
    by_hand = torch.nn.functional.cross_entropy(logits[2:-1], IDS[0, 3:])
    torch.testing.assert_close(model(input_ids=IDS, labels=labels).loss, by_hand)


def test_packed_rows_are_refused_with_the_reason(stacked: Stacked) -> None:
    with pytest.raises(InputError, match="packing and padding_free to false"):
        stacked()(input_ids=IDS, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]))


def test_a_cache_that_holds_the_prompt_already_is_refused(stacked: Stacked) -> None:
    model = stacked()
    cache = model(input_ids=IDS, use_cache=True).past_key_values
    with pytest.raises(InputError, match="read twice"):
        model(input_ids=IDS[:, :1], past_key_values=cache)


@pytest.mark.parametrize("shape", ["qwen2", "gemma2", "gpt2"])
def test_generation_from_a_left_padded_batch_equals_one_by_one(
    stacked: Stacked, shape: str
) -> None:
    model = stacked(shape)
    rows = [IDS[0, :3].tolist(), IDS[0].tolist()]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    together = model.generate(input_ids=ids, attention_mask=mask, **settings)
    for row, found in zip(rows, together, strict=True):
        alone = model.generate(
            input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row)), **settings
        )[0]
        expected = list(row)
        for _ in range(6):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([expected])).logits
            expected.append(int(logits[0, -1].argmax()))
        assert alone[-6:].tolist() == expected[-6:]
        assert found[-6:].tolist() == expected[-6:]


@torch.inference_mode()
@pytest.mark.parametrize("shape", ["qwen2", "llama", "gemma2", "gpt_neox", "gpt2"])
def test_plain_peft_loads_the_same_model(make_artefact: Callable[..., Path], shape: str) -> None:
    folder = make_artefact(shape)
    expected = DelRecModel.from_pretrained(folder)(input_ids=IDS).logits
    base = AutoModelForCausalLM.from_pretrained(folder.parent / "backbone")
    base.load_adapter(str(folder))
    plain = PeftModel.from_pretrained(base, str(folder), subfolder="prompt").eval()
    torch.testing.assert_close(plain(input_ids=IDS).logits, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_plain_peft_stacks_lora_as_a_peft_model_too(make_artefact: Callable[..., Path]) -> None:
    folder = make_artefact()
    expected = DelRecModel.from_pretrained(folder)(input_ids=IDS).logits
    base = AutoModelForCausalLM.from_pretrained(folder.parent / "backbone")
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    plain = PeftModel.from_pretrained(merged, str(folder), subfolder="prompt").eval()
    torch.testing.assert_close(plain(input_ids=IDS).logits, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_round_trip_changes_no_bit(make_artefact: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_artefact()
    first = DelRecModel.from_pretrained(folder)
    first.save_pretrained(tmp_path / "again")
    for name in ("adapter_model.safetensors", "prompt/adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    (tmp_path / "again" / "delrec_config.json").write_bytes(
        (folder / "delrec_config.json").read_bytes()
    )
    second = DelRecModel.from_pretrained(
        tmp_path / "again", base_model=str(folder.parent / "backbone")
    )
    logits = first(input_ids=IDS).logits  # weights may lie elsewhere in memory and round otherwise
    torch.testing.assert_close(second(input_ids=IDS).logits, logits, atol=1e-5, rtol=0)
    assert not any(parameter.requires_grad for parameter in second.parameters())


def test_an_artefact_holds_lora_at_its_root_and_the_prompt_below(
    make_artefact: Callable[..., Path],
) -> None:
    folder = make_artefact()
    read = json.loads((folder / "adapter_config.json").read_text())
    assert read["peft_type"] == "LORA"
    prompt = json.loads((folder / "prompt" / "adapter_config.json").read_text())
    assert prompt["peft_type"] == "PROMPT_TUNING"
    assert sorted(path.name for path in (folder / "prompt").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_without_lora_the_prompt_is_at_the_root(
    load_tiny: Callable[..., Any], save_prompt: Callable[..., Path]
) -> None:
    folder = save_prompt(load_tiny())
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "PROMPT_TUNING"


def test_an_artefact_holds_no_pickle_and_no_absolute_path(
    make_artefact: Callable[..., Path],
) -> None:
    folder = make_artefact()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".parquet", ".jinja"}
    for path in files:
        if path.suffix == ".json" and path.name != "tokenizer.json":
            text = path.read_text()
            assert str(folder.parent) not in text, path.name
            assert '": "/' not in text, path.name


def test_a_prompt_of_another_width_is_refused(
    load_tiny: Callable[..., Any], save_prompt: Callable[..., Path]
) -> None:
    backbone = load_tiny()
    folder = save_prompt(backbone)
    path = folder / "adapter_config.json"
    path.write_text(path.read_text().replace('"token_dim": 32', '"token_dim": 64'))
    with pytest.raises(InputError, match="64 wide and the backbone 32") as refused:
        DelRecModel.with_prompt(backbone, folder)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=r"adapter_config\.json is missing"):
        DelRecModel.with_prompt(backbone, folder / "nowhere")


@pytest.mark.parametrize(
    ("part", "trained"), [("prompt", "prompt_encoder."), ("lora", ".lora_"), ("nothing", None)]
)
def test_train_only_leaves_one_part_trainable(
    stacked: Stacked, part: Any, trained: str | None
) -> None:
    model = stacked()
    model.train_only(part)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (trained is not None and trained in name), name
