"""Find a teacher's settings on validation, one setting at a time; test items are never looked at.

    python recipes/search/search.py --config recipes/search/ml-100k.yaml --data RUN/data

Starting from the settings under `start`, each setting under `try` is changed to each of its values
in turn, and the value with the highest validation NDCG@10 (whole catalogue, unseen items) is kept
before the next setting is tried. Every trial is a line of the log (`--log`), where finished ones
are looked up when the search is repeated. The winners stand in `recipes/DATASET/TYPE.yaml`.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from delrec_hf.data.prepared import PreparedData
from delrec_hf.files import read_json
from delrec_hf.logging import configure, get_logger, quiet_libraries
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from delrec_hf.teachers.learning.training import train_teacher

COLUMNS = ("type", "settings", "seed", "ndcg@10", "epochs", "cpu_seconds")

logger = get_logger("delrec_hf.search")


def main() -> None:
    """Search for each teacher that the file names, or that was asked for."""
    configure("info")
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="what to try, a YAML file")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    parser.add_argument("--log", type=Path, help="default: the config's name with .csv")
    parser.add_argument("--teachers", nargs="*", help="default: all in the config")
    options = parser.parse_args()
    plan = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    prepared = PreparedData.load(options.data)
    log = options.log or options.config.with_suffix(".csv")
    for kind in options.teachers or plan["teachers"]:
        best, value = search(kind, plan["teachers"][kind], plan["seeds"], prepared, log)
        print(f"{kind}: {value:.4f} with {json.dumps(best)}")


def search(
    kind: str, plan: dict[str, Any], seeds: list[int], prepared: PreparedData, log: Path
) -> tuple[dict[str, Any], float]:
    """Return the best settings of a teacher, and their mean validation NDCG@10 over the seeds."""

    def measure(settings: dict[str, Any]) -> float:
        found = [trial(kind, settings, seed, prepared, log) for seed in seeds]
        return sum(found) / len(found)

    best = dict(plan["start"])
    highest = measure(best)
    for name, values in plan.get("try", {}).items():
        for value in values:
            candidate = {**best, name: value} if value != best.get(name) else None
            reached = measure(candidate) if candidate else highest
            if candidate and reached > highest:
                best, highest = candidate, reached
    return best, highest


def trial(
    kind: str, settings: dict[str, Any], seed: int, prepared: PreparedData, log: Path
) -> float:
    """Train once, add a line to the log, and return the validation NDCG@10."""
    key = {"type": kind, "settings": json.dumps(settings, sort_keys=True), "seed": str(seed)}
    if log.is_file():
        with log.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if all(row[name] == value for name, value in key.items()):
                    return float(row["ndcg@10"])
    with tempfile.TemporaryDirectory() as folder:
        teacher = {"type": kind, "seed": seed, "disable_tqdm": True, **settings}
        run = Run(Recipe(output_dir=Path(folder), sections={"teacher": teacher}))
        train_teacher(prepared, run.trainer_settings("teacher", "teach"), Path(folder) / "teacher")
        record = read_json(Path(folder) / "teacher" / "teacher.json")
    value = record["validation"]["ndcg@10"]
    logger.info("%s %s: %.4f", kind, key["settings"], value)
    is_new = not log.is_file()
    with log.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(
            {
                **key,
                "ndcg@10": round(value, 4),
                "epochs": int(record["epochs"]),
                "cpu_seconds": record["cpu_seconds"],
            }
        )
    return float(round(value, 4))


if __name__ == "__main__":
    main()
