"""Whatever is measured, served or exported computes in the precision that it was trained in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from delrec_hf.errors import InputError
from delrec_hf.modeling.backbone import BackboneConfig, describe_backbone, load_backbone
from delrec_hf.modeling.export import export
from delrec_hf.modeling.stacked import DelRecModel, load_adapters
from delrec_hf.runs.trainings import save_adapters
from delrec_hf.training.recommendation import RecommendationTrainer

pytest.importorskip("bitsandbytes")

Make = Callable[..., Path]
IDS = torch.tensor([[5, 30, 77, 200, 9, 41]])
SHAPE = "qwen2-wide"
LOADINGS: dict[str, dict[str, Any]] = {
    "float32": {"torch_dtype": "float32"},
    "bfloat16": {"torch_dtype": "bfloat16"},
    "4-bit": {"load_in_4bit": True, "torch_dtype": "float32"},
    "4-bit, bfloat16": {"load_in_4bit": True, "torch_dtype": "bfloat16"},
    "4-bit, computing in another dtype than it is stored in": {"load_in_4bit": True},
    "8-bit": {"load_in_8bit": True, "torch_dtype": "float32"},
}
precisions = pytest.mark.parametrize("loading", LOADINGS.values(), ids=LOADINGS.keys())


@torch.inference_mode()
def _logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits.float()


def _same(found: torch.Tensor, expected: torch.Tensor) -> None:
    # Equal weights in equal kernels; where tensors lie in memory may change the last bits.
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@precisions
@pytest.mark.parametrize("prompted", [True, False], ids=["delrec", "lora-only"])
def test_what_is_measured_is_what_was_validated(
    load_tiny: Callable[..., Any],
    save_prompt: Callable[..., Path],
    finetuner: Callable[..., RecommendationTrainer],
    tmp_path: Path,
    loading: dict[str, Any],
    prompted: bool,
) -> None:
    prompt = save_prompt(load_tiny(SHAPE, **loading)) if prompted else None
    trainer = finetuner(tmp_path / "finetune", prompt, load_tiny(SHAPE, **loading), max_steps=2)
    trainer.train()
    trainer.model.save_pretrained(tmp_path / "model")
    loaded = load_adapters(load_tiny(SHAPE, **loading), tmp_path / "model")
    assert isinstance(loaded, DelRecModel) == prompted
    for model in (trainer.model, loaded):
        adapters = [p for n, p in model.named_parameters() if ".lora_" in n or "prompt" in n]
        assert {parameter.dtype for parameter in adapters} == {torch.float32}
    _same(_logits(loaded), _logits(trainer.model))


@pytest.mark.parametrize("bits", ["bfloat16", "4-bit, bfloat16", "8-bit"])
@pytest.mark.parametrize("kind", ["dora", "adalora"])
def test_other_kinds_of_lora_are_measured_in_float32_as_they_were_validated(
    load_tiny: Callable[..., Any],
    save_prompt: Callable[..., Path],
    finetuner: Callable[..., RecommendationTrainer],
    tmp_path: Path,
    kind: str,
    bits: str,
) -> None:
    loading = LOADINGS[bits]
    prompt = save_prompt(load_tiny(SHAPE, **loading))
    settings = {"max_steps": 3, "lora_type": kind}
    if (kind, bits) == ("dora", "8-bit"):
        with pytest.raises(InputError, match="loses the scales of 8-bit weights") as refused:
            finetuner(tmp_path, prompt, load_tiny(SHAPE, **loading), **settings)
        assert "\n" not in str(refused.value)
        return
    trainer = finetuner(tmp_path / "finetune", prompt, load_tiny(SHAPE, **loading), **settings)
    trainer.train()
    save_adapters(trainer.model, tmp_path / "model", "backbone")
    loaded = load_adapters(load_tiny(SHAPE, **loading), tmp_path / "model")
    for model in (trainer.model, loaded):
        adapters = [p for n, p in model.named_parameters() if ".lora_" in n]
        assert {parameter.dtype for parameter in adapters} == {torch.float32}
    found, expected = _logits(loaded), _logits(trainer.model)
    if kind == "dora":
        _same(found, expected)
    else:  # saved as LoRA, which multiplies in another order: bfloat16 rounds some otherwise
        assert (found - expected).std() < 0.02  # the logits' deviation is 2.3


@precisions
def test_an_artefact_loads_as_it_was_trained(
    make_artefact: Make, stacked: Callable[..., DelRecModel], loading: dict[str, Any]
) -> None:
    folder = make_artefact(SHAPE, loading=loading)
    _same(_logits(DelRecModel.from_pretrained(folder)), _logits(stacked(SHAPE, **loading)))


def _recorded(folder: Path) -> dict[str, Any]:
    base: dict[str, Any] = json.loads((folder / "delrec_config.json").read_text())["base_model"]
    return base


def test_the_artefact_records_dtype_and_quantisation(make_artefact: Make, tmp_path: Path) -> None:
    found = {}
    for name, loading in LOADINGS.items():
        folder = make_artefact(SHAPE, loading=loading)
        found[name] = (_recorded(folder)["torch_dtype"], _recorded(folder)["quantization"])
        folder.parent.rename(tmp_path / name)
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    assert found == {
        "float32": ("float32", None),
        "bfloat16": ("bfloat16", None),
        "4-bit": ("float32", {**four, "bnb_4bit_compute_dtype": "float32"}),
        "4-bit, bfloat16": ("bfloat16", {**four, "bnb_4bit_compute_dtype": "bfloat16"}),
        "4-bit, computing in another dtype than it is stored in": (
            "float32",
            {**four, "bnb_4bit_compute_dtype": "bfloat16"},
        ),
        "8-bit": ("float32", {"load_in_8bit": True}),
    }


@pytest.mark.parametrize(
    ("trained", "given", "as_if_trained"),
    [
        ("bfloat16", {"torch_dtype": "float32"}, "float32"),
        ("4-bit", {"load_in_4bit": False}, "float32"),
        ("8-bit", {"load_in_4bit": False, "torch_dtype": "bfloat16"}, "bfloat16"),
        ("float32", {"load_in_4bit": True}, "4-bit"),
        ("8-bit", {"load_in_4bit": True, "device": "cpu"}, "4-bit"),
        ("4-bit", {"load_in_4bit": True}, "4-bit"),
        ("float32", {"load_in_4bit": True, "torch_dtype": "bfloat16"}, "4-bit, bfloat16"),
    ],
)
def test_who_asks_for_another_precision_gets_it(
    make_artefact: Make,
    stacked: Callable[..., DelRecModel],
    trained: str,
    given: dict[str, Any],
    as_if_trained: str,
) -> None:
    folder = make_artefact(SHAPE, loading=LOADINGS[trained])
    # The adapters are those of the artefact: made on a rounded backbone they are others.
    expected = stacked(SHAPE, **LOADINGS[as_if_trained])
    expected.load_adapter(folder)
    expected.load_adapter(folder / "prompt")
    _same(_logits(DelRecModel.from_pretrained(folder, **given)), _logits(expected))


@pytest.mark.parametrize("bits", ["4-bit, bfloat16", "8-bit"])
def test_another_dtype_leaves_the_quantised_weights_as_they_are(
    make_artefact: Make, bits: str
) -> None:
    folder = make_artefact(SHAPE, loading=LOADINGS[bits])
    models = [DelRecModel.from_pretrained(folder, torch_dtype=d) for d in ("float32", "bfloat16")]
    for model, dtype in zip(models, (torch.float32, torch.bfloat16), strict=True):
        weights = {p.dtype for n, p in model.backbone.named_parameters() if ".lora_" not in n}
        assert weights == {dtype, torch.uint8 if "4" in bits else torch.int8}
    found, other = (
        {n: p for n, p in m.named_parameters() if not p.is_floating_point()} for m in models
    )
    assert found
    assert all(torch.equal(weight, other[name]) for name, weight in found.items())
    # Only what is computed between them is rounded otherwise; the logits' deviation is 2.3.
    assert (_logits(models[0]) - _logits(models[1])).std() < 0.2


def test_a_folder_of_an_earlier_version_loads_as_before(make_artefact: Make) -> None:
    folder = make_artefact(SHAPE)
    expected = _logits(DelRecModel.from_pretrained(folder))
    content = json.loads((folder / "delrec_config.json").read_text())
    for key in ("quantization", "torch_dtype"):
        del content["base_model"][key]
        (folder / "delrec_config.json").write_text(json.dumps(content))
        _same(_logits(DelRecModel.from_pretrained(folder)), expected)


def test_a_backbone_whose_files_are_quantised_is_loaded_as_they_are(
    make_artefact: Make, tmp_path: Path
) -> None:
    folder = make_artefact(SHAPE, loading=LOADINGS["4-bit"])
    expected = _logits(DelRecModel.from_pretrained(folder))
    quantised = folder.parent / "quantised"
    backbone, tokenizer = load_backbone(
        BackboneConfig(model_name_or_path=str(folder.parent / "backbone"), **LOADINGS["4-bit"])
    )
    backbone.save_pretrained(quantised)
    tokenizer.save_pretrained(quantised)

    again, _ = load_backbone(BackboneConfig(model_name_or_path=str(quantised)))
    named = describe_backbone(again, str(quantised), folder)
    assert (named["name"], named["torch_dtype"]) == ("../quantised", "float32")
    assert named["quantization"] == {"pre_quantized": "bitsandbytes"}
    content = json.loads((folder / "delrec_config.json").read_text())
    (folder / "delrec_config.json").write_text(json.dumps(content | {"base_model": named}))
    _same(_logits(DelRecModel.from_pretrained(folder)), expected)
    _same(_logits(DelRecModel.from_pretrained(folder, load_in_4bit=True)), expected)
    with pytest.raises(InputError, match=r"files of backbone .* are quantised themselves"):
        DelRecModel.from_pretrained(folder, load_in_4bit=False)


@torch.inference_mode()
def _exported_logits(folder: Path) -> torch.Tensor:
    """Return what the exported checkpoint answers behind its virtual tokens, but for those."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    virtual = tokenizer.convert_tokens_to_ids([f"<|delrec_{number}|>" for number in range(5)])
    ids = torch.cat([torch.tensor([virtual]), IDS], dim=1)
    return model(input_ids=ids).logits.float()[..., : min(virtual)]


@precisions
def test_the_exported_checkpoint_holds_the_weights_that_lora_was_trained_on(
    make_artefact: Make, tmp_path: Path, loading: dict[str, Any]
) -> None:
    folder = make_artefact(SHAPE, loading=loading)
    export(folder, tmp_path / "plain")
    assert "quantization_config" not in (tmp_path / "plain" / "config.json").read_text()
    found = _exported_logits(tmp_path / "plain")
    expected = _logits(DelRecModel.from_pretrained(folder))[..., : found.shape[-1]]
    quantization = _recorded(folder)["quantization"] or {}
    dtypes = {_recorded(folder)["torch_dtype"], quantization.get("bnb_4bit_compute_dtype")}
    if "bfloat16" in dtypes or "load_in_8bit" in quantization:
        # LoRA's product is rounded with the weight, not apart from it, and 8-bit layers round what
        # they read: the logits, whose deviation is 2.3, differ by a few hundredths of it.
        assert (found - expected).std() < 0.1
    else:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_export_takes_another_dtype_device_and_backbone(
    make_artefact: Make, tmp_path: Path
) -> None:
    folder = make_artefact(SHAPE, loading=LOADINGS["4-bit, bfloat16"])
    moved = shutil.move(folder.parent / "backbone", tmp_path / "elsewhere")
    export(folder, tmp_path / "wide", base_model=str(moved), torch_dtype="float32", device="cpu")
    expected = _logits(DelRecModel.from_pretrained(folder, base_model=str(moved)))
    found = _exported_logits(tmp_path / "wide")
    assert (found - expected[..., : found.shape[-1]]).std() < 0.1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "wide").dtype == torch.float32

    export(folder, tmp_path / "plain", base_model=str(moved), load_in_4bit=False)
    unquantised = DelRecModel.from_pretrained(folder, base_model=str(moved), load_in_4bit=False)
    found = _exported_logits(tmp_path / "plain")
    assert (found - _logits(unquantised)[..., : found.shape[-1]]).std() < 0.1
    assert (found - expected[..., : found.shape[-1]]).std() > 0.2


def test_an_export_in_float32_holds_no_weights_rounded_to_the_dtype_of_training(
    make_artefact: Make, tmp_path: Path
) -> None:
    folder = make_artefact(SHAPE, loading=LOADINGS["bfloat16"])
    export(folder, tmp_path / "wide", torch_dtype="float32")
    expected = _logits(DelRecModel.from_pretrained(folder, torch_dtype="float32"))
    found = _exported_logits(tmp_path / "wide")
    torch.testing.assert_close(found, expected[..., : found.shape[-1]], atol=1e-4, rtol=0)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta data", ""])
def test_a_device_that_is_not_there_is_one_line(make_artefact: Make, device: str) -> None:
    with pytest.raises(InputError, match="cannot be used here") as refused:
        DelRecModel.from_pretrained(make_artefact(), device=device)
    assert "\n" not in str(refused.value)


def test_lora_of_another_backbone_is_refused(
    make_artefact: Make, load_tiny: Callable[..., Any]
) -> None:
    folder = make_artefact("llama")
    for shape in ("llama-wide", "gpt2"):
        with pytest.raises(InputError, match="does not fit this backbone") as refused:
            load_adapters(load_tiny(shape), folder)
        assert "\n" not in str(refused.value)
