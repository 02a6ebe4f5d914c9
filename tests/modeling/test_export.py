"""The plain checkpoint computes what the stacked model does, with nothing of ours installed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from delrec_hf.errors import InputError
from delrec_hf.modeling.export import export
from delrec_hf.modeling.stacked import DelRecModel

IDS = torch.tensor([[1, 30, 77, 200, 9, 41, 3]])
SHAPES = ["qwen2", "llama", "gemma2", "gemma3", "gpt_neox", "gpt2"]


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_exported_equals_stacked(
    make_artefact: Callable[..., Path], tmp_path: Path, shape: str
) -> None:
    folder = make_artefact(shape)
    stacked = DelRecModel.from_pretrained(folder)
    export(folder, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    virtual = tokenizer.convert_tokens_to_ids([f"<|delrec_{number}|>" for number in range(5)])
    assert len(set(virtual)) == 5
    found = model(input_ids=torch.cat([torch.tensor([virtual]), IDS], 1)).logits
    words = stacked(input_ids=IDS).logits
    assert min(virtual) >= len(AutoTokenizer.from_pretrained(folder))
    known = min(virtual)
    torch.testing.assert_close(found[..., :known], words[..., :known], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_virtual_token_is_ever_an_answer(
    make_artefact: Callable[..., Path], tmp_path: Path, shape: str
) -> None:
    folder = make_artefact(shape)
    export(folder, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    virtual = set(tokenizer.convert_tokens_to_ids([f"<|delrec_{k}|>" for k in range(5)]))
    torch.manual_seed(0)
    ids = torch.randint(3, 350, (16, 12))
    for sampling in ({"do_sample": False}, {"do_sample": True, "temperature": 9.0}):
        answers = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            eos_token_id=None,
            **sampling,
        )
        assert not virtual & set(answers[:, 12:].flatten().tolist()), sampling
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
    best = logits.max(-1).values
    assert (logits[..., sorted(virtual)].max(-1).values < best).all()


def test_the_chat_template_puts_the_virtual_tokens_first(
    make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_artefact()
    export(folder, tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    before = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "Heat (1995)?"}]

    def encode(tokenizer: AutoTokenizer) -> list[int]:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    virtual = tokenizer.convert_tokens_to_ids([f"<|delrec_{number}|>" for number in range(5)])
    assert encode(tokenizer) == [*virtual, *encode(before)]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids == encode(tokenizer)
    assert tokenizer.decode(ids, skip_special_tokens=True).startswith("user\nHeat")
    for token in ("<|im_start|>", "<|im_end|>"):
        assert tokenizer.convert_tokens_to_ids(token) == before.convert_tokens_to_ids(token)


def test_the_checkpoint_is_plain(make_artefact: Callable[..., Path], tmp_path: Path) -> None:
    export(make_artefact(), tmp_path / "plain")
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {name for name in names if "adapter" in name or name == "prompt"}
    assert '"tie_word_embeddings": false' in (tmp_path / "plain" / "config.json").read_text()


def test_a_folder_that_is_not_empty_is_left_alone(
    make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    place = tmp_path / "full"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export(make_artefact(), place)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
