"""CPU time and tokens of recommending to one user, of a warm process and of the whole command.

The README beside this file says how to make models. All times are CPU seconds of one thread.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from delrec_hf import Recommender
from delrec_hf.logging import quiet_libraries

Row = tuple[str, int, float]


def cpu(act: Callable[[], Any]) -> float:
    """Return the CPU seconds of something."""
    start = time.process_time()
    act()
    return time.process_time() - start


class Tokens:
    """Counts the tokens that a backbone reads."""

    def __init__(self, recommender: Recommender) -> None:
        """Begin to count."""
        self.read = 0
        backbone = recommender.model.backbone
        backbone.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, __: Any, given: dict[str, Any]) -> None:
        self.read += given["inputs_embeds"].shape[:2].numel()


def measure(recommender: Recommender, known: argparse.Namespace) -> Iterator[Row]:
    """Yield what each way of recommending costs a user, after a first one."""
    users = range(known.users + 1)
    generator, size = np.random.default_rng(0), len(recommender.titles)
    first, *rows = [generator.choice(size, known.history, replace=False).tolist() for _ in users]
    ways: list[tuple[str, dict[str, Any]]] = []
    if recommender.teacher is not None and recommender.fuses(None):
        teacher, some = recommender.teacher, np.zeros(known.retrieve)
        ways.append((f"{known.retrieve} retrieved, ranked and fused", {"retrieve": known.retrieve}))
        asked = cpu(lambda: [recommender.advise([one]) for one in rows])
        yield f"of the next row: {teacher.name}'s scores of all items", 0, asked / known.users
        yield "of the next row: fusing", 0, cpu(lambda: teacher.fuse(some, some))
    ways.append(("whole catalogue, language model alone", {"with_teacher": False}))
    tokens = Tokens(recommender)
    for name, options in ways:

        def rank(some: list[list[int]], options: dict[str, Any] = options) -> None:
            recommender.rank_rows(some, None, known.top_k, disable_tqdm=True, **options)

        rank([first])
        before = tokens.read
        spent = sum(cpu(lambda one=one: rank([one])) for one in rows)
        yield name, (tokens.read - before) // known.users, spent / known.users
        if recommender.config.candidates == "listed":  # tournaments go side by side
            before = tokens.read
            spent = cpu(lambda: rank(rows))
            read = (tokens.read - before) // known.users
            yield f"{name}, {known.users} users at once", read, spent / known.users


def cold(words: list[str]) -> float:
    """Return the CPU seconds of a process of its own."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--base_model")
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--history", type=int, default=8)
    parser.add_argument("--top_k", type=int, default=10)
    parser.add_argument("--retrieve", type=int, default=100)
    parser.add_argument("--cold", action="store_true", help="measure whole processes, too")
    known = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    recommender = Recommender.from_pretrained(known.model, base_model=known.base_model)
    config = recommender.config
    print(f"{len(recommender.titles)} items, candidates {config.candidates}, {config.scoring}, "
          f"{recommender.model.backbone.dtype}")  # fmt: skip
    print("\n| ranked by | tokens a user | CPU s a user |\n| --- | ---: | ---: |")
    for name, tokens, seconds in measure(recommender, known):
        print(f"| {name} | {tokens:,} | {seconds:.4f} |", flush=True)
    if known.cold:
        words = ["recommend", "--model", known.model, "--history", recommender.titles[0]]
        words += [] if known.base_model is None else ["--base_model", known.base_model]
        print("\n| process | CPU s |\n| --- | ---: |")
        for name, act in (
            ("import torch", ["-c", "import torch"]),
            ("import transformers.modeling_utils", ["-c", "import transformers.modeling_utils"]),
            ("import peft", ["-c", "import peft"]),
            ("import delrec_hf.recommender", ["-c", "import delrec_hf.recommender"]),
            ("delrec recommend", ["-m", "delrec_hf", *words]),
        ):
            print(f"| {name} | {min(cold(act) for _ in range(2)):.2f} |", flush=True)


if __name__ == "__main__":
    main()
