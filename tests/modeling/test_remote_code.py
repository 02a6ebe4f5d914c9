"""A tokenizer that brings its own code is loaded wherever the user allows it, and nowhere else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PromptTuningConfig
from peft.tuners.prompt_tuning import PromptEmbedding
from transformers import AutoTokenizer

from delrec_hf import Recommender
from delrec_hf.cli import main
from delrec_hf.errors import InputError
from delrec_hf.modeling.backbone import BackboneConfig, load_backbone
from delrec_hf.modeling.export import export
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.training.distillation import DistilConfig
from delrec_hf.training.soft_prompt import new_soft_prompt

Make = Callable[..., Path]
CODE = """
from transformers import PreTrainedTokenizerFast


class OwnTokenizer(PreTrainedTokenizerFast):
    is_own = True
"""


def _give_own_code(folder: Path) -> None:
    """Make the tokenizer of a folder one that its own code defines."""
    (folder / "own_tokenizer.py").write_text(CODE)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content["auto_map"] = {"AutoTokenizer": [None, "own_tokenizer.OwnTokenizer"]}
    content["tokenizer_class"] = "OwnTokenizer"
    path.write_text(json.dumps(content))


@pytest.fixture
def artefact(make_artefact: Make) -> Path:
    folder = make_artefact()
    _give_own_code(folder)
    _give_own_code(folder.parent / "backbone")
    return folder


def test_recommender_and_export_run_the_code_only_where_it_is_allowed(
    artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = Recommender.from_pretrained(artefact, trust_remote_code=True)
    assert allowed.encoder.tokenizer.is_own
    assert len(allowed.recommend(["i0"], ["i6", "i7"])) == 2
    export(artefact, tmp_path / "plain", trust_remote_code=True)
    assert AutoTokenizer.from_pretrained(tmp_path / "plain", trust_remote_code=True).is_own
    words = ["--model", str(artefact), "--history", "i0", "--candidates", "i6"]
    assert main(["recommend", *words, "--trust_remote_code"]) == 0
    for call in (
        lambda: Recommender.from_pretrained(artefact),
        lambda: export(artefact, tmp_path / "refused"),
    ):
        with pytest.raises(InputError, match="trust_remote_code") as refused:
            call()
        assert "\n" not in str(refused.value)
    assert main(["recommend", *words]) == 2


def test_a_prompt_that_starts_from_a_text_reads_it_with_the_tokenizer_at_hand(
    artefact: Path, distil_config: Callable[..., DistilConfig], tmp_path: Path
) -> None:
    place = str(artefact.parent / "backbone")
    config = BackboneConfig(model_name_or_path=place, trust_remote_code=True)
    backbone, tokenizer = load_backbone(config)
    model = new_soft_prompt(backbone, distil_config(tmp_path, prompt_init="text"), tokenizer)
    assert tokenizer.is_own
    model.save_pretrained(tmp_path / "prompt")
    assert "trust_remote_code" not in (tmp_path / "prompt" / "adapter_config.json").read_text()
    loaded = DelRecModel.with_prompt(backbone, tmp_path / "prompt")
    assert torch.equal(loaded.soft_prompt, model.soft_prompt)


@pytest.mark.parametrize("length", [3, 40])
@pytest.mark.parametrize("shape", ["qwen2", "gemma2"])
def test_a_prompt_from_a_text_starts_as_pefts_own(
    tiny_backbone: Callable[[str], Path],
    distil_config: Callable[..., DistilConfig],
    tmp_path: Path,
    shape: str,
    length: int,
) -> None:
    place = str(tiny_backbone(shape))
    backbone, tokenizer = load_backbone(BackboneConfig(model_name_or_path=place))
    config = distil_config(tmp_path, prompt_init="text", num_virtual_tokens=length)
    ours = new_soft_prompt(backbone, config, tokenizer).soft_prompt
    settings = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=length,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=config.prompt_init_text,
        tokenizer_name_or_path=place,
        token_dim=32,
        num_transformer_submodules=1,
    )
    pefts = PromptEmbedding(settings, backbone.get_input_embeddings()).embedding.weight
    assert torch.equal(ours, pefts)  # rows of one table, copied
