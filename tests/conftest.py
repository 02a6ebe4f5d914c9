"""Tiny backbones, rows about films and trainers of both stages; all made on the spot."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.rows import ranking_rows
from delrec_hf.instructions.templates import DOMAINS
from delrec_hf.modeling.artefact import CATALOGUE_FILE, ArtefactConfig
from delrec_hf.modeling.backbone import BackboneConfig, describe_backbone, load_backbone
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.scoring import SUM, Scoring
from delrec_hf.training.distillation import DistilConfig, PatternDistillationTrainer
from delrec_hf.training.recommendation import FinetuneConfig, RecommendationTrainer, with_lora
from delrec_hf.training.soft_prompt import new_soft_prompt
from tests.browser import chromium, watched
from tests.film_rows import ITEMS, make_rows
from tests.tiny_backbones import SHAPES, byte_level_tokenizer
from tests.training.settings import plain_settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files with slow tests begin first, so that no process waits for the last at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _as_imported() -> Callable[[], None]:
    """A function that undoes what a command configures in its process."""
    log = logging.getLogger("delrec_hf")
    before = log.handlers, log.level, log.propagate
    quiet = ("TQDM_DELAY", "TQDM_DISABLE", "TRANSFORMERS_VERBOSITY")
    added = [name for name in quiet if name not in os.environ]

    def undo() -> None:
        log.handlers, log.level, log.propagate = before
        for name in added:
            os.environ.pop(name, None)

    return undo


@pytest.fixture(autouse=True)
def _unconfigured(_as_imported: Callable[[], None]) -> None:
    _as_imported()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELREC_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_level_tokenizer()


@pytest.fixture(scope="session")
def encoder(tokenizer: PreTrainedTokenizerFast) -> ChatEncoder:
    return ChatEncoder(tokenizer)


@pytest.fixture(scope="session")
def tiny_backbone(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Callable[[str], Path]:
    """A function that returns the folder of an untrained backbone of one of `SHAPES`."""
    root = tmp_path_factory.mktemp("backbones")

    def make(shape: str = "qwen2") -> Path:
        folder = root / shape
        if not folder.is_dir():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(SHAPES[shape]())
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def load_tiny(tiny_backbone: Callable[[str], Path]) -> Callable[..., Any]:
    """A function that loads a tiny backbone afresh, in float32."""

    def load(shape: str = "qwen2", **settings: Any) -> Any:
        config = BackboneConfig(model_name_or_path=str(tiny_backbone(shape)), **settings)
        return load_backbone(config)[0]

    return load


@pytest.fixture(scope="session")
def instruction_rows() -> Callable[..., Dataset]:
    return make_rows


@pytest.fixture(scope="session")
def encoded_rows(
    instruction_rows: Callable[..., Dataset], encoder: ChatEncoder
) -> Callable[..., Dataset]:
    """A function that returns rows with `input_ids` and `labels`."""

    def make(task: str, number: int = 12, seed: int = 0) -> Dataset:
        rows = instruction_rows(task, number, seed)
        return rows.map(encoder.encode_rows, batched=True, remove_columns=rows.column_names)

    return make


@pytest.fixture(scope="session")
def rows_to_rank(
    instruction_rows: Callable[..., Dataset], encoder: ChatEncoder
) -> Callable[..., Dataset]:
    """A function that returns rows with `prompt_ids`, `candidate_ids` and `target_place`."""

    def make(task: str, number: int = 12, seed: int = 0) -> Dataset:
        return ranking_rows(instruction_rows(task, number, seed), encoder, ITEMS)

    return make


@pytest.fixture(scope="session")
def distil_config() -> Callable[..., DistilConfig]:
    """A function that returns settings of stage 1, those given over plain ones."""

    def make(output_dir: Path, **given: Any) -> DistilConfig:
        given = {"num_virtual_tokens": 5, "learning_rate": 0.05} | given
        return DistilConfig(**plain_settings(output_dir, given))

    return make


@pytest.fixture(scope="session")
def finetune_config() -> Callable[..., FinetuneConfig]:
    """A function that returns settings of stage 2, those given over plain ones."""

    def make(output_dir: Path, **given: Any) -> FinetuneConfig:
        given = {"lora_r": 4, "learning_rate": 0.01} | given
        return FinetuneConfig(**plain_settings(output_dir, given))

    return make


@pytest.fixture(scope="session")
def distiller(
    load_tiny: Callable[..., Any],
    distil_config: Callable[..., DistilConfig],
    encoded_rows: Callable[..., Dataset],
    rows_to_rank: Callable[..., Dataset],
    encoder: ChatEncoder,
) -> Callable[..., PatternDistillationTrainer]:
    """A function that returns a trainer of stage 1 on fresh objects, as a new process has them."""

    def make(
        output_dir: Path, backbone: Any = None, scoring: Scoring = SUM, **given: Any
    ) -> PatternDistillationTrainer:
        config = distil_config(output_dir, **given)
        backbone = load_tiny() if backbone is None else backbone
        learn = encoded_rows if config.loss == "title" else rows_to_rank
        return PatternDistillationTrainer(
            model=new_soft_prompt(backbone, config, encoder.tokenizer),
            args=config,
            train_rows={task: learn(task) for task in config.tasks},
            validation_rows={task: learn(task, 6, seed=1) for task in config.tasks},
            ranking_rows={task: rows_to_rank(task, 6, seed=1) for task in config.tasks},
            processing_class=encoder.tokenizer,
            scoring=scoring,
        )

    return make


@pytest.fixture(scope="session")
def save_prompt(
    distil_config: Callable[..., DistilConfig],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """A function that saves a soft prompt as stage 1 leaves it, and returns its folder."""

    def make(backbone: Any, **given: Any) -> Path:
        folder = tmp_path_factory.mktemp("prompt")
        model = new_soft_prompt(backbone, distil_config(folder, **given), tokenizer)
        torch.manual_seed(7)
        # Prompt tuning ends far away from the words it began with.
        model.learned_prompt.data += torch.randn_like(model.learned_prompt)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def finetuner(
    load_tiny: Callable[..., Any],
    finetune_config: Callable[..., FinetuneConfig],
    encoded_rows: Callable[..., Dataset],
    rows_to_rank: Callable[..., Dataset],
    encoder: ChatEncoder,
) -> Callable[..., RecommendationTrainer]:
    """A function that returns a trainer of stage 2 on fresh objects, as a new process has them."""

    def make(
        output_dir: Path, prompt: Path | None, backbone: Any = None, **given: Any
    ) -> RecommendationTrainer:
        config = finetune_config(output_dir, **given)
        backbone = load_tiny() if backbone is None else backbone
        learn = encoded_rows if config.loss == "title" else rows_to_rank
        return RecommendationTrainer(
            model=with_lora(backbone, config, prompt),
            args=config,
            train_rows=learn("lsr"),
            validation_rows=learn("lsr", 6, seed=1),
            ranking_rows=rows_to_rank("lsr", 6, seed=1),
            processing_class=encoder.tokenizer,
        )

    return make


@pytest.fixture(scope="session")
def stacked(
    load_tiny: Callable[..., Any],
    save_prompt: Callable[..., Path],
    finetune_config: Callable[..., FinetuneConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., DelRecModel]:
    """A function that returns prompt and LoRA, both away from their start, on a tiny backbone."""

    def make(
        shape: str = "qwen2", prompt: Mapping[str, Any] = MappingProxyType({}), **settings: Any
    ) -> DelRecModel:
        backbone = load_tiny(shape, **settings)
        config = finetune_config(tmp_path_factory.mktemp("stacked"))
        model = with_lora(backbone, config, save_prompt(backbone, **prompt))
        generator = torch.Generator().manual_seed(8)
        for name, parameter in model.named_parameters():
            if ".lora_" in name:  # as the trainers leave it
                parameter.data = parameter.data.float()
            if ".lora_B." in name:
                parameter.data.normal_(0, 0.1, generator=generator)
        return model.eval()

    return make


@pytest.fixture
def make_artefact(
    tiny_backbone: Callable[[str], Path],
    stacked: Callable[..., DelRecModel],
    tmp_path: Path,
) -> Callable[..., Path]:
    """A function that writes `run/backbone` and `run/model`, and returns the latter."""

    def make(
        shape: str = "qwen2",
        titles: dict[str, str] = ITEMS,
        loading: Mapping[str, Any] = MappingProxyType({}),
        prompt: Mapping[str, Any] = MappingProxyType({}),
        **facts: Any,
    ) -> Path:
        run = tmp_path / f"run-{shape}"
        shutil.copytree(tiny_backbone(shape), run / "backbone")
        model = stacked(shape, prompt, **loading)
        folder = run / "model"
        named = describe_backbone(model.backbone, str(run / "backbone"), folder)
        model.save_pretrained(folder, base_model_name=named["name"])
        AutoTokenizer.from_pretrained(run / "backbone").save_pretrained(folder)
        catalogue = {"item_id": list(titles), "title": list(titles.values())}
        Dataset.from_dict(catalogue).to_parquet(str(folder / CATALOGUE_FILE))
        ArtefactConfig(
            **{
                "base_model": named,
                "teacher": {"type": "sasrec"},
                "domain": DOMAINS["movie"],
                "history_length": 3,
                "num_candidates": 4,
                "scoring": "sum",
                "data": {"dataset": "tiny", "terms": None},
                "distil": {},
                "finetune": {},
                "versions": {},
                **facts,
            }
        ).save(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or a skipped test; while it runs, nothing else may run an event loop here."""
    with chromium() as found:
        yield found


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens a page; it may neither fail, nor complain, nor ask other machines."""
    with ExitStack() as pages:

        def open_one(width: int = 1280, height: int = 800, **given: Any) -> Any:
            return pages.enter_context(watched(browser, width, height, **given))

        yield open_one
