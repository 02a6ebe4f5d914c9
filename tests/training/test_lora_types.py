"""Every kind of LoRA trains, resumes, loads with plain PEFT and exports, whatever it trains on.

There are few combinations here, in which any two settings meet; `make test-grid` tries all.
"""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from delrec_hf.instructions.templates import DOMAINS
from delrec_hf.modeling.artefact import ArtefactConfig
from delrec_hf.modeling.backbone import BackboneConfig, describe_backbone, load_backbone
from delrec_hf.modeling.export import export
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.runs.trainings import save_adapters
from delrec_hf.training.recommendation import RecommendationTrainer

TYPES = ("lora", "rslora", "dora", "adalora")
SHAPES = ("llama-64", "qwen3-64", "gemma3-64", "gpt_neox-64")
GRID = list(itertools.product(TYPES, SHAPES, *[(False, True)] * 4))
IDS = torch.tensor([[5, 30, 77, 200, 9, 41]])
Cell = tuple[str, str, bool, bool, bool, bool]


def _any_two_meet() -> list[Cell]:
    """Return 16 cells of the grid in which any two values of any two settings meet.

    Four kinds and four shapes are two bits each; each setting of two values is another sum of a bit
    of the one and a bit of the other.
    """
    return [
        (TYPES[2 * a + b], SHAPES[2 * c + d], *map(bool, (a ^ c, b ^ d, a ^ d, b ^ c)))
        for a, b, c, d in itertools.product((0, 1), repeat=4)
    ]


def _name(cell: Cell) -> str:
    kind, shape, tied, quantised, checkpointing, listwise = cell
    return "-".join(
        [
            kind,
            f"{shape}-tied" if tied else shape,
            "4bit" if quantised else "full",
            *["checkpointing"] * checkpointing,
            "listwise" if listwise else "title",
        ]
    )


CELLS = GRID if os.environ.get("DELREC_GRID") else _any_two_meet()


def test_any_two_settings_meet_in_some_cell() -> None:
    for one, other in itertools.combinations(range(6), 2):
        assert {(c[one], c[other]) for c in _any_two_meet()} == {(c[one], c[other]) for c in GRID}


@torch.inference_mode()
def _logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits.float()


@pytest.mark.parametrize("cell", CELLS, ids=map(_name, CELLS))
def test_it_trains_resumes_loads_with_plain_peft_and_exports(
    finetuner: Callable[..., RecommendationTrainer],
    load_tiny: Callable[..., Any],
    tiny_backbone: Callable[[str], Path],
    save_prompt: Callable[..., Path],
    tmp_path: Path,
    cell: Cell,
) -> None:
    kind, shape, tied, quantised, checkpointing, listwise = cell
    if quantised:
        pytest.importorskip("bitsandbytes")
    shape = f"{shape}-tied" if tied else shape
    loading = {"torch_dtype": "float32", "load_in_4bit": quantised}
    settings: dict[str, Any] = {
        "lora_type": kind,
        "loss": "listwise" if listwise else "title",
        "gradient_checkpointing": checkpointing,
        "save_strategy": "steps",
        "save_steps": 2,
        "gradient_accumulation_steps": 2,
        "lora_dropout": 0.1,
    }
    prompt = save_prompt(load_tiny(shape, **loading))
    straight = finetuner(tmp_path / "straight", prompt, load_tiny(shape, **loading), **settings)
    start = {name: one.clone() for name, one in straight.model.named_parameters()}
    straight.train()
    model = straight.model
    for name, one in model.named_parameters():
        assert torch.equal(one, start[name]) == (".lora_" not in name), name

    resumed = finetuner(tmp_path / "resumed", prompt, load_tiny(shape, **loading), **settings)
    for name, one in resumed.model.named_parameters():
        if ".lora_" in name:
            one.data.fill_(0.5)  # all must come from the checkpoint
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    found = dict(resumed.model.named_parameters())
    for name, one in model.named_parameters():
        # Exact: a checkpoint is copied into weights laid out as ever, and the same batches follow.
        assert torch.equal(one, found[name]), name

    folder, backbone = tmp_path / "model", tiny_backbone(shape)
    named = describe_backbone(model.backbone, str(backbone), folder)
    save_adapters(model, folder, named["name"])
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    tokenizer.save_pretrained(folder)
    ArtefactConfig(
        base_model=named,
        teacher={},
        domain=DOMAINS["movie"],
        history_length=3,
        num_candidates=4,
        scoring="sum",
        data={},
        distil={},
        finetune={},
        versions={},
    ).save(folder)
    expected = _logits(model)
    # 1e-5 of numbers up to 10: merged and stacked, AdaLoRA and LoRA multiply in other orders.
    near = {"atol": 1e-5, "rtol": 1e-5}
    ours = DelRecModel.from_pretrained(folder)
    torch.testing.assert_close(_logits(ours), expected, **near)
    config = BackboneConfig(model_name_or_path=str(backbone), **loading)
    native, _ = load_backbone(config)
    native.load_adapter(str(folder))
    for base in (native, PeftModel.from_pretrained(load_backbone(config)[0], str(folder))):
        base = base if base is native else base.get_base_model()
        plain = PeftModel.from_pretrained(base, str(folder), subfolder="prompt")
        torch.testing.assert_close(_logits(plain), expected, **near)

    export(folder, tmp_path / "plain")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    read = AutoTokenizer.from_pretrained(tmp_path / "plain")
    virtual = read.convert_tokens_to_ids([f"<|delrec_{number}|>" for number in range(5)])
    with torch.inference_mode():
        told = exported(input_ids=torch.cat([torch.tensor([virtual]), IDS], 1)).logits
    known = min(virtual)
    torch.testing.assert_close(told[..., :known], expected[..., :known], atol=1e-4, rtol=1e-4)
