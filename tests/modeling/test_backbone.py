"""Loading the backbone, quantised or not, and naming it in an artefact."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from delrec_hf.errors import InputError
from delrec_hf.modeling.artefact import weights_hash
from delrec_hf.modeling.backbone import BackboneConfig, describe_backbone, load_backbone
from delrec_hf.modeling.gguf import convert_gguf
from delrec_hf.modeling.gguf_source import read_source
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.training.distillation import PatternDistillationTrainer
from delrec_hf.training.recommendation import RecommendationTrainer
from tests.modeling.gguf_files import write_llama

IDS = torch.tensor([[5, 30, 77, 200, 9, 41]])


def test_a_tokenizer_without_padding_gets_some(
    tiny_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_backbone("qwen2"), tmp_path / "copy")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    model, loaded = load_backbone(BackboneConfig(model_name_or_path=str(folder)))
    assert loaded.pad_token_id is not None
    assert not model.training


@pytest.mark.parametrize("name", ["no-such-org/no-such-model", "not a name!", "/dev/null"])
def test_a_backbone_that_cannot_be_found_is_one_line(name: str) -> None:
    with pytest.raises(InputError) as refused:
        load_backbone(BackboneConfig(model_name_or_path=name))
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_empty_folder_and_pickled_weights_are_refused(
    tiny_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        load_backbone(BackboneConfig(model_name_or_path=str(tmp_path)))
    folder = shutil.copytree(tiny_backbone("qwen2"), tmp_path / "copy")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        load_backbone(BackboneConfig(model_name_or_path=str(folder)))


def test_two_quantisations_at_once_are_refused() -> None:
    with pytest.raises(InputError, match="keep one"):
        BackboneConfig(model_name_or_path="x", load_in_4bit=True, load_in_8bit=True)


def test_a_local_backbone_is_named_by_relative_path_and_hash(
    load_tiny: Callable[..., Any], tiny_backbone: Callable[[str], Path]
) -> None:
    folder = tiny_backbone("qwen2")
    named = describe_backbone(load_tiny(), str(folder), folder.parent / "model")
    assert named == {
        "name": "../qwen2",
        "revision": None,
        "sha256": weights_hash(folder),
        "torch_dtype": "float32",
        "quantization": None,
        "gguf": None,
    }
    assert weights_hash(folder) != weights_hash(tiny_backbone("llama"))


def test_a_backbone_from_a_gguf_file_is_named_with_its_source(
    tiny_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    path = write_llama(tmp_path / "tiny.gguf", tiny_backbone("llama"))
    convert_gguf(path, tmp_path / "backbone", source="someone/tiny-chat")
    place = str(tmp_path / "backbone")
    model, _ = load_backbone(BackboneConfig(model_name_or_path=place))
    named = describe_backbone(model, place, tmp_path / "model")
    assert named["name"] == "../backbone"
    assert named["gguf"] == read_source(tmp_path / "backbone")
    assert named["gguf"]["source"] == "someone/tiny-chat"


def _copies(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def _moved(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    after = dict(model.named_parameters())
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("bits", [4, 8])
def test_both_stages_run_on_a_quantised_backbone_and_reload_with_the_same_logits(
    load_tiny: Callable[..., Any],
    distiller: Callable[..., PatternDistillationTrainer],
    finetuner: Callable[..., RecommendationTrainer],
    tmp_path: Path,
    bits: int,
) -> None:
    pytest.importorskip("bitsandbytes")
    quantised = {f"load_in_{bits}bit": True, "torch_dtype": "float32"}
    backbone = load_tiny("qwen2-wide", **quantised)
    assert getattr(backbone, f"is_loaded_in_{bits}bit")
    stage1 = distiller(tmp_path / "distil", backbone, max_steps=2)
    before = _copies(stage1.model)
    stage1.train()
    assert _moved(stage1.model, before) == {"prompt_encoder.default.embedding.weight"}
    assert stage1.model.soft_prompt.dtype == torch.float32
    stage1.model.save_pretrained(tmp_path / "prompt")

    backbone = load_tiny("qwen2-wide", **quantised)
    stage2 = finetuner(tmp_path / "finetune", tmp_path / "prompt", backbone, max_steps=2)
    assert torch.equal(stage2.model.soft_prompt, stage1.model.soft_prompt)
    before = _copies(stage2.model)
    stage2.train()
    assert _moved(stage2.model, before) == {name for name in before if ".lora_" in name}
    stage2.model.save_pretrained(tmp_path / "model")

    backbone = load_tiny("qwen2-wide", **quantised)
    backbone.load_adapter(str(tmp_path / "model"))
    again = DelRecModel.with_prompt(backbone, tmp_path / "model" / "prompt").eval()
    for name, parameter in stage2.model.named_parameters():
        if ".lora_" in name:  # TRL trains it in bfloat16 here; loaded, it computes in float32
            parameter.data = parameter.data.float()
    with torch.inference_mode():
        expected = stage2.model.eval()(input_ids=IDS).logits
        torch.testing.assert_close(again(input_ids=IDS).logits, expected, atol=1e-5, rtol=0)
