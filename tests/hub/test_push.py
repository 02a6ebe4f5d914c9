import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load

from delrec_hf.errors import InputError
from delrec_hf.hub.cards import model_card
from delrec_hf.hub.push import push
from delrec_hf.modeling.stacked import DelRecModel

SENT = [
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "catalogue.parquet",
    "chat_template.jinja",
    "delrec_config.json",
    "prompt/adapter_config.json",
    "prompt/adapter_model.safetensors",
    "results.json",
    "teacher/config.json",
    "teacher/model.safetensors",
    "teacher/teacher.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
NAME = "someone/delrec-ml-100k"
TOKEN = "hf_of_this_test"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The two calls that reach the network, caught where they would leave the machine."""
    calls: list[tuple[str, Any]] = []

    def create_repo(self: Any, repo_id: str, **options: Any) -> None:
        calls.append(("create_repo", (repo_id, options)))

    def create_commit(self: Any, repo_id: str, operations: Any, **_: Any) -> None:
        calls.append(("create_commit", (repo_id, list(operations))))

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return calls


def test_dry_run_prints_card_and_files_and_leaves_everything_alone(
    artefact: Path, hub: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in artefact.rglob("*")}
    push(artefact, NAME, dry_run=True)
    printed = capsys.readouterr().out
    card = model_card(artefact, NAME)
    assert printed.startswith(card)
    listed = dict(
        reversed(line.strip().split(" bytes  "))
        for line in printed.splitlines()
        if "bytes  " in line
    )
    assert sorted(listed) == SENT
    assert listed["prompt/adapter_model.safetensors"] == "1,001"
    assert listed["README.md"] == f"{len(card.encode()):,}"
    assert hub == []
    assert {path: path.stat().st_mtime_ns for path in artefact.rglob("*")} == before


def test_one_commit_holds_exactly_the_artefact_with_its_card(
    artefact: Path, hub: list[tuple[str, Any]]
) -> None:
    (artefact / "README.md").write_text("an old card")
    for stray in ("optimizer.pt", "pytorch_model.bin", "x.pkl", "prompt/README.md", ".secret"):
        (artefact / stray).write_text("stray")
    push(str(artefact), NAME, private=True)
    assert [name for name, _ in hub] == ["create_repo", "create_commit"]
    assert hub[0][1] == (NAME, {"private": True, "exist_ok": True})
    repo_id, operations = hub[1][1]
    assert repo_id == NAME
    content = {one.path_in_repo: Path(one.path_or_fileobj).read_bytes() for one in operations}
    assert sorted(content) == SENT
    assert content["README.md"].decode() == model_card(artefact, NAME)
    assert content["adapter_model.safetensors"] == b"x" * 1000


def test_stray_files_are_named(
    artefact: Path, hub: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    (artefact / "optimizer.pt").write_text("stray")
    with caplog.at_level(logging.WARNING, "delrec_hf"):
        push(artefact, NAME, dry_run=True)
    assert "not sent: optimizer.pt" in caplog.text


def test_a_local_backbone_is_warned_about(
    artefact: Path, hub: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "delrec_hf"):
        push(artefact, NAME, dry_run=True)
        assert not caplog.text
        facts = json.loads((artefact / "delrec_config.json").read_text())
        facts["base_model"] = {"name": "../backbone", "revision": None, "sha256": "ab12"}
        (artefact / "delrec_config.json").write_text(json.dumps(facts))
        push(artefact, NAME, dry_run=True)
    assert "must have it and give base_model" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", {"base_model_name_or_path": "/home/someone/base"}),
        ("prompt/adapter_config.json", {"tokenizer_name_or_path": "C:\\models\\base"}),
        ("results.json", {"protocol": {"notes": [{"file": "~/runs/1"}]}}),
        ("tokenizer_config.json", {"name_or_path": "/models"}),
    ],
)
def test_a_path_of_this_machine_is_refused(
    artefact: Path, hub: list[tuple[str, Any]], name: str, content: dict[str, Any]
) -> None:
    (artefact / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"holds the path .* of this machine"):
        push(artefact, NAME)
    assert hub == []


def test_a_folder_that_is_no_artefact_is_refused_by_what_is_missing(artefact: Path) -> None:
    (artefact / "prompt" / "adapter_model.safetensors").unlink()
    (artefact / "delrec_config.json").unlink()
    with pytest.raises(
        InputError, match=r"prompt/adapter_model\.safetensors, delrec_config\.json missing"
    ):
        push(artefact, NAME, dry_run=True)
    with pytest.raises(InputError, match="is not a folder"):
        push(artefact / "nothing", NAME, dry_run=True)


@pytest.mark.parametrize("name", ["delrec", "a/b/c", "a b/c", "owner/..", "owner/-x", ""])
def test_a_name_that_is_not_owner_and_name_is_refused(artefact: Path, name: str) -> None:
    with pytest.raises(InputError, match="write OWNER/"):
        push(artefact, name, dry_run=True)


def test_who_is_not_logged_in_is_told_how_to(
    artefact: Path, hub: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(artefact / "no-token"))
    with pytest.raises(InputError, match="hf auth login"):
        push(artefact, NAME)
    assert hub == []
    assert not (artefact / "README.md").exists()


def test_a_hub_that_cannot_be_reached_is_one_line_without_the_token(
    artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="failed") as caught:
        push(artefact, NAME)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_offline_mode_is_one_line(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"failed: .*offline"):
        push(artefact, NAME)


def test_a_loaded_model_is_sent_with_its_adapters_as_they_are(
    make_artefact: Callable[..., Path], hub: list[tuple[str, Any]]
) -> None:
    folder = make_artefact()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    model = DelRecModel.from_pretrained(folder)
    with torch.no_grad():
        model.soft_prompt.add_(1)
    sent: dict[str, bytes] = {}
    keep = huggingface_hub.HfApi.create_commit

    def read(self: Any, repo_id: str, operations: Any, **options: Any) -> None:
        for one in operations:  # the files are gone once they are sent
            sent[one.path_in_repo] = Path(one.path_or_fileobj).read_bytes()
        keep(self, repo_id, operations, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.HfApi, "create_commit", read)
        push(model, NAME)
    prompt = "prompt/adapter_model.safetensors"
    assert torch.equal(load(sent[prompt])["prompt_embeddings"], model.soft_prompt)
    assert sent[prompt] != before[folder / prompt]
    lora = "adapter_model.safetensors"
    assert sent[lora] == before[folder / lora]
    assert {"README.md", "delrec_config.json", "catalogue.parquet"} <= sent.keys()
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_that_was_loaded_from_nowhere_is_refused(
    stacked: Callable[..., DelRecModel], hub: list[tuple[str, Any]]
) -> None:
    with pytest.raises(InputError, match="no artefact to send"):
        push(stacked(), NAME)
    assert hub == []
