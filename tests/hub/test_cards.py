import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from delrec_hf.errors import InputError
from delrec_hf.hub.cards import model_card
from delrec_hf.hub.push import artefact_files

GOLDEN = Path(__file__).with_name("golden_card.md")
NASTY = "a|b\n---\nlicense: mit\n# *x* <script>`[l](http://e.example)` {{ 7*7 }} 'q' \"q\" \u2028:"


def change(folder: Path, name: str, *keys: str, to: Any) -> None:
    content = json.loads((folder / name).read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    (folder / name).write_text(json.dumps(content))


def header(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))


def test_card_is_the_golden_card(artefact: Path) -> None:
    assert model_card(artefact, "someone/delrec-ml-100k") == GOLDEN.read_text(encoding="utf-8")


def test_every_number_on_the_card_stands_in_its_files(artefact: Path) -> None:
    facts = json.loads((artefact / "delrec_config.json").read_text())
    results = json.loads((artefact / "results.json").read_text())
    known = {*re.findall(r"\d[\d.]*", json.dumps([facts, results]))}
    given = [abs(number) for number in [*numbers(results), *numbers(facts)]]
    shown = {f"{number:{form}}" for number in given for form in (".1f", ".3f", ".3g")}
    card = model_card(artefact, "someone/delrec-ml-100k")
    text = re.sub(r"```.*?```", "", card, flags=re.DOTALL)  # how to load, citation
    text = re.sub(r"arxiv\.org/\S+|(HR|NDCG|hr|ndcg)@\d+|95 %|\(stage [12]\)|Stage [12]", "", text)
    text = text.replace("delrec-ml-100k", "")
    unknown = set(re.findall(r"\d[\d.]*\d|\d", text)) - known - shown
    assert unknown == set()


def numbers(content: Any) -> list[float]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        return [number for one in content for number in numbers(one)]
    return [content] if isinstance(content, int | float) else []


def test_header_is_what_the_hub_reads(artefact: Path) -> None:
    found = header(model_card(artefact, "someone/delrec-ml-100k"))
    assert found["base_model"] == "Qwen/Qwen3-0.6B"
    assert found["library_name"] == "peft"
    assert found["pipeline_tag"] == "text-generation"
    tags = ["delrec", "recommendation", "lora", "prompt-tuning"]
    assert found["tags"] == [*tags, "base_model:adapter:Qwen/Qwen3-0.6B"]
    assert "license" not in found
    assert "datasets" not in found  # ml-100k was a folder
    result = found["model-index"][0]["results"][0]
    assert {one["type"]: one["value"] for one in result["metrics"]}["hr@1"] == 0.3127
    card = ModelCard(model_card(artefact, "someone/delrec-ml-100k"))
    assert len(card.data.eval_results) == 6


def test_a_dataset_of_the_hub_is_linked(artefact: Path) -> None:
    change(artefact, "delrec_config.json", "data", "dataset", to="someone/films")
    assert header(model_card(artefact))["datasets"] == ["someone/films"]


def test_a_local_backbone_is_named_by_its_hash_and_not_as_a_hub_model(artefact: Path) -> None:
    base = {"name": "../backbone", "revision": None, "sha256": "ab12cd"}
    change(artefact, "delrec_config.json", "base_model", to=base)
    card = model_card(artefact)
    assert "base_model" not in header(card)
    assert not any("base_model" in tag for tag in header(card)["tags"])
    assert "sha256 of its weights ab12cd" in card
    assert "huggingface.co" not in card
    assert 'base_model="PATH_OF_THE_BACKBONE"' in card


FROM_GGUF: dict[str, Any] = {
    "name": "../backbone",
    "revision": None,
    "sha256": "ab12cd",
    "torch_dtype": "float32",
    "quantization": None,
    "gguf": {
        "source": "someone/small-chat",
        "licence": "apache-2.0",
        "file": "small chat.Q4_1.gguf",
        "sha256": "ef34",
        "architecture": "llama",
        "quantization": "Q4_1",
        "is_quantized": True,
        "weights": {"Q4_1": 100, "F32": 10},
        "torch_dtype": "float32",
    },
}


def test_a_backbone_from_a_gguf_file_is_named_by_its_source_and_the_file(artefact: Path) -> None:
    change(artefact, "delrec_config.json", "base_model", to=FROM_GGUF)
    card = model_card(artefact)
    assert header(card)["base_model"] == "someone/small-chat"
    assert "base_model:adapter:someone/small-chat" in header(card)["tags"]
    assert "[someone/small-chat](https://huggingface.co/someone/small-chat)" in card
    assert "by way of the Q4\\_1 GGUF file small chat.Q4\\_1.gguf, sha256 ef34" in card
    assert "| licence of the base model | apache-2.0 |" in card
    assert "weights came from that quantised file, so they are not the original ones" in card
    assert "delrec backbone --gguf 'small chat.Q4_1.gguf' --output_dir" in card
    assert 'base_model="PATH_OF_THE_BACKBONE"' in card
    assert 'from_pretrained(\n    "PATH_OF_THE_BACKBONE"' in card


def test_a_gguf_file_of_unknown_source_or_without_rounding_says_so(artefact: Path) -> None:
    unknown = {**FROM_GGUF["gguf"], "source": None, "licence": None, "is_quantized": False}
    base = {**FROM_GGUF, "gguf": {**unknown, "quantization": "F16"}}
    change(artefact, "delrec_config.json", "base_model", to=base)
    card = model_card(artefact)
    assert "base_model" not in header(card)
    assert "| source of the base model | not recorded, by way of the F16 GGUF file" in card
    assert "| licence of the base model | not recorded |" in card
    assert "not the original ones" not in card


def test_a_model_without_results_says_that_nothing_was_measured(artefact: Path) -> None:
    (artefact / "results.json").unlink()
    card = model_card(artefact)
    assert "Nothing was measured" in card
    assert not {"model-index", "metrics"} & set(header(card))


def test_a_picture_of_the_results_is_shown_where_there_is_one(artefact: Path) -> None:
    shown = "![Each system's result with its 95 % interval](results.png)"
    assert shown not in model_card(artefact)
    (artefact / "results.png").write_bytes(b"picture")
    assert shown in model_card(artefact)
    assert "results.png" in artefact_files(artefact)


def test_a_fusion_is_named_where_it_was_measured(artefact: Path) -> None:
    line = "| fusion with the teacher in `teacher/` | 0.0712 [0.0613, 0.0811] x delrec + 0.845"
    assert line in model_card(artefact)
    change(artefact, "delrec_config.json", "fusion", to=None)
    assert "fusion with the teacher" not in model_card(artefact)


def test_a_stage_without_settings_says_so(artefact: Path) -> None:
    change(artefact, "delrec_config.json", "finetune", to={})
    assert "Stage 2, finetune:\n\nDefaults only.\n" in model_card(artefact)


def test_unknown_terms_are_called_unknown(artefact: Path) -> None:
    change(artefact, "delrec_config.json", "data", "terms", to=None)
    assert "terms of the data were not recorded" in model_card(artefact)


def test_no_text_of_the_files_can_break_header_tables_or_code(artefact: Path) -> None:
    plain = model_card(artefact, "someone/it")
    for keys in (("data", "dataset"), ("data", "terms"), ("teacher", "type"), ("distil", "optim")):
        change(artefact, "delrec_config.json", *keys, to=NASTY)
    change(artefact, "delrec_config.json", "base_model", "revision", to=NASTY)
    gguf = {**FROM_GGUF["gguf"], "source": NASTY, "licence": NASTY, "file": NASTY}
    change(artefact, "delrec_config.json", "base_model", "gguf", to=gguf)
    change(artefact, "delrec_config.json", "domain", "items", to=NASTY)
    change(artefact, "results.json", "protocol", "dataset", to=NASTY)
    results = json.loads((artefact / "results.json").read_text())
    results["systems"][NASTY] = copy.deepcopy(results["systems"]["random"])
    (artefact / "results.json").write_text(json.dumps(results))
    card = model_card(artefact, "someone/it")
    assert set(header(card)) == set(header(plain))
    assert "license" not in ModelCard(card).data.to_dict()
    body = card.split("\n---\n", 1)[1]
    prose = re.sub(r"```.*?```|\\.", "", body, flags=re.DOTALL)  # without code and escapes
    assert "<script>" not in prose
    assert "](http://e" not in prose
    for block in re.findall(r"(?:^\|.*\n)+", body, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1
    assert "{{ 7\\*7 }}" in body  # the template does not run what it shows
    for code in re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL):
        compile(code, "card", "exec")


def test_a_folder_without_its_facts_is_refused(artefact: Path) -> None:
    change(artefact, "delrec_config.json", "finetune", to=None)
    with pytest.raises(InputError, match=r"delrec_config\.json lacks finetune"):
        model_card(artefact)
    (artefact / "results.json").write_text("{")
    change(artefact, "delrec_config.json", "finetune", to={})
    with pytest.raises(InputError, match=r"results\.json is not valid JSON"):
        model_card(artefact)
    (artefact / "delrec_config.json").unlink()
    with pytest.raises(InputError, match=r"delrec_config\.json is missing"):
        model_card(artefact)


def test_a_card_says_whether_candidates_were_listed_and_how_scores_are_calibrated(
    artefact: Path,
) -> None:
    change(artefact, "delrec_config.json", "candidates", to="unlisted")
    change(artefact, "delrec_config.json", "scoring", to="calibrated")
    change(artefact, "delrec_config.json", "calibration_weight", to=0.85)
    card = model_card(artefact, "someone/delrec")
    assert "| candidates in training | 20, not listed in the prompt |" in card
    assert "less 0.85 times that without a history |" in card
