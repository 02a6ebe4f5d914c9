"""Both stages beside plain TRL + PEFT: examples, tokens, operations and memory, in one run.

Each way trains on the same examples: toy titles, 20 candidates, ten items of history. On a CPU
seconds are those of its time in this process, on a GPU those of the clock. The first steps warm up
and are not counted. The floor is what a training cannot do without, at the rate that this machine
reaches in a product of large matrices: two products for each weight and token that is read
(forward, and the gradient that flows back through frozen weights), attention to what stands before,
and the output layer where a token is predicted.
"""

import argparse
import gc
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from floor import Clock, Memory, Read, Work, matmul_rate
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from shapes import SHAPES
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
)
from trl import SFTConfig, SFTTrainer

from delrec_hf.data.toy_world import toy_world
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.rows import ranking_rows
from delrec_hf.instructions.templates import DOMAINS, lsr_prompt
from delrec_hf.logging import quiet_libraries
from delrec_hf.training.distillation import DistilConfig, PatternDistillationTrainer
from delrec_hf.training.recommendation import FinetuneConfig, RecommendationTrainer, with_lora
from delrec_hf.training.soft_prompt import new_soft_prompt

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
VIRTUAL = 16


def examples(number: int, *, listed: bool) -> tuple[Dataset, dict[str, str]]:
    """Return instruction rows of random histories and candidates, and the titles."""
    items = toy_world("toy", num_users=0).items
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    generator = np.random.default_rng(0)
    rows = []
    for user in range(number):
        drawn = generator.choice(list(titles), 30, replace=False).tolist()
        shown, offered = [titles[k] for k in drawn[:10]], drawn[10:]
        candidates = [titles[k] for k in offered] if listed else None
        text = lsr_prompt(DOMAINS["movie"], shown, candidates)
        target = offered[int(generator.integers(20))]
        rows.append(
            {
                "prompt": [{"role": "user", "content": text}],
                "completion": [{"role": "assistant", "content": titles[target]}],
                "user_id": str(user),
                "candidates": offered,
                "target": target,
            }
        )
    return Dataset.from_list(rows), titles


def settings(folder: str, known: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return what all trainings share."""
    return {
        "output_dir": folder,
        "max_steps": known.warm + known.steps,
        "per_device_train_batch_size": known.batch,
        "use_cpu": device.type == "cpu",
        "bf16": device.type != "cpu" and known.torch_dtype == "bfloat16",  # LoRA's products, too
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
    }


@dataclass(frozen=True)
class Measured:
    """A row of the table."""

    backbone: str
    way: str
    candidates: str
    batch: int
    tokens: float
    examples: float
    operations: float
    share: float
    padding: float
    memory: float


def trainers(
    known: argparse.Namespace,
    shared: dict[str, Any],
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
) -> Iterator[tuple[str, str, Work, Callable[[], Trainer]]]:
    """Yield each way's name, whether candidates are listed, its work, and its trainer's maker."""
    tokenizer = load()[1]
    encoder, number = ChatEncoder(tokenizer), known.batch * (known.warm + known.steps)
    for listed in (True, False):
        rows, titles = examples(number, listed=listed)
        encoded = rows.map(encoder.encode_rows, batched=True, remove_columns=rows.column_names)
        to_rank = ranking_rows(rows, encoder, titles)
        shown = "listed" if listed else "unlisted"
        plain = {"title": Work.of_titles(encoded, 0), "listwise": Work.of_trees(to_rank, 0)}
        virtual = {
            "title": Work.of_titles(encoded, VIRTUAL),
            "listwise": Work.of_trees(to_rank, VIRTUAL),
        }

        def peft(config: Any, rows: Dataset = rows) -> Trainer:
            return SFTTrainer(
                model=get_peft_model(load()[0], config),
                args=SFTConfig(**shared, max_length=None),
                train_dataset=rows.select_columns(["prompt", "completion"]),
                processing_class=tokenizer,
            )

        def stage2(
            loss: str, compiled: bool, encoded: Dataset = encoded, to_rank: Dataset = to_rank
        ) -> Trainer:
            config = FinetuneConfig(
                **shared,
                loss=loss,
                lora_target_modules=TARGETS,
                lora_dropout=0.0,
                torch_compile=compiled,
            )
            learned = encoded if loss == "title" else to_rank
            model = with_lora(load()[0], config, None)
            return RecommendationTrainer(model, config, learned, learned, to_rank, tokenizer)

        def stage1(
            loss: str, compiled: bool, encoded: Dataset = encoded, to_rank: Dataset = to_rank
        ) -> Trainer:
            config = DistilConfig(
                **shared,
                loss=loss,
                tasks=["rps"],
                num_virtual_tokens=VIRTUAL,
                torch_compile=compiled,
            )
            learned = {"rps": encoded if loss == "title" else to_rank}
            model = new_soft_prompt(load()[0], config, tokenizer)
            return PatternDistillationTrainer(
                model, config, learned, learned, {"rps": to_rank}, tokenizer
            )

        if listed:
            prompt = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=VIRTUAL)
            lora = LoraConfig(
                r=16, lora_alpha=32, target_modules=TARGETS, task_type=TaskType.CAUSAL_LM
            )
            yield "TRL + PEFT prompt tuning, title", shown, virtual["title"], partial(peft, prompt)
            yield "TRL + PEFT LoRA, title", shown, plain["title"], partial(peft, lora)
        for loss in ("title", "listwise"):
            for compiled in (False, True) if known.compiled else (False,):
                name = f"{loss}, compiled" if compiled else loss
                given = (loss, compiled)
                yield f"stage 1, {name}", shown, virtual[loss], partial(stage1, *given)
                yield f"stage 2, {name}", shown, plain[loss], partial(stage2, *given)


def measure(known: argparse.Namespace, name: str, device: torch.device) -> Iterator[Measured]:
    """Train each way for a few steps and yield what it took."""
    dtype = getattr(torch, known.torch_dtype)

    def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        tokenizer = AutoTokenizer.from_pretrained(known.tokenizer or name)
        if name in SHAPES:
            with torch.device(device):
                model = AutoModelForCausalLM.from_config(SHAPES[name], dtype=dtype)
        else:
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype).to(device)
        return model.eval(), tokenizer

    rate = matmul_rate(device, dtype)
    print(f"{name}: {rate / 1e12:.3g} TFLOP/s in a product of large matrices", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shared = settings(folder, known, device)
        for way, shown, work, make in trainers(known, shared, load):
            if known.only and not any(one in f"{way}, {shown}" for one in known.only):
                continue
            trainer, clock = make(), Clock(known.warm, device)
            trainer.add_callback(clock)
            backbone = trainer.accelerator.unwrap_model(trainer.model).get_base_model()
            read, memory = Read(backbone), Memory(device)
            trainer.train()
            done = known.steps * known.batch / clock.seconds
            operations = work.operations(backbone.config)
            needed = work.tokens * known.batch * (known.warm + known.steps)
            yield Measured(
                Path(name).name,
                way,
                shown,
                known.batch,
                work.tokens,
                done,
                done * operations,
                done * operations / rate,
                1 - needed / read.positions,
                memory.peak() / 2**30,
            )
            del trainer, backbone, read
            gc.collect()
            if device.type != "cpu":
                torch.accelerator.empty_cache()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["runs/backbones/smollm2-135m-instruct"])
    parser.add_argument("--tokenizer", help="for shapes with random weights")
    parser.add_argument("--torch_dtype", default="bfloat16")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--warm", type=int, default=1)
    parser.add_argument("--batches", nargs="+", type=int, default=[4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="measure compiled layers, too")
    parser.add_argument("--only", nargs="+", help="ways whose names hold one of these")
    parser.add_argument("--json", type=Path)
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    quiet_libraries()
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    kind = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    print(f"{kind}, {known.torch_dtype}, {known.threads} thread(s), torch {torch.__version__}")
    clock = "CPU s" if device.type == "cpu" else "s"
    heads = ("batch", "tokens an example", f"examples / {clock}", f"tokens / {clock}", "TFLOP/s")
    print(f"| backbone | way | candidates | {' | '.join(heads)} | of the product | padding | GiB |")
    print(f"| --- | --- | --- |{' ---: |' * 8}", flush=True)
    found = []
    batches = known.batches * len(known.backbones) if len(known.batches) == 1 else known.batches
    for name, batch in zip(known.backbones, batches, strict=True):
        known.batch = batch
        for one in measure(known, name, device):
            found.append(asdict(one))
            print(
                f"| {one.backbone} | {one.way} | {one.candidates} | {one.batch} | "
                f"{one.tokens:.0f} | {one.examples:.3g} | {one.examples * one.tokens:.0f} | "
                f"{one.operations / 1e12:.3g} | {one.share:.2f} | {one.padding:.3f} | "
                f"{one.memory:.1f} |",
                flush=True,
            )
            if known.json:
                known.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
