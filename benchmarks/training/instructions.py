"""Wording and encoding of examples: how many a CPU second, and what memory they take.

Each case runs in two processes, one after the other: `again` is the second, which finds the rows
that the first has kept. Users are made up: eight films each, out of the toy world's titles.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from delrec_hf.data.config import DataConfig
from delrec_hf.data.interactions import read_interactions
from delrec_hf.data.prepared import build
from delrec_hf.data.toy_world import toy_world
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.mapping import rows_kept_in
from delrec_hf.instructions.rows import InstructionRows
from delrec_hf.instructions.templates import load_domain


def write_users(folder: Path, users: int) -> None:
    """Write interactions and items of made-up users."""
    items = toy_world("toy", num_users=0).items
    generator = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(users):
        drawn = generator.choice(len(items), 8, replace=False)
        lines += [f"{user},{items['item_id'][int(item)]},{step}" for step, item in enumerate(drawn)]
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    items.to_csv(folder / "items.csv")


def measured(folder: Path, tokenizer: str, loss: str) -> dict[str, Any]:
    """Word and encode the training examples, or find them there, and return what it took."""
    config = DataConfig(str(folder), num_candidates=20, train_prefixes=4)
    unasked: Any = None
    words = AutoTokenizer.from_pretrained(tokenizer)
    prepared = build(config, read_interactions(config))
    shown = InstructionsConfig(candidates="unlisted" if loss == "listwise" else "listed")
    domain = load_domain("movie")
    write = InstructionRows(prepared, domain, shown, unasked, unasked, words, seed=0)
    before, start = _resident(), time.process_time()
    with rows_kept_in(folder / "rows"):
        rows = write.rows("lsr", "train", prepared.examples["train"])
        rows = write.to_rank(rows) if loss == "listwise" else write.encoded(rows)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"examples": len(rows), "seconds": seconds, "memory": max(0, peak - before)}


def _resident() -> int:
    """Return the bytes that this process holds now, mapped files left out."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", default="runs/backbones/smollm2-135m-instruct")
    parser.add_argument("--users", nargs="+", type=int, default=[2000, 8000, 32000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # folder and loss
    known = parser.parse_args()
    if known.one:
        print(json.dumps(measured(Path(known.one[0]), known.tokenizer, known.one[1])))
        return
    print("| users | examples | loss | examples / CPU s | again | MiB above the data |")
    print("| ---: | ---: | --- | ---: | ---: | ---: |")
    for users in known.users:
        with tempfile.TemporaryDirectory() as folder:
            write_users(Path(folder), users)
            for loss in ("title", "listwise"):
                words = [sys.executable, __file__, "--tokenizer", known.tokenizer]
                words += ["--one", folder, loss]
                quiet = os.environ | {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
                first, again = (_told(words, quiet) for _ in range(2))
                speeds = [f"{one['examples'] / one['seconds']:,.0f}" for one in (first, again)]
                print(
                    f"| {users:,} | {first['examples']:,} | {loss} | {' | '.join(speeds)} | "
                    f"{first['memory'] / 2**20:.0f} |",
                    flush=True,
                )


def _told(words: list[str], environment: dict[str, str]) -> Any:
    told = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    return json.loads(told.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
