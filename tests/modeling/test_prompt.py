"""A cartridge in an artefact: plain PEFT loads it, and all that ranks or refuses knows it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from delrec_hf import Recommender
from delrec_hf.errors import InputError
from delrec_hf.hub.cards import model_card
from delrec_hf.modeling.export import export
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.kept import model_print
from delrec_hf.ranking.virtual_tokens import explain_prompt
from tests.film_rows import ITEMS

IDS = torch.tensor([[5, 30, 77, 200, 9, 41]])
CARTRIDGE: dict[str, Any] = {"prompt_type": "cartridge"}


@torch.inference_mode()
@pytest.mark.parametrize("shape", ["llama", "qwen3", "gemma2", "gpt2"])
def test_plain_peft_loads_the_same_model(make_artefact: Callable[..., Path], shape: str) -> None:
    folder = make_artefact(shape, prompt=CARTRIDGE)
    model = DelRecModel.from_pretrained(folder)
    found = model(input_ids=IDS).logits
    base = AutoModelForCausalLM.from_pretrained(folder.parent / "backbone")
    base.load_adapter(str(folder))
    assert (base(input_ids=IDS).logits - found).abs().max() > 1e-2, "the cartridge does nothing"
    plain = PeftModel.from_pretrained(base, str(folder), subfolder="prompt").eval()
    torch.testing.assert_close(plain(input_ids=IDS).logits, found, atol=1e-5, rtol=0)
    model.save_pretrained(folder.parent / "again")
    for name in ("adapter_model.safetensors", "prompt/adapter_model.safetensors"):
        assert (folder.parent / "again" / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize("shape", ["qwen3", "gemma2"])
def test_padding_on_the_left_changes_nothing(
    stacked: Callable[..., DelRecModel], shape: str
) -> None:
    model = stacked(shape, prompt=CARTRIDGE)
    short, full = IDS[0, :3], IDS[0]
    ids = torch.stack([torch.cat([full.new_zeros(3), short]), full])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1] * 6])
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask).logits
        for found, row in ((logits[0, 3:], short), (logits[1], full)):
            alone = model(input_ids=row[None]).logits[0]
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    together = model.generate(input_ids=ids, attention_mask=mask, **settings)
    assert torch.equal(together[:, :6], ids)
    for found, row in zip(together, (short, full), strict=True):
        expected = row
        for _ in range(5):
            with torch.inference_mode():
                likeliest = model(input_ids=expected[None]).logits[0, -1].argmax()
            expected = torch.cat([expected, likeliest[None]])
        assert torch.equal(found[-5:], expected[-5:])
    beams = model.generate(input_ids=ids, attention_mask=mask, num_beams=2, **settings)
    assert beams.shape == (2, 11)


def test_an_artefact_ranks_behind_its_cartridge(make_artefact: Callable[..., Path]) -> None:
    folder = make_artefact("qwen3", prompt=CARTRIDGE, distil=CARTRIDGE)
    recommender = Recommender.from_pretrained(folder)
    scorer, history = recommender.scorer, list(ITEMS.values())[:2]
    shown = {one.item_id: one.score for one in recommender.recommend(history, top_k=len(ITEMS))}
    other = Recommender.from_pretrained(folder)
    other.model.learned_prompt.data.zero_()
    bare = {one.item_id: one.score for one in other.recommend(history, top_k=len(ITEMS))}
    assert shown.keys() == bare.keys()
    assert max(abs(shown[item] - bare[item]) for item in shown) > 1e-2
    assert model_print(scorer) != model_print(other.scorer)
    assert "cartridge of keys and values" in model_card(folder)
    with pytest.raises(InputError, match="no word can be nearest"):
        explain_prompt(scorer, recommender.encoder.tokenizer)


def test_what_cannot_hold_a_cartridge_says_so(
    make_artefact: Callable[..., Path], load_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    folder = make_artefact("qwen3", prompt=CARTRIDGE)
    with pytest.raises(InputError, match="prompt_type: prompt_tuning") as refused:
        export(folder, tmp_path / "plain")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "plain").exists()
    with pytest.raises(InputError, match="other layers and heads"):
        DelRecModel.with_prompt(load_tiny("gpt2"), folder / "prompt")
