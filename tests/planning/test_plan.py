"""The command `delrec plan`: what a recipe costs, before anything starts."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from delrec_hf.cli import main
from delrec_hf.data.interactions import read_interactions
from delrec_hf.data.prepared import build
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.rows import InstructionRows
from delrec_hf.instructions.templates import load_domain
from delrec_hf.modeling.backbone import BackboneConfig, load_backbone
from delrec_hf.planning.backbone_cost import BackboneCost, read_config
from delrec_hf.planning.fitting import fitting
from delrec_hf.planning.plan import parse_memory, plan_recipe
from delrec_hf.planning.stage_cost import StagePlan
from delrec_hf.ranking.tree import tree_width
from delrec_hf.runs.recipe import load_recipe
from delrec_hf.training.distillation import DistilConfig
from delrec_hf.training.recommendation import FinetuneConfig, with_lora
from delrec_hf.training.soft_prompt import new_soft_prompt
from tests.runs.films import BACKBONE, STAGES, sections, write_films, write_recipe


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("own") / "films")


@pytest.fixture(scope="module")
def recipe(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    given = sections(films, distil={"loss": "listwise"}, finetune={"loss": "listwise"})
    return write_recipe(folder, folder / "run", given)


@pytest.fixture
def planned(recipe: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """A function that plans the recipe and returns its stages by name."""

    def plan(*flags: str) -> dict[str, Any]:
        assert main(["plan", "--config", str(recipe), "--tflops", "1", "--json", *flags]) == 0
        told = json.loads(capsys.readouterr().out)
        return {"facts": told["facts"]} | {one["name"]: one for one in told["stages"]}

    return plan


@pytest.fixture(scope="module")
def plenty(recipe: Path) -> dict[str, StagePlan]:
    """The plan for a device where everything fits."""
    before = sorted(recipe.parent.rglob("*"))
    found = plan_recipe(load_recipe(recipe), 24 * 10**9, 1.0)
    assert sorted(recipe.parent.rglob("*")) == before, "a plan writes nothing"
    return {one.name: one for one in found.stages}


def test_a_plan_names_every_stage_and_counts_as_the_rows_and_the_model_do(
    recipe: Path, plenty: dict[str, StagePlan]
) -> None:
    found = {name: asdict(one) for name, one in plenty.items()}
    assert list(found) == STAGES

    settings = load_recipe(recipe)
    config = settings.settings("data")
    prepared = build(config, read_interactions(config))
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE)
    domain = load_domain(prepared.info["domain"])
    listed = InstructionsConfig(candidates="listed")
    finetune = settings.settings("finetune", output_dir="x", use_cpu=True, bf16=False)
    distil = settings.settings("distil", output_dir="x", use_cpu=True, bf16=False)
    unasked: Any = None
    write = InstructionRows(
        prepared, domain, listed, unasked, unasked, tokenizer, seed=finetune.seed
    )
    rows = write.to_rank(write.of_part("lsr", "train"))
    read = [
        tree_width(prompt, offered, distil.num_virtual_tokens)
        for prompt, offered in zip(rows["prompt_ids"][:], rows["candidate_ids"][:], strict=True)
    ]
    assert found["finetune"]["examples"] == len(read) == len(prepared.examples["train"])
    assert found["finetune"]["tokens_per_epoch"] == pytest.approx(sum(read))

    def load() -> Any:
        return load_backbone(BackboneConfig(str(BACKBONE), torch_dtype="float32"))[0]

    model = with_lora(load(), finetune, None)
    assert found["finetune"]["trainable"] == model.get_nb_trainable_parameters()[0]
    prompted = new_soft_prompt(load(), distil, tokenizer)
    assert found["distil"]["trainable"] == prompted.soft_prompt.numel()
    steps = [found[name]["steps"] for name in ("distil", "finetune")]
    assert steps == [distil.max_steps, finetune.max_steps] == [4, 4]
    times = [found[name]["hours"] for name in ("calibrate", "distil", "finetune", "evaluate")]
    assert np.all(np.array(times) > 0)


def test_what_does_not_fit_is_said_in_a_line_with_its_cure(
    plenty: dict[str, StagePlan], planned: Callable[..., dict[str, Any]]
) -> None:
    assert not any("more than" in line for one in plenty.values() for line in one.lines)
    titles = ("--distil.loss", "title")
    need = planned(*titles, "--device_memory", "24GB")["distil"]["memory"]
    (line,) = planned(*titles, "--device_memory", f"{0.95 * need / 1e6}MB")["distil"]["lines"]
    assert line.startswith("distil: needs ")
    assert "set distil.per_device_train_batch_size: 2" in line
    assert "distil.gradient_accumulation_steps: 2" in line


def test_rankings_of_more_tokens_than_a_device_bears_are_read_in_parts(
    planned: Callable[..., dict[str, Any]],
) -> None:
    small = ("--device_memory", "30MB")
    whole, parts = planned("--device_memory", "24GB")["distil"], planned(*small)["distil"]
    assert parts["memory"] < whole["memory"]
    assert parts["hours"] > 1.1 * whole["hours"], "each part is read again on the way back"


def test_a_cartridge_counts_the_keys_and_values_that_learn(tmp_path: Path) -> None:
    loading = BackboneConfig(str(BACKBONE), torch_dtype="float32")
    cost = BackboneCost(read_config(loading), loading, 1e12, on_device=True, base=0)
    config = DistilConfig(
        str(tmp_path), num_virtual_tokens=6, prompt_type="cartridge", use_cpu=True, bf16=False
    )
    backbone, tokenizer = load_backbone(loading)
    model = new_soft_prompt(backbone, config, tokenizer)
    assert cost.trainable(None, 6, "cartridge") == model.learned_prompt.numel()


def test_changes_are_joined_where_one_is_not_enough() -> None:
    loading = BackboneConfig(str(BACKBONE), torch_dtype="float32")
    cost = BackboneCost(read_config(loading), loading, 1e12, on_device=True, base=0)
    config = FinetuneConfig("x", use_cpu=True, bf16=False, per_device_train_batch_size=2)

    def need(cost: BackboneCost = cost, batch_rows: int = 2, checkpointing: bool = False) -> int:
        return cost.dtype.itemsize * 10**9 + batch_rows * (10**9 if checkpointing else 2 * 10**9)

    def told(size: float) -> list[str]:
        return fitting("finetune", need(), int(size * 1e9), need, cost, config)

    assert told(8) == []
    fewer = "finetune.per_device_train_batch_size: 1 and finetune.gradient_accumulation_steps: 2"
    assert told(6) == [f"finetune: needs 8.00 GB, more than 6.00 GB: set {fewer} (6.00 GB)"]
    (line,) = told(5)
    assert line.endswith(f"set {fewer} and finetune.gradient_checkpointing: true (5.00 GB)")
    (line,) = told(2)
    assert "no setting makes it fit (at least 3.00 GB, with" in line


def test_a_config_alone_is_enough_and_a_backbone_that_is_not_there_is_a_line(
    recipe: Path,
    planned: Callable[..., dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(BACKBONE / "config.json", tmp_path)
    found = planned("--backbone.model_name_or_path", str(tmp_path))
    assert any("for want of its tokenizer" in line for line in found["facts"])
    assert found["finetune"]["tokens_per_epoch"] > 0
    for flags, told in (
        (["--backbone.model_name_or_path", "nobody/nothing"], "config.json and tokenizer files"),
        (["--device_memory", "much"], "--device_memory is `much`"),
        (["--tflops", "-1"], "--tflops is `-1`"),
    ):
        assert main(["plan", "--config", str(recipe), *flags]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert told in said[-1]


def test_sizes_of_memory_are_read_in_the_units_people_write() -> None:
    sizes = [parse_memory(one) for one in ("24GB", "24", "80 GiB", "900mb")]
    assert sizes == [24 * 10**9, 24 * 10**9, 80 * 2**30, 9 * 10**8]
