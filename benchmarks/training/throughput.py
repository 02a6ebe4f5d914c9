"""Examples and tokens per CPU second of both stages, beside plain TRL + PEFT and the floor.

Each way trains on the same examples: toy titles, 20 candidates, ten items of history. The floor is
the decoder's matrix products at the rate that this machine reaches in one of their shape: two of
each weight and token (forward, and the gradient that flows back through frozen weights).
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from delrec_hf.data.toy_world import toy_world
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.rows import ranking_rows
from delrec_hf.instructions.templates import DOMAINS, lsr_prompt
from delrec_hf.logging import quiet_libraries
from delrec_hf.modeling.backbone import BackboneConfig, load_backbone
from delrec_hf.training.common import widths
from delrec_hf.training.distillation import DistilConfig, PatternDistillationTrainer
from delrec_hf.training.recommendation import FinetuneConfig, RecommendationTrainer, with_lora
from delrec_hf.training.soft_prompt import new_soft_prompt

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


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


def settings(folder: str, steps: int, batch: int) -> dict[str, Any]:
    """Return what all trainings share."""
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
    }


def cpu_seconds(train: Callable[[], Any]) -> float:
    """Return the CPU time of a training."""
    start = time.process_time()
    train()
    return time.process_time() - start


def matmul_rate(dtype: torch.dtype) -> float:
    """Return the multiply-adds per CPU second of a product of the decoder's shape."""
    a, b = torch.randn(2048, 576, dtype=dtype), torch.randn(576, 1536, dtype=dtype)
    for _ in range(3):
        a @ b
    start = time.process_time()
    for _ in range(20):
        a @ b
    return 20 * 2048 * 576 * 1536 / (time.process_time() - start)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="runs/backbones/smollm2-135m-instruct")
    parser.add_argument("--torch_dtype", default="bfloat16")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    quiet_libraries()
    number = known.steps * known.batch

    def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return load_backbone(
            BackboneConfig(model_name_or_path=known.backbone, torch_dtype=known.torch_dtype)
        )

    lines = []
    with tempfile.TemporaryDirectory() as folder:
        shared = settings(folder, known.steps, known.batch)
        for listed in (True, False):
            rows, titles = examples(number, listed=listed)
            backbone, tokenizer = load()
            encoder = ChatEncoder(tokenizer)
            encoded = rows.map(encoder.encode_rows, batched=True, remove_columns=rows.column_names)
            to_rank = ranking_rows(rows, encoder, titles)
            shown = "listed" if listed else "unlisted"
            if listed:
                lora = LoraConfig(
                    r=16, lora_alpha=32, target_modules=TARGETS, task_type="CAUSAL_LM"
                )
                plain = SFTTrainer(
                    model=get_peft_model(backbone, lora),
                    args=SFTConfig(**shared, max_length=None),
                    train_dataset=rows.select_columns(["prompt", "completion"]),
                    processing_class=tokenizer,
                )
                tokens = sum(widths(encoded))
                lines.append(("TRL + PEFT, title", shown, tokens, cpu_seconds(plain.train)))
            for loss in ("title", "listwise"):
                learned = encoded if loss == "title" else to_rank
                tokens = sum(widths(learned))
                backbone, tokenizer = load()
                config = FinetuneConfig(**shared, loss=loss, lora_target_modules=TARGETS)
                stage2 = RecommendationTrainer(
                    with_lora(backbone, config, None), config, learned, learned, to_rank, tokenizer
                )
                lines.append((f"stage 2, {loss}", shown, tokens, cpu_seconds(stage2.train)))
            backbone, tokenizer = load()
            prompt = DistilConfig(**shared, loss="listwise", tasks=["rps"], num_virtual_tokens=16)
            stage1 = PatternDistillationTrainer(
                new_soft_prompt(backbone, prompt, tokenizer),
                prompt,
                {"rps": to_rank},
                {"rps": to_rank},
                {"rps": to_rank},
                tokenizer,
            )
            tokens = sum(widths(to_rank)) + 16 * number
            lines.append(("stage 1, listwise", shown, tokens, cpu_seconds(stage1.train)))
    embedding = backbone.get_input_embeddings().weight.numel()
    weights = sum(one.numel() for one in backbone.parameters()) - embedding
    floor = matmul_rate(getattr(torch, known.torch_dtype)) / (2 * weights)
    print(f"{known.backbone}, {known.torch_dtype}, {known.threads} thread(s), {number} examples")
    heads = ("tokens an example", "examples / CPU s", "tokens / CPU s", "of the floor")
    print(f"| way | candidates | {' | '.join(heads)} |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for way, shown, tokens, seconds in lines:
        print(
            f"| {way} | {shown} | {tokens / number:.0f} | {number / seconds:.2f} | "
            f"{tokens / seconds:.0f} | {tokens / seconds / floor:.2f} |"
        )


if __name__ == "__main__":
    main()
