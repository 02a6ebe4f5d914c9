"""Twelve films, and instruction rows about them."""

import numpy as np
from datasets import Dataset

from delrec_hf.instructions.templates import DOMAINS, lsr_prompt, rps_prompt, ta_prompt

TITLES = [
    "Heat (1995)",
    "Heathers (1988)",
    "Alien (1979)",
    "Aliens (1986)",
    "The Matrix (1999)",
    "The Matrix Reloaded (2003)",
    "Fargo (1996)",
    "M (1931)",
    "The Shawshank Redemption (1994)",
    "Toy Story (1995)",
    "Toy Story 2 (1999)",
    "A Bug's Life (1998)",
]
ITEMS = {f"i{number}": title for number, title in enumerate(TITLES)}


def make_rows(task: str, number: int = 12, seed: int = 0) -> Dataset:
    """Instruction rows of a task, titles of several lengths."""
    generator = np.random.default_rng([seed, len(task)])
    domain, rows = DOMAINS["movie"], []
    for user in range(number):
        drawn = [TITLES[k] for k in generator.permutation(len(TITLES))]
        history = drawn[: 2 + user % 3]
        candidates = drawn[5:9]
        target = candidates[int(generator.integers(4))]
        if task == "ta":
            text = ta_prompt(domain, history, drawn[4], candidates)
        else:
            text = (rps_prompt if task == "rps" else lsr_prompt)(domain, history, candidates)
        ids = {title: item for item, title in ITEMS.items()}
        rows.append(
            {
                "prompt": [{"role": "user", "content": text}],
                "completion": [{"role": "assistant", "content": target}],
                "task": task,
                "user_id": f"u{user}",
                "candidates": [ids[title] for title in candidates],
                "target": ids[target],
            }
        )
    return Dataset.from_list(rows)
