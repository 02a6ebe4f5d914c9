"""CPU time and peak memory of recommending for the users of a file, and of asking the teacher.

The README beside this file says how to make a model.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from delrec_hf import Recommender
from delrec_hf.data.prepared import PreparedData
from delrec_hf.ranking.fused_teacher import FusedTeacher
from delrec_hf.teachers.histories import Histories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run: data and model")
    parser.add_argument("--users", type=int, nargs="+", default=[64, 1000, 3000, 6040])
    parser.add_argument("--ending", default="parquet", help="format of input and output")
    parser.add_argument("options", nargs="*", help="of `delrec recommend`, behind --")
    known = parser.parse_args()
    prepared = PreparedData.load(known.run / "data")
    teacher(Recommender.from_pretrained(known.run / "model"), Histories.of(prepared))
    rows = [files(known, prepared, users) for users in known.users]
    print("| users | CPU s | CPU s / 1,000 more users | peak MB |\n| ---: | ---: | ---: | ---: |")
    for place, (users, seconds, megabytes) in enumerate(rows):
        more = ""
        if place:
            before = rows[place - 1]
            more = f"{1000 * (seconds - before[1]) / (users - before[0]):.1f}"
        print(f"| {users:,} | {seconds:.1f} | {more} | {megabytes:.0f} |")


def teacher(recommender: Recommender, sequences: Histories) -> None:
    """Print what the teacher's scores cost, user by user and 16 at once."""
    assert isinstance(recommender.teacher, FusedTeacher)
    bounds = sequences.bounds[:1025]
    items = [sequences.items[a:b].tolist() for a, b in pairwise(bounds)]
    found = {}
    for at_once in (1, 16):
        start = time.process_time()
        scores = [
            row
            for first in range(0, len(items), at_once)
            for row in recommender.teacher.score(items[first : first + at_once])
        ]
        spent = 1000 * (time.process_time() - start) / len(items)
        print(f"teacher, {at_once} at once: {spent:.2f} CPU ms a user")
        found[at_once] = np.array(scores)
    print(f"largest difference: {np.abs(found[1] - found[16]).max():.1e}\n")


def files(
    known: argparse.Namespace, prepared: PreparedData, users: int
) -> tuple[int, float, float]:
    """Recommend for the first users in a process of its own; return what it took."""
    ids = np.array(prepared.items["item_id"][:], dtype=object)
    sequences = Histories.of(prepared)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"users.{known.ending}"
        rows = {
            "user_id": sequences.users[:users].tolist(),
            "history": [
                ids[sequences.items[a:b]].tolist()
                for a, b in pairwise(sequences.bounds[: users + 1])
            ],
        }
        write(source, rows)
        words = ["--model", str(known.run / "model"), "--input", str(source)]
        words += ["--output", f"{folder}/recs.{known.ending}", *known.options]
        process = subprocess.Popen([sys.executable, "-m", "delrec_hf", "recommend", *words])
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
    return users, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def write(source: Path, rows: dict[str, list]) -> None:
    if source.suffix == ".parquet":
        pq.write_table(pa.table(rows), source)
    elif source.suffix == ".jsonl":
        pd.DataFrame(rows).to_json(source, orient="records", lines=True)
    else:
        texts = [" ".join(history) for history in rows["history"]]
        pd.DataFrame({**rows, "history": texts}).to_csv(source, index=False)


if __name__ == "__main__":
    main()
