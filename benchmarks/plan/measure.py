"""What `delrec plan` says beside what the stages then take: peak memory and CPU time.

Each stage runs for a few steps in a process of its own, forked from one that has imported
everything and read nothing. Its peak is what the kernel says (VmHWM, reset at the start); its time
is the CPU time inside trainings, their validations included, or else inside rankings.
"""

import argparse
import functools
import json
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from delrec_hf.logging import configure, quiet_libraries
from delrec_hf.planning.plan import plan_recipe
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from delrec_hf.training.trainer import RankingTrainer

STAGES = ("calibrate", "distil", "finetune", "evaluate")


def recipe(folder: Path, backbone: str, steps: int, batch: int, users: int, loss: str) -> Recipe:
    """Return a recipe of a few steps on the toy world."""
    trained = {
        "loss": loss,
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "max_validation_users": users,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": steps,
        "save_steps": steps,
        "disable_tqdm": True,
    }
    sections: dict[str, dict[str, Any]] = {
        "data": {"path": "toy", "history_length": 10, "num_candidates": 20, "train_prefixes": 1},
        "teacher": {"type": "co-occurrence"},
        "backbone": {"model_name_or_path": backbone, "torch_dtype": "float32"},
        "calibrate": {"max_users": users},
        "distil": {**trained, "num_virtual_tokens": 16},
        "finetune": {**trained, "controls": []},
        "evaluate": {
            "systems": ["zero-shot", "delrec"],
            "max_users": users,
            "fit_users": users,
        },
    }
    return Recipe(folder, sections)


def qwen3(folder: Path, tokenizer: str) -> str:
    """Write a backbone of Qwen3's shape and random weights, of 31 million parameters."""
    words = AutoTokenizer.from_pretrained(tokenizer)
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def apart(work: Callable[[], Any], answer: Path) -> Any:
    """Run something in a forked process, and return what it returns."""
    child = os.fork()
    if not child:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            answer.write_text(json.dumps(work()))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("a measured process has failed")
    return json.loads(answer.read_text())


def measured(one: Recipe, stage: str) -> dict[str, float]:
    """Run a stage and return its peak in bytes and its CPU seconds."""
    spent = {"depth": 0.0, "seconds": 0.0}
    for owner, name in ((RankingTrainer, "train"), (CandidateScorer, "score_batch")):
        setattr(owner, name, _clocked(getattr(owner, name), spent))
    run_recipe(one, stage)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {"memory": peak * 1024, "seconds": spent["seconds"]}


def _clocked(work: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(work)
    def clocked(*args: Any, **kwargs: Any) -> Any:
        spent["depth"] += 1
        start = time.process_time()
        try:
            return work(*args, **kwargs)
        finally:
            spent["depth"] -= 1
            if not spent["depth"]:
                spent["seconds"] += time.process_time() - start

    return clocked


def planned(one: Recipe) -> dict[str, dict[str, float]]:
    """Return what the plan says of each stage."""
    found = plan_recipe(one).stages
    return {
        stage.name: {"memory": stage.memory or 0, "seconds": 3600 * (stage.hours or 0.0)}
        for stage in found
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smollm2", default="runs/backbones/smollm2-135m-instruct")
    parser.add_argument("--models", nargs="+", default=["toy", "qwen3", "smollm2"])
    parser.add_argument("--loss", default="listwise")
    known = parser.parse_args()
    configure("error")
    quiet_libraries()
    torch.set_num_threads(1)
    sizes = {"toy": (20, 16, 100), "qwen3": (6, 8, 40), "smollm2": (3, 4, 16)}
    print("| backbone | stage | GB planned | measured | | CPU s planned | measured | |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in known.models:
            backbone = {"toy": "toy", "smollm2": known.smollm2}.get(name)
            if backbone is None:
                backbone = qwen3(folder / "backbone", known.smollm2)
            one = recipe(folder / name, backbone, *sizes[name], known.loss)
            answer = folder / "answer.json"
            said = apart(functools.partial(planned, one), answer)
            for stage in ("prepare", "teach"):
                apart(functools.partial(run_recipe, one, stage), answer)
            for stage in STAGES:
                took = apart(functools.partial(measured, one, stage), answer)
                _print(name, stage, said[stage], took)
            shutil.rmtree(folder / name)


def _print(name: str, stage: str, said: dict[str, float], took: dict[str, float]) -> None:
    def off(what: str) -> str:
        return f"{100 * (said[what] / took[what] - 1):+.0f} %"

    cells = [name, stage, f"{said['memory'] / 1e9:.2f}", f"{took['memory'] / 1e9:.2f}"]
    cells += [off("memory"), f"{said['seconds']:.1f}", f"{took['seconds']:.1f}", off("seconds")]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
