"""Train a recipe's teacher on prepared data and score the test users, for compare.py."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delrec_hf.data.prepared import PreparedData
from delrec_hf.files import read_json, write_json
from delrec_hf.logging import configure, quiet_libraries
from delrec_hf.runs.recipe import load_recipe
from delrec_hf.runs.record import library_versions
from delrec_hf.runs.run import Run
from delrec_hf.teachers.histories import Histories, column
from delrec_hf.teachers.learning.training import train_teacher
from delrec_hf.teachers.loading import load_teacher

_ROWS = 256


def main() -> None:
    configure("info")
    quiet_libraries()
    options, flags = _options()
    prepared = PreparedData.load(options.data)
    flags = ["--output_dir", str(options.out), "--teacher.seed", str(options.seed), *flags]
    if options.type:
        flags += ["--teacher.type", options.type]
    config = Run(load_recipe(options.recipe, flags)).trainer_settings("teacher", "teach")
    folder = options.out / "teacher"
    started = time.process_time()
    train_teacher(prepared, config, folder)
    teacher = load_teacher(folder, prepared)
    fitting = time.process_time() - started
    started = time.process_time()
    write_scores(teacher, prepared, options.out / "scores.npy")
    known = read_json(folder / "teacher.json")
    record: dict[str, Any] = {
        "type": known["type"],
        "seed": options.seed,
        # Of a trained one training and validation alone, as of the peers.
        "cpu_seconds": known.get("cpu_seconds", round(fitting, 2)),
        "epochs": known.get("epochs"),
        "best_valid": known.get("validation", {}).get("ndcg@10"),
        "score_cpu_seconds": round(time.process_time() - started, 1),
        "settings": known["settings"],
        "versions": library_versions(),
    }
    write_json(options.out / "result.json", record)


def write_scores(teacher: Any, prepared: PreparedData, path: Path) -> None:
    """Write the `(test examples, items)` scores of a teacher, in the order of the examples."""
    examples = prepared.examples["test"]
    users = column(examples, "user_id").tolist()
    positions = column(examples, "position").astype(np.int64)
    histories = Histories.of(prepared).before(users, positions)
    scores = None
    for start in range(0, len(users), _ROWS):
        part = slice(start, start + _ROWS)
        found = teacher.score(users[part], positions[part], histories[part])
        if scores is None:
            shape = (len(users), found.shape[1])
            scores = np.lib.format.open_memmap(path, "w+", found.dtype, shape)
        scores[part] = found


def _options() -> tuple[argparse.Namespace, Sequence[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Further flags: --teacher.KEY VALUE, over the recipe's."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    parser.add_argument("--recipe", type=Path, help="YAML with a section `teacher`")
    parser.add_argument("--type", help="without a recipe: the teacher's type")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_known_args()


if __name__ == "__main__":
    main()
