"""Compare teachers with RecBole's and with simple baselines: one protocol, one table."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from exported import export
from systems import System, run, system

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.evaluation.metrics import metrics_from_ranks, per_user_metrics, ranks
from delrec_hf.files import read_json, write_text
from delrec_hf.teachers.histories import Histories, column, flatten

METRICS = {
    "ndcg@10": "NDCG@10",
    "hr@10": "HR@10",
    "hr@1 of 20": "HR@1 of {n}",
    "ndcg@5 of 20": "NDCG@5 of {n}",
}
_ROWS = 256

Lines = list[dict[str, Any]]


def main() -> int:
    options = _options()
    try:
        wanted = [system(spec) for spec in options.systems]
        if wanted:
            compare(options, wanted)
        found = table(read_lines(options.out))
    except InputError as error:
        print(f"compare: error: {error}", file=sys.stderr)
        return 2
    print(found)
    write_text(options.out.with_suffix(".md"), found + "\n")
    return 0


def compare(options: argparse.Namespace, wanted: Sequence[System]) -> None:
    """Run what is asked for and not in the results yet, seed by seed."""
    prepared = PreparedData.load(options.data)
    dataset = prepared.info["dataset"]
    exported = options.work / "exported" / dataset
    export(prepared, exported)
    for seed in options.seeds:
        for one in wanted:
            if not one.is_seeded and seed != options.seeds[0]:
                continue
            name = one.run_name(seed)
            known = {(line["dataset"], line["run"]) for line in read_lines(options.out)}
            if (dataset, name) in known:
                continue
            folder = options.work / "runs" / dataset / name
            if not (folder / "result.json").is_file():
                print(f"running {name}", file=sys.stderr)
                run(one, seed, options.data, exported, folder, options.peers, options.cap)
            record = read_json(folder / "result.json")
            facts = {"dataset": dataset, "system": one.name, "run": name, "settings": one.settings}
            facts["candidates"] = prepared.info["num_candidates"]
            add_line(options.out, {**record, **facts, **measure(prepared, folder / "scores.npy")})


def measure(prepared: PreparedData, path: Path) -> dict[str, float]:
    """Return the metrics of `(test examples, items)` scores.

    In the whole catalogue, the items before the position are left out; of the candidates, all are
    ranked. Equal scores count as their expected value under random order.

    Raises:
        InputError: If the scores do not fit the examples.
    """
    scores = np.load(path, mmap_mode="r")
    examples = prepared.examples["test"]
    if scores.shape != (len(examples), len(prepared.items)):
        raise InputError(
            f"{path} holds scores of the shape {scores.shape}; expected "
            f"{(len(examples), len(prepared.items))}, test examples by items"
        )
    users, targets = column(examples, "user_id").tolist(), column(examples, "target")
    positions = column(examples, "position").astype(np.int64)
    histories = Histories.of(prepared).before(users, positions)
    candidates = flatten(examples, "candidates")[0].reshape(len(users), -1)
    places = np.argmax(candidates == targets[:, None], axis=1)
    parts = []
    for start in range(0, len(users), _ROWS):
        part = slice(start, start + _ROWS)
        block = np.array(scores[part], dtype=np.float64)
        offered = np.take_along_axis(block, candidates[part], axis=1)
        of_few = per_user_metrics(offered, places[part])
        leave_out(block, histories[part])
        of_all = metrics_from_ranks(*ranks(block, targets[part].astype(np.int64)))
        found = (of_all["ndcg@10"], of_all["hr@10"], of_few["hr@1"], of_few["ndcg@5"])
        parts.append(np.stack(found))
    means = np.concatenate(parts, axis=1).mean(axis=1)
    return {name: float(mean) for name, mean in zip(METRICS, means, strict=True)}


def leave_out(scores: npt.NDArray[np.float64], histories: Sequence[npt.NDArray[np.int64]]) -> None:
    """Give -inf to the items of each row's history."""
    rows = np.repeat(np.arange(len(histories)), [len(one) for one in histories])
    scores[rows, np.concatenate(histories)] = -np.inf


def read_lines(path: Path) -> Lines:
    """Read the results so far; a line that was cut off by a kill is skipped."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            print(f"{path}: skipped the broken line {line[:60]!r}", file=sys.stderr)
    return found


def add_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def table(lines: Lines) -> str:
    """Return a Markdown table per dataset, mean ± sample deviation over the seeds.

    Where a recipe has changed between results, the last one's settings count.
    """
    texts = []
    for dataset in dict.fromkeys(line["dataset"] for line in lines):
        groups: dict[str, Lines] = {}
        for line in lines:
            if line["dataset"] == dataset:
                groups.setdefault(line["system"], []).append(line)
        current = {
            name: [line for line in group if line["settings"] == group[-1]["settings"]]
            for name, group in groups.items()
        }
        texts.append("\n".join([f"**{dataset}**", "", *_rows(current)]))
    return "\n\n".join(texts)


def _rows(groups: Mapping[str, Lines]) -> list[str]:
    offered = next(iter(groups.values()))[0]["candidates"]
    titles = [title.format(n=offered) for title in METRICS.values()]
    head = ["system", "seeds", *titles, "CPU s", "CPU / RecBole's", "epochs", "stopped by"]
    rows = [head, ["---", *["---:"] * (len(head) - 2), "---"]]
    seconds = {
        name: float(np.mean(values_of(group, "cpu_seconds"))) for name, group in groups.items()
    }
    for name, group in groups.items():
        peer = [
            seconds[other]
            for other, lines in groups.items()
            if other.startswith("recbole/") and lines[0]["type"] == group[0]["type"]
        ]
        epochs = values_of(group, "epochs")
        rows.append(
            [
                name,
                str(len(group)),
                *(spread(values_of(group, metric)) for metric in METRICS),
                f"{seconds[name]:.1f}",
                f"{seconds[name] / min(peer):.2f}" if peer else "-",
                f"{np.mean(epochs):.0f}" if epochs else "-",
                ", ".join(dict.fromkeys(line.get("stopped") or "-" for line in group)),
            ]
        )
    return [f"| {' | '.join(row)} |" for row in rows]


def values_of(lines: Lines, name: str) -> list[float]:
    """Return the numbers of a name, where there are any."""
    return [line[name] for line in lines if line.get(name) is not None]


def spread(values: Sequence[float]) -> str:
    """Return mean ± sample deviation.

    >>> spread([0.1, 0.1, 0.1]), spread([0.25])
    ('.1000 ± .0000', '.2500')
    """
    shown = [f"{np.mean(values):.4f}"]
    shown += [f"{np.std(values, ddof=1):.4f}"] if len(values) > 1 else []
    return " ± ".join(shown).replace("0.", ".")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"), help="results so far")
    parser.add_argument("--data", type=Path, help="folder of prepared data")
    parser.add_argument("--work", type=Path, help="folder of exports, checkpoints, scores, logs")
    parser.add_argument("--peers", type=Path, help="folder of the peer's environment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--systems",
        nargs="*",
        default=[],
        metavar="SYSTEM",
        help="recbole/MODEL[:length=10,batch=256], RECIPE.yaml[:KEY=VALUE,...], popularity, "
        "markov, co-occurrence; none: print the table",
    )
    parser.add_argument(
        "--max_cpu_seconds", dest="cap", help="stop a peer after the epoch that passes this"
    )
    options = parser.parse_args()
    if options.systems and not (options.data and options.work and options.peers):
        parser.error("--systems needs --data, --work and --peers")
    for name in ("data", "work", "peers", "out"):
        given = getattr(options, name)
        setattr(options, name, given and given.resolve())
    return options


if __name__ == "__main__":
    raise SystemExit(main())
