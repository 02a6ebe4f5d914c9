"""Prepare one dataset in every format that it may come in: the same data, and at what price?

    python benchmarks/data/formats.py ../data/ml-1m
    python benchmarks/data/formats.py ../data/ml-1m --package ../earlier-checkout

Each format is prepared in a process of its own, with one thread. The hash is of the titles, the
users, and all examples with their candidates.
"""

import argparse
import ast
import csv
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a dataset")
    parser.add_argument("--package", type=Path, help="folder that holds another delrec_hf")
    parser.add_argument("--formats", nargs="+", default=list(WRITERS), choices=list(WRITERS))
    parser.add_argument("--one", help=argparse.SUPPRESS)  # keys of one preparation, as JSON
    known = parser.parse_args()
    if known.one is not None:
        print(json.dumps(prepared(known.data, json.loads(known.one))))
        return
    print(
        "| format | CPU s | above the imports, MiB | on disk, MiB | users | interactions | hash |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    tables = tables_of(known.data)
    for name in known.formats:
        with tempfile.TemporaryDirectory() as folder:
            keys = WRITERS[name](Path(folder), *tables) or {}
            size = sum(one.stat().st_size for one in Path(folder).iterdir()) / 2**20
            found = in_a_process(Path(folder), keys, known.package)
        cells = (f"{found['cpu']:.2f}", f"{found['mib']:.0f}", f"{size:.0f}", found["users"])
        print("|", " | ".join(map(str, (name, *cells, found["interactions"], found["hash"]))), "|")


def tables_of(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read both tables as texts, times as whole numbers."""
    events, items = (
        pd.read_csv(next(folder.glob(f"{name}.csv*")), dtype=str, keep_default_na=False)
        for name in ("interactions", "items")
    )
    return events.astype({"timestamp": "int64"}), items[["item_id", "title"]]


def in_a_process(folder: Path, keys: dict[str, Any], package: Path | None) -> dict[str, Any]:
    """Prepare a folder in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    if package is not None:
        environment["PYTHONPATH"] = str(package.resolve())
    command = [sys.executable, __file__, str(folder), "--one", json.dumps(keys)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"cpu": 0, "mib": 0, "users": "-", "interactions": "-", "hash": lines[-1][:100]}
    found: dict[str, Any] = ast.literal_eval(done.stdout.splitlines()[-1])
    return found


def prepared(folder: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """Prepare a folder here, and say what it took and gave."""
    try:
        from delrec_hf.data.config import DataConfig
    except ImportError:  # before 26 November 2026
        from delrec_hf.data.interactions import DataConfig  # type: ignore[attr-defined,no-redef]
    from delrec_hf.data.prepared import prepare

    memory, start = peak(), time.process_time()
    with tempfile.TemporaryDirectory() as target:
        data = prepare(DataConfig(path=str(folder), **keys), Path(target) / "data")
        cpu = time.process_time() - start
        digest = hashlib.sha256(json.dumps(data.items["title"][:]).encode())
        digest.update(json.dumps(data.sequences["user_id"][:]).encode())
        for part in ("train", "validation", "test"):
            rows = data.examples[part].with_format("arrow")[:].combine_chunks()
            for name in ("history", "candidates", "target"):
                values = rows[name].combine_chunks()
                flat = values if pa.types.is_integer(values.type) else values.flatten()
                digest.update(flat.to_numpy().tobytes())
        counts = {name: data.info[name] for name in ("users", "interactions")}
    return {"cpu": cpu, "mib": peak() - memory, "hash": digest.hexdigest()[:12], **counts}


def peak() -> float:
    """Return the most memory this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def separated(ending: str, **options: Any) -> Callable[..., None]:
    """Return what writes both tables as text."""

    def write(folder: Path, events: pd.DataFrame, items: pd.DataFrame) -> None:
        for name, frame in (("interactions", events), ("items", items)):
            frame.to_csv(folder / f"{name}{ending}", index=False, **options)

    return write


def json_lines(folder: Path, events: pd.DataFrame, items: pd.DataFrame) -> None:
    """Write one object a line."""
    for name, frame in (("interactions", events), ("items", items)):
        frame.to_json(folder / f"{name}.jsonl", orient="records", lines=True)


def python_dicts(folder: Path, events: pd.DataFrame, items: pd.DataFrame) -> None:
    """Write one Python dict a line, as Steam's data and Amazon's meta of 2014 are."""
    for name, frame in (("interactions", events), ("items", items)):
        lines = (f"{row!r}\n" for row in frame.to_dict("records"))
        (folder / f"{name}.json").write_text("".join(lines))


def parquet(folder: Path, events: pd.DataFrame, items: pd.DataFrame) -> None:
    """Write parquet."""
    for name, frame in (("interactions", events), ("items", items)):
        frame.to_parquet(folder / f"{name}.parquet")


def recbole(folder: Path, events: pd.DataFrame, items: pd.DataFrame) -> None:
    """Write RecBole's atomic files."""
    for ending, frame in (("inter", events), ("item", items)):
        names = {name: f"{name}:{'float' if name == 'timestamp' else 'token'}" for name in frame}
        named = frame.rename(columns=names)
        named.to_csv(folder / f"x.{ending}", index=False, sep="\t", quoting=csv.QUOTE_NONE)


def iso_dates(folder: Path, events: pd.DataFrame, items: pd.DataFrame) -> None:
    """Write csv with ISO dates."""
    dates = pd.to_datetime(events["timestamp"], unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    separated(".csv")(folder, events.assign(timestamp=dates), items)


def day_first(folder: Path, events: pd.DataFrame, items: pd.DataFrame) -> None:
    """Write csv with dates whose day comes first, and the time of day in a column of its own."""
    times = pd.to_datetime(events["timestamp"], unit="s")
    columns = {"date": times.dt.strftime("%d/%m/%Y"), "time": times.dt.strftime("%H:%M:%S")}
    separated(".csv")(folder, events.drop(columns="timestamp").assign(**columns), items)


WRITERS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "csv": separated(".csv"),
    "csv, all quoted": separated(".csv", quoting=csv.QUOTE_ALL),
    "csv.gz": separated(".csv.gz"),
    "csv, semicolons": separated(".csv", sep=";"),
    "csv, UTF-16": separated(".csv", encoding="utf-16"),
    "csv, ISO dates": iso_dates,
    "csv, day first, date and time apart": day_first,
    "tsv": separated(".tsv", sep="\t"),
    "parquet": parquet,
    "json lines": json_lines,
    "Python dicts": python_dicts,
    "RecBole": recbole,
}

if __name__ == "__main__":
    main()
