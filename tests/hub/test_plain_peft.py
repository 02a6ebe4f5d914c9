"""The lines that load a model without delrec_hf, run as they are printed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from delrec_hf.hub.cards import model_card
from delrec_hf.modeling.backbone import BackboneConfig, describe_backbone, load_backbone
from delrec_hf.modeling.stacked import DelRecModel
from tests.modeling.test_precision import LOADINGS, precisions

Make = Callable[..., Path]
IDS = torch.tensor([[5, 30, 77, 200, 9, 41]])
README = Path(__file__).parents[2] / "README.md"


def _lines(text: str) -> str:
    """Return the one code block that loads with PEFT."""
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (block,) = [block for block in blocks if "import PeftModel" in block]
    return block


@torch.inference_mode()
def _logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits.float()


def _run(lines: str) -> torch.Tensor:
    found: dict[str, Any] = {}
    exec(lines, found)
    return _logits(found["model"])


def _run_card(folder: Path, backbone: Path) -> torch.Tensor:
    lines = _lines(model_card(folder))
    assert "delrec_hf" not in lines
    lines = lines.replace('"PATH_OF_THE_BACKBONE"', repr(str(backbone)))
    return _run(lines.replace('"PATH_OF_THIS_FOLDER"', repr(str(folder))))


# Equal weights in equal kernels; where tensors lie in memory may change the last bits.
def _same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", ["qwen2-wide", "llama-wide"])
@precisions
def test_the_cards_lines_give_the_logits_of_the_model(
    make_artefact: Make, shape: str, loading: dict[str, Any]
) -> None:
    if "bit" in "".join(loading):
        pytest.importorskip("bitsandbytes")
    folder = make_artefact(shape, loading=loading)
    found = _run_card(folder, folder.parent / "backbone")
    _same(found, _logits(DelRecModel.from_pretrained(folder)))


def test_the_cards_lines_leave_a_backbone_alone_whose_files_are_quantised(
    make_artefact: Make,
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = make_artefact("qwen2-wide", loading=LOADINGS["4-bit"])
    quantised = folder.parent / "quantised"
    config = BackboneConfig(str(folder.parent / "backbone"), **LOADINGS["4-bit"])
    backbone, tokenizer = load_backbone(config)
    backbone.save_pretrained(quantised)
    tokenizer.save_pretrained(quantised)
    again, _ = load_backbone(BackboneConfig(str(quantised)))
    content = json.loads((folder / "delrec_config.json").read_text())
    content["base_model"] = describe_backbone(again, str(quantised), folder)
    (folder / "delrec_config.json").write_text(json.dumps(content))
    assert "BitsAndBytesConfig" not in model_card(folder)
    _same(_run_card(folder, quantised), _logits(DelRecModel.from_pretrained(folder)))


def test_the_lines_of_a_folder_of_an_earlier_version_run(make_artefact: Make) -> None:
    folder = make_artefact()
    content = json.loads((folder / "delrec_config.json").read_text())
    for key in ("torch_dtype", "quantization"):
        del content["base_model"][key]
    (folder / "delrec_config.json").write_text(json.dumps(content))
    found = _run_card(folder, folder.parent / "backbone")
    _same(found, _logits(DelRecModel.from_pretrained(folder)))


def test_the_readmes_lines_give_the_logits_of_the_model(
    make_artefact: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_artefact()
    expected = _logits(DelRecModel.from_pretrained(folder))
    (tmp_path / "runs").mkdir()
    folder.parent.rename(tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    _same(_run(_lines(README.read_text(encoding="utf-8"))), expected)
