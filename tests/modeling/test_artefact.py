"""What an artefact records, and what is said when it cannot be used."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from delrec_hf.errors import InputError
from delrec_hf.instructions.templates import DOMAINS
from delrec_hf.modeling.artefact import ArtefactConfig, artefact_folder, resolve_base_model
from delrec_hf.modeling.stacked import DelRecModel

Make = Callable[..., Path]


def _change(folder: Path, **changes: Any) -> None:
    path = folder / "delrec_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def _refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as refused:
        call()
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_config_survives_a_round_trip(make_artefact: Make) -> None:
    folder = make_artefact()
    config = ArtefactConfig.load(folder)
    assert config.domain == DOMAINS["movie"]
    assert config.base_model["name"] == "../backbone"
    config.save(folder)
    assert ArtefactConfig.load(folder) == config


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    message = _refusal(lambda: ArtefactConfig.load(tmp_path))
    assert "delrec_config.json is missing" in message


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format_version": 1}', "\x00"])
def test_a_broken_config_is_named(make_artefact: Make, content: str) -> None:
    folder = make_artefact()
    (folder / "delrec_config.json").write_text(content)
    message = _refusal(lambda: ArtefactConfig.load(folder))
    assert "delrec_config.json cannot be read" in message or "is not valid JSON" in message


def test_a_config_with_a_key_too_many_or_a_broken_domain_is_refused(make_artefact: Make) -> None:
    folder = make_artefact()
    _change(folder, surprise=1)
    assert "surprise" in _refusal(lambda: ArtefactConfig.load(folder))
    folder = make_artefact("llama")
    _change(folder, domain={"item": "movie"})
    assert "cannot be read" in _refusal(lambda: ArtefactConfig.load(folder))


def test_a_newer_format_says_what_to_do(make_artefact: Make) -> None:
    folder = make_artefact()
    _change(folder, format_version=4, something_new=True)
    message = _refusal(lambda: DelRecModel.from_pretrained(folder))
    assert "format version 4" in message
    assert "install the version" in message


def test_a_folder_of_the_earlier_format_loads_and_says_what_it_lacks(
    make_artefact: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_artefact()
    now = DelRecModel.from_pretrained(folder)
    base = json.loads((folder / "delrec_config.json").read_text())["base_model"]
    del base["quantization"]
    _change(folder, format_version=1, base_model=base)
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        then = DelRecModel.from_pretrained(folder)
    assert "written by an earlier version, which recorded no quantisation" in caplog.text
    for (name, one), (_, other) in zip(
        now.named_parameters(), then.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_another_template_version_is_a_warning(
    make_artefact: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_artefact()
    _change(folder, template_version=99)
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        DelRecModel.from_pretrained(folder)
    assert caplog.text.count("template version 99") == 1


def test_other_weights_are_refused(make_artefact: Make, tiny_backbone: Callable[..., Path]) -> None:
    folder = make_artefact()
    weights = folder.parent / "backbone" / "model.safetensors"
    shutil.copy(tiny_backbone("llama") / "model.safetensors", weights)
    message = _refusal(lambda: DelRecModel.from_pretrained(folder))
    assert "sha256" in message
    assert "--base_model" in message


def test_a_moved_backbone_is_found_with_base_model(make_artefact: Make, tmp_path: Path) -> None:
    folder = make_artefact()
    shutil.move(folder.parent / "backbone", tmp_path / "elsewhere")
    message = _refusal(lambda: DelRecModel.from_pretrained(folder))
    assert "--base_model" in message
    found = DelRecModel.from_pretrained(folder, base_model=str(tmp_path / "elsewhere"))
    assert found.has_lora


def test_an_artefact_moves_with_its_backbone(make_artefact: Make, tmp_path: Path) -> None:
    folder = make_artefact()
    shutil.move(folder.parent, tmp_path / "new place")
    assert DelRecModel.from_pretrained(tmp_path / "new place" / "model").has_lora


def test_a_backbone_of_the_hub_is_named_by_id_and_revision(make_artefact: Make) -> None:
    folder = make_artefact()
    _change(folder, base_model={"name": "org/model", "revision": "abc", "sha256": None})
    config = ArtefactConfig.load(folder)
    assert resolve_base_model(config, folder) == ("org/model", "abc")
    assert resolve_base_model(config, folder, "mine") == ("mine", None)


def test_a_model_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nowhere"), "no-such-org/no-such-model", "not a name!"):
        message = _refusal(lambda name=name: artefact_folder(name))
        assert name in message


def test_a_missing_adapter_is_named(make_artefact: Make) -> None:
    folder = make_artefact()
    shutil.rmtree(folder / "prompt")
    assert "prompt" in _refusal(lambda: DelRecModel.from_pretrained(folder))
    folder = make_artefact("llama")
    (folder / "adapter_config.json").unlink()
    assert "adapter_config.json" in _refusal(lambda: DelRecModel.from_pretrained(folder))


def test_push_to_hub_names_the_way_that_sends_the_whole_model(make_artefact: Make) -> None:
    model = DelRecModel.from_pretrained(make_artefact())
    message = _refusal(lambda: model.push_to_hub("me/films"))
    assert "delrec_hf.hub.push" in message
    assert "`delrec push`" in message
