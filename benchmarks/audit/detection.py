"""How often does the audit see a planted fault, and how often one that is not there?

    python benchmarks/audit/detection.py --output_dir runs/audit

Clean sets of many kinds and sizes are made and audited; then each fault is planted at several
strengths. What is measured is written to `false-alarms.csv`, `detection.csv` and `detection.svg`
(which needs matplotlib). Single processor, a quarter of an hour.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from worlds import FAULTS, World, clean_world

from delrec_hf.data.audit.checks import DATA_CHECKS, EXAMPLE_CHECKS, look
from delrec_hf.data.audit.evidence import Evidence
from delrec_hf.data.audit.finding import Finding
from delrec_hf.data.config import DataConfig
from delrec_hf.data.interactions import Source, read_interactions
from delrec_hf.data.prepared import PreparedData, build
from delrec_hf.data.toy_world import TOY_WORLDS, toy_world
from delrec_hf.files import write_json
from delrec_hf.teachers.audit import audit_teacher
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.loading import fingerprints
from delrec_hf.teachers.predictions import write_predictions

STRENGTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
CHECKS = (*DATA_CHECKS, *EXAMPLE_CHECKS)
"""Everything that is asked of a clean set; its teacher as well."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, required=True, help="where tables go")
    parser.add_argument("--clean", type=int, default=100, help="clean sets (%(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="sets per fault and strength")
    parser.add_argument("--faults", nargs="*", help="plant these alone")
    known = parser.parse_args()
    logging.getLogger("delrec_hf").setLevel("ERROR")
    known.output_dir.mkdir(parents=True, exist_ok=True)
    if known.clean:
        clean = []
        for row in false_alarms(known.clean):
            clean.append(row)
            print(*row.values(), sep=" | ", flush=True)
        pd.DataFrame(clean).to_csv(known.output_dir / "false-alarms.csv", index=False)
        print(summary(pd.DataFrame(clean)).to_string())
    rows = []
    for name in known.faults if known.faults is not None else (*FAULTS, *STAGE_FAULTS):
        rows += [detection(name, strength, known.repeats) for strength in STRENGTHS]
        print(pd.DataFrame(rows[-len(STRENGTHS) :]).to_string(index=False), flush=True)
    if rows:
        pd.DataFrame(rows).to_csv(known.output_dir / "detection.csv", index=False)
        draw(pd.DataFrame(rows), known.output_dir / "detection.svg")


def false_alarms(number: int) -> Iterator[dict[str, Any]]:
    """Yield each clean set's kind and what was found in it, facts aside."""
    for seed in range(number):
        kind, world, keys = clean_set(seed)
        source, prepared = read(world, keys)
        found = look(CHECKS, Evidence(source, prepared)) + of_teacher(prepared, 0.0, seed)
        alarms = [one for one in found if one.code != "trivial-baseline"]
        yield {
            "seed": seed,
            "kind": kind,
            "users": len(prepared.sequences),
            "items": len(prepared.items),
            "interactions": prepared.info["interactions"],
            "info": " ".join(one.code for one in alarms if one.severity == "info"),
            "alarms": " ".join(one.code for one in alarms if one.severity != "info"),
            "solved": any(one.severity != "info" for one in found if one not in alarms),
        }


def clean_set(seed: int) -> tuple[str, World, dict[str, Any]]:
    """Return the kind of a clean set, the set and the keys that it is read with."""
    if seed % 5 == 4:
        name = list(TOY_WORLDS)[seed // 5 % len(TOY_WORLDS)]
        made = toy_world(name, seed=seed, num_users=300 if seed % 2 else 600)
        return name, World(made.interactions, made.items[["item_id", "title"]]), {}
    kinds: dict[str, dict[str, Any]] = {
        "habits": {"habit": 0.5},
        "popularity alone": {"habit": 0.0, "skew": 1.1},
        "strong habits": {"habit": 0.9, "skew": 0.5},
        "series": {"habit": 0.4, "series": True},
        "coming back": {"habit": 0.3, "repeats": True},
        "by time": {"habit": 0.4, "by_user": False},
        "split by time": {"habit": 0.4, "by_user": False, "stay": 10},
        "short": {"habit": 0.4, "shortest": 3},
    }
    kind = list(kinds)[seed % len(kinds)]
    users, items = [(100, 100), (300, 1000), (1000, 300), (2000, 2000), (6000, 3000)][
        seed // len(kinds) % 5
    ]
    world = clean_world(1000 + seed, users=users, items=items, **kinds[kind])
    return kind, world, {"split": "time"} if kind == "split by time" else {}


def read(world: World, keys: dict[str, Any]) -> tuple[Source, PreparedData]:
    """Read a set from files, as users have them, and prepare it."""
    with tempfile.TemporaryDirectory() as folder:
        world.events.to_csv(Path(folder, "interactions.csv"), index=False)
        world.items.to_csv(Path(folder, "items.csv"), index=False)
        config = DataConfig(path=folder, **keys)
        source = read_interactions(config)
        return source, build(config, source)


def of_teacher(prepared: PreparedData, share: float, seed: int) -> list[Finding]:
    """Audit a teacher that counts, and remembers the test item of a share of the users."""
    some = {
        part: rows.select(range(min(1000, len(rows)))) for part, rows in prepared.examples.items()
    }
    chosen = np.random.default_rng([seed, 5]).random(len(some["test"])) < share
    known = some["test"].select(np.flatnonzero(chosen))
    places = zip(known["user_id"][:], known["position"][:], strict=True)
    remembered = dict(zip(places, known["target"][:], strict=True))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        catalogue = fingerprints(prepared)["catalogue"]
        kind = "ranked_lists" if share else "co-occurrence"
        write_json(
            folder / "teacher.json", {"type": kind, "labels": "in-sample", "catalogue": catalogue}
        )
        teacher = Remembering(CoOccurrence.fit(prepared), remembered)
        write_predictions(teacher, prepared, some, 10, folder / "predictions", disable_tqdm=True)
        return audit_teacher(folder, prepared)


@dataclass(frozen=True)
class Remembering:
    """A teacher that puts some items first at their places.

    Attributes:
        honest: Scores everything else.
        remembered: Item by user and position.
    """

    honest: CoOccurrence
    remembered: dict[tuple[str, int], int]

    def score(self, user_ids: Any, positions: Any, histories: Any) -> Any:
        """Score every item as the next one of each history; see `Teacher.score`."""
        scores = self.honest.score(user_ids, positions, histories)
        for row, place in enumerate(zip(user_ids, positions.tolist(), strict=True)):
            if place in self.remembered:
                scores[row, self.remembered[place]] = 9.0
        return scores


def target_in_front(prepared: PreparedData, share: float, seed: int) -> PreparedData:
    """Put the target of a share of the examples at the first place."""

    def change(candidates: Any, target: Any, _: Any) -> Any:
        rows = np.arange(len(target))
        place = (candidates == target[:, None]).argmax(axis=1)
        candidates[rows, place], candidates[:, 0] = candidates[:, 0].copy(), target
        return candidates

    return with_candidates(prepared, share, seed, change)


def rare_negatives(prepared: PreparedData, share: float, seed: int) -> PreparedData:
    """Draw the negatives of a share of the examples from the rarer half of the items."""
    flat = np.concatenate([np.array(items) for items in prepared.sequences["items"][:]])
    counts = np.bincount(flat, minlength=len(prepared.items))
    rare = np.argsort(counts, kind="stable")[: len(counts) // 2]
    met = {
        user: set(items)
        for user, items in zip(
            prepared.sequences["user_id"][:], prepared.sequences["items"][:], strict=True
        )
    }
    generator = np.random.default_rng([seed, 6])

    def change(candidates: Any, target: Any, users: Any) -> Any:
        for row, user in enumerate(users):
            free = [item for item in generator.permutation(rare).tolist() if item not in met[user]]
            if len(free) >= candidates.shape[1]:
                is_target = candidates[row] == target[row]
                candidates[row, ~is_target] = free[: candidates.shape[1] - 1]
        return candidates

    return with_candidates(prepared, share, seed, change)


def target_in_history(prepared: PreparedData, share: float, seed: int) -> PreparedData:
    """Show the target at the end of the history of a share of the examples."""
    generator = np.random.default_rng([seed, 7])
    changed = {}
    for part, rows in prepared.examples.items():
        table = rows.to_dict()
        for row in np.flatnonzero(generator.random(len(rows)) < share).tolist():
            table["history"][row] = [*table["history"][row][:-1], table["target"][row]]
        changed[part] = Dataset.from_dict(table, features=rows.features)
    return replace(prepared, examples=DatasetDict(changed))


def with_candidates(prepared: PreparedData, share: float, seed: int, change: Any) -> PreparedData:
    generator = np.random.default_rng([seed, 8])
    changed = {}
    for part, rows in prepared.examples.items():
        table = rows.to_dict()
        chosen = np.flatnonzero(generator.random(len(rows)) < share)
        candidates = np.array(table["candidates"])
        target, users = np.array(table["target"])[chosen], np.array(table["user_id"])[chosen]
        candidates[chosen] = change(candidates[chosen], target, users)
        table["candidates"] = candidates.tolist()
        changed[part] = Dataset.from_dict(table, features=rows.features)
    return replace(prepared, examples=DatasetDict(changed))


STAGE_FAULTS = {
    "candidates-give-away-target: place": target_in_front,
    "candidates-give-away-target: rare negatives": rare_negatives,
    "leaked-target: in the history shown": target_in_history,
    "teacher-saw-test": None,
}
"""Faults of what stages make of clean data."""


def detection(name: str, strength: float, repeats: int) -> dict[str, Any]:
    """Return how often a fault of some strength is found, and how often as more than `info`."""
    code = name.partition(":")[0]
    found, bad = 0, 0
    for seed in range(repeats):
        world = clean_world(5000 + seed, by_user=seed % 2 == 0)
        if name in FAULTS:
            generator = np.random.default_rng([seed, round(1000 * strength)])
            world = FAULTS[name](world, strength, generator)
        source, prepared = read(world, {})
        if name == "teacher-saw-test":
            findings = of_teacher(prepared, strength, seed)
        elif name in STAGE_FAULTS:
            changed = STAGE_FAULTS[name](prepared, strength, seed)
            findings = look(EXAMPLE_CHECKS, Evidence(source, changed))
        else:
            findings = look(DATA_CHECKS, Evidence(source, prepared))
        named = [one.severity for one in findings if one.code == code]
        found += bool(named)
        bad += any(one != "info" for one in named)
    return {
        "fault": name,
        "strength": strength,
        "found": found / repeats,
        "warned": bad / repeats,
        "sets": repeats,
    }


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Draw for each fault how often it is found over its strength."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "delrec"  # the same picture has the same bytes
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(rows["fault"]))
    width = 4
    height = -(-len(names) // width)
    figure, grid = plt.subplots(
        height, width, figsize=(2.4 * width, 1.7 * height), sharex=True, sharey=True, squeeze=False
    )
    for axes, name in zip(grid.flat, names, strict=False):
        one = rows[rows["fault"] == name]
        axes.plot(one["strength"], one["found"], "o-", markersize=3, label="found")
        axes.plot(one["strength"], one["warned"], "s--", markersize=3, label="as warning or error")
        axes.set_title(name.replace("candidates-give-away-target", "candidates"), fontsize=8)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_ylim(-0.05, 1.05)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    grid[0, 0].legend(fontsize=6)
    figure.supxlabel("share of users, items, rows or examples with the fault", fontsize=8)
    figure.supylabel("share of sets in which it is found", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def summary(alarms: pd.DataFrame) -> pd.DataFrame:
    """Return by kind of clean set how many there were, and in how many something was found."""
    counted = alarms.assign(info=alarms["info"] != "", alarms=alarms["alarms"] != "")
    table = counted.groupby("kind").agg(
        sets=("seed", "size"),
        least_users=("users", "min"),
        most_users=("users", "max"),
        most_interactions=("interactions", "max"),
        alarms=("alarms", "sum"),
        info=("info", "sum"),
    )
    whole = table.sum().to_frame("all").T
    return pd.concat([table, whole])


if __name__ == "__main__":
    main()
