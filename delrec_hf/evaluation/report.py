"""The report: which tables and notes results fill, for the terminal and for docs and cards."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from delrec_hf.evaluation.cells import (
    UNKNOWN,
    heading,
    interval,
    number,
    over_seeds,
    paired,
    shortened,
)
from delrec_hf.evaluation.claims import p_value
from delrec_hf.evaluation.groups import of_slices
from delrec_hf.evaluation.metrics import EXPECTED_HR
from delrec_hf.evaluation.notes import notes
from delrec_hf.evaluation.table import Table, escape, markdown, one_line, plain_text

SHOWN = ("hr@1", "hr@5", "hr@10", "ndcg@10", "mrr", "log_loss")
"""Columns of the table, as many as fit; results.json holds NDCG@5 too."""

WITH_INTERVAL = ("hr@1", "ndcg@10")
"""Metrics that show their 95 % interval in the table; results.json holds all of them."""

_DRAWN = {
    "uniform": "uniform draws",
    "popularity": "drawn by popularity",
    "teacher": "the teacher's best beside the target",
    "file": "as published",
}


def format_table(results: Mapping[str, Any]) -> str:
    """Return results as aligned plain text, at most 110 columns wide.

    Args:
        results: The content of a results.json: `protocol`, `systems`, `comparisons` and, where
            they are, `retrieved`, `whole_catalogue` and `distillation`.
    """
    blocks = [
        _wrapped(protocol_line(results)),
        *(plain_text(table) for table in tables(results)),
        *(_wrapped(note) for note in notes(results)),
    ]
    return "\n\n".join(block for block in blocks if block)


def format_markdown(results: Mapping[str, Any]) -> str:
    """Return the same report as GitHub-flavoured Markdown."""
    blocks = [
        escape(protocol_line(results)),
        *(markdown(table) for table in tables(results)),
        *(escape(note) for note in notes(results)),
    ]
    return "\n\n".join(block for block in blocks if block)


def protocol_line(results: Mapping[str, Any]) -> str:
    """Say on what and how the results were measured, in one line.

    >>> protocol_line({"protocol": {"dataset": "toy", "users": 300, "seeds": [1, 2]}})
    'Dataset: toy; users: 300; seeds: 1, 2'
    """
    protocol = results.get("protocol", {})
    seeds = protocol.get("seeds", [])
    facts = {
        "dataset": protocol.get("dataset"),
        "split": protocol.get("split"),
        "users": protocol.get("users"),
        "candidates": _candidates(protocol),
        "history": protocol.get("history_length"),
        "ties": protocol.get("tie_rule"),
        "seeds": ", ".join(str(seed) for seed in seeds) if isinstance(seeds, list) else seeds,
    }
    shown = [
        f"{name}: {one_line(value)}" for name, value in facts.items() if value not in (None, "")
    ]
    line = "; ".join(shown)
    return line[:1].upper() + line[1:]


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables that these results fill, the systems' first."""
    found = [_systems(results.get("systems", {})), _expected(results), _spread(results)]
    if results.get("comparisons"):
        found.append(_comparisons(results["comparisons"]))
    found += of_slices(results.get("slices", []))
    seeds = results.get("protocol", {}).get("seeds")
    for block, table in (("retrieved", _retrieved), ("whole_catalogue", _whole_catalogue)):
        if results.get(block):
            held = {**results[block], "protocol": {**results[block]["protocol"], "seeds": seeds}}
            found += [table(held), _spread(held), _lists(held.get("lists", {}))]
    if results.get("distillation"):
        found.append(_agreement(results["distillation"]))
    return [table for table in found if table.rows]


def _candidates(protocol: Mapping[str, Any]) -> str | None:
    """Say how many candidates there are, and how they came to stand there."""
    number = protocol.get("num_candidates")
    drawn = protocol.get("candidates", {}).get("drawn")
    return number if drawn is None else f"{number} ({_DRAWN.get(drawn, drawn)})"


def _systems(systems: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, system in systems.items():
        cells = [_metric(system, metric) for metric in SHOWN]
        rows.append([shortened(name), *cells, _seconds(system.get("seconds"))])
    headers = ["system", *(heading(metric) for metric in SHOWN), "seconds"]
    if all(row[-1] == UNKNOWN for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return Table("Systems", headers, rows)


def _expected(results: Mapping[str, Any]) -> Table:
    rows = [
        [shortened(name), number(one[EXPECTED_HR]) + interval(one["ci95"][EXPECTED_HR])]
        for name, one in results.get("systems", {}).items()
        if EXPECTED_HR in one
    ]
    if rows:
        rows.append(["limit", number(results.get("protocol", {}).get("best_hr_at_1"))])
    return Table("Expected HR@1", ["system", "expected HR@1 [95 %]"], rows)


def _spread(results: Mapping[str, Any]) -> Table:
    systems = {name: one for name, one in results.get("systems", {}).items() if "sd" in one}
    metrics = [
        metric
        for metric in ("hr@1", EXPECTED_HR, "ndcg@10", "log_loss")
        if all(metric in one["sd"] for one in systems.values())
    ]
    rows = [
        [
            shortened(name),
            *(over_seeds(one, metric) for metric in metrics),
        ]
        for name, one in systems.items()
    ]
    seeds = len(results.get("protocol", {}).get("seeds") or [])
    title = f"Mean and standard deviation over {seeds} seeds"
    return Table(title, ["system", *(heading(metric) for metric in metrics)], rows)


def _comparisons(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            f"{shortened(one['a'])} - {shortened(one['b'])}",
            heading(one["metric"]),
            paired(one),
            *(p_value(one[key]) if key in one else UNKNOWN for key in ("p", "p_holm")),
        ]
        for one in comparisons
    ]
    headers = ["paired difference", "metric", "difference [95 %]", "p", "Holm p"]
    if all(row[-1] == UNKNOWN for row in rows):  # of an earlier version
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return Table("Comparisons, user by user", headers, rows, left=2)


def _retrieved(retrieved: Mapping[str, Any]) -> Table:
    metrics = ("hr@1", "hr@10", "ndcg@10")
    rows = [
        [shortened(name), *(_metric(system, metric) for metric in metrics)]
        for name, system in retrieved["systems"].items()
    ]
    protocol = retrieved["protocol"]
    title = (
        f"End to end: best {protocol['num_candidates']} of the catalogue by "
        f"{shortened(protocol['retriever'])}, reranked; "
        f"{over_seeds(retrieved, 'recall_ceiling')} of the targets are there"
    )
    return Table(title, ["system", *(heading(metric) for metric in metrics)], rows)


def _whole_catalogue(whole: Mapping[str, Any]) -> Table:
    metrics = ("hr@1", "hr@10", "ndcg@10", "mrr")
    rows = [
        [shortened(name), *(_metric(system, metric) for metric in metrics)]
        for name, system in whole["systems"].items()
    ]
    protocol = whole["protocol"]
    title = (
        f"Whole catalogue: all {protocol['num_candidates']} items but those seen before, "
        f"{protocol['users']} users"
    )
    return Table(title, ["system", *(heading(metric) for metric in metrics)], rows)


def _lists(lists: Mapping[str, Any]) -> Table:
    systems = lists.get("systems", {})
    shown = {name: None for one in systems.values() for name in one if name != "sd"}
    rows = [
        [shortened(name), *(over_seeds(one, column) for column in shown)]
        for name, one in systems.items()
    ]
    title = f"What these lists of {lists.get('length')} are like"
    if lists.get("diversity_column"):
        title += f"; diversity by {one_line(lists['diversity_column'])}"
    return Table(title, ["system", *shown], rows)


def _agreement(distillation: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        [
            shortened(name),
            f"{over_seeds(one, 'agreement')}{interval(one.get('ci95'))}",
            one_line(one.get("users", UNKNOWN)),
        ]
        for name, one in distillation.items()
    ]
    title = "Agreement with the teacher's first choice on held-out histories"
    return Table(title, ["system", "agreement [95 %]", "users"], rows)


def _metric(system: Mapping[str, Any], metric: str) -> str:
    shown = number(system.get(metric))
    if metric in WITH_INTERVAL:
        shown += interval(system.get("ci95", {}).get(metric))
    return shown


def _seconds(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else UNKNOWN


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=110, subsequent_indent="  ")
