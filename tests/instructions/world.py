"""Examples of a made-up world, their rows of all three tasks, and what a reader sees in them."""

import numpy as np
from datasets import Dataset, disable_progress_bars

from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.lsr import lsr_rows
from delrec_hf.instructions.rps import rps_rows
from delrec_hf.instructions.ta import ta_rows
from delrec_hf.instructions.templates import DOMAINS

MOVIE, NUM_ITEMS, NUM_CANDIDATES, HISTORY, TOP_H, SEED = DOMAINS["movie"], 80, 8, 5, 4, 3
SHOWN = InstructionsConfig(candidates="listed")
TITLES = [f"Film {row} ({1900 + row})" for row in range(NUM_ITEMS)]

disable_progress_bars()


class World:
    """Users with sequences of 3 to 14 items, three examples each, and a teacher's top-h."""

    def __init__(self, seed: int = 0) -> None:
        self.shown = SHOWN
        generator = np.random.default_rng(seed)
        self.items = Dataset.from_dict(
            {"item_id": [f"i{row}" for row in range(NUM_ITEMS)], "title": TITLES}
        )
        self.walks = {
            f"u{user}": generator.permutation(NUM_ITEMS)[: generator.integers(3, 15)].tolist()
            for user in range(40)
        }
        self.sequences = Dataset.from_dict(
            {"user_id": list(self.walks), "items": list(self.walks.values())}
        )
        rows, predicted = [], []
        for user, walk in self.walks.items():
            unseen = [item for item in range(NUM_ITEMS) if item not in walk]
            for position in range(max(1, len(walk) - 3), len(walk)):
                target = walk[position]
                negatives = generator.choice(unseen, NUM_CANDIDATES - 1, replace=False).tolist()
                candidates = generator.permutation([target, *negatives]).tolist()
                history = walk[max(0, position - HISTORY) : position]
                row = {"user_id": user, "position": position, "history": history}
                rows.append({**row, "target": target, "candidates": candidates})
                rest = [item for item in range(NUM_ITEMS) if item not in walk[:position]]
                best = generator.choice(rest, TOP_H, replace=False).tolist()
                predicted.append({"user_id": user, "position": position, "items": best})
        self.examples = Dataset.from_list(rows)
        self.predictions = Dataset.from_list(predicted)

    def lsr(self, **changed):
        given = {"examples": self.examples, **changed}
        return lsr_rows(given["examples"], self.items, TITLES, MOVIE, self.shown)

    def rps(self, **changed):
        given = {"examples": self.examples, "predictions": self.predictions, **changed}
        return rps_rows(
            given["examples"],
            given["predictions"],
            self.items,
            TITLES,
            MOVIE,
            self.shown,
            SEED,
        )

    def ta(self, **changed):
        given = {"examples": self.examples, "sequences": self.sequences, **changed}
        return ta_rows(
            given["examples"],
            given["sequences"],
            self.items,
            TITLES,
            MOVIE,
            self.shown,
            SEED,
        )


def by_key(rows):
    return {(row["user_id"], row["position"]): row for row in rows}


def question(row):
    return row["prompt"][0]["content"]


def listed(text, heading):
    """The titles of the last list below a heading."""
    lines = text[text.rindex(heading) :].splitlines()[1:]
    end = next(n for n, line in enumerate(lines) if not line.startswith("- "))
    return [line.removeprefix("- ") for line in lines[:end]]


def shown_history(row):
    return listed(question(row), "Movies this user watched, oldest first:")


def shown_candidates(row):
    return listed(question(row), "Candidates:")


def titled(ids):
    return [TITLES[int(item.removeprefix("i"))] for item in ids]
