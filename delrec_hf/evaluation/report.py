"""The report: which tables and notes results fill, for the terminal and for docs and cards."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from delrec_hf.evaluation.claims import p_value
from delrec_hf.evaluation.metrics import EXPECTED_HR
from delrec_hf.evaluation.notes import notes
from delrec_hf.evaluation.table import Table, escape, markdown, one_line, plain_text

SHOWN = ("hr@1", "hr@5", "hr@10", "ndcg@10", "mrr", "log_loss")
"""Columns of the table, as many as fit; results.json holds NDCG@5 too."""

WITH_INTERVAL = ("hr@1", "ndcg@10")
"""Metrics that show their 95 % interval in the table; results.json holds all of them."""

_LONGEST_NAME = 22
_UNKNOWN = "-"
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
    found += _slices(results.get("slices", []))
    for block, table in (("retrieved", _retrieved), ("whole_catalogue", _whole_catalogue)):
        if results.get(block):
            found += [table(results[block]), _lists(results[block].get("lists", {}))]
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
        rows.append([_shortened(name), *cells, _seconds(system.get("seconds"))])
    headers = ["system", *(_heading(metric) for metric in SHOWN), "seconds"]
    if all(row[-1] == _UNKNOWN for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return Table("Systems", headers, rows)


def _expected(results: Mapping[str, Any]) -> Table:
    rows = [
        [_shortened(name), _number(one[EXPECTED_HR]) + _interval(one["ci95"][EXPECTED_HR])]
        for name, one in results.get("systems", {}).items()
        if EXPECTED_HR in one
    ]
    if rows:
        rows.append(["limit", _number(results.get("protocol", {}).get("best_hr_at_1"))])
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
            _shortened(name),
            *(f"{_number(one[metric])} ± {_number(one['sd'][metric])}" for metric in metrics),
        ]
        for name, one in systems.items()
    ]
    seeds = len(results.get("protocol", {}).get("seeds", []))
    title = f"Mean and standard deviation over {seeds} seeds"
    return Table(title, ["system", *(_heading(metric) for metric in metrics)], rows)


def _comparisons(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            f"{_shortened(one['a'])} - {_shortened(one['b'])}",
            _heading(one["metric"]),
            f"{_number(one.get('difference'), sign=True)}{_interval(one.get('ci95'), sign=True)}",
            *(p_value(one[key]) if key in one else _UNKNOWN for key in ("p", "p_holm")),
        ]
        for one in comparisons
    ]
    headers = ["paired difference", "metric", "difference [95 %]", "p", "Holm p"]
    if all(row[-1] == _UNKNOWN for row in rows):  # of an earlier version
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return Table("Comparisons, user by user", headers, rows, left=2)


def _slices(slices: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table for each metric that the groups of targets differ in, if they are several."""
    if len(slices) < 2:
        return []
    groups = [f"{one['seen']} ({one['users']})" for one in slices]
    return [
        Table(
            f"{_heading(metric)} by how often the target was met in training (users)",
            ["system", *groups],
            [
                [_shortened(name), *(_number(one["systems"][name].get(metric)) for one in slices)]
                for name in slices[0]["systems"]
            ],
        )
        for metric in ("ndcg@10", "log_loss")
        if any(metric in system for system in slices[0]["systems"].values())
    ]


def _retrieved(retrieved: Mapping[str, Any]) -> Table:
    metrics = ("hr@1", "hr@10", "ndcg@10")
    rows = [
        [_shortened(name), *(_metric(system, metric) for metric in metrics)]
        for name, system in retrieved["systems"].items()
    ]
    protocol = retrieved["protocol"]
    title = (
        f"End to end: best {protocol['num_candidates']} of the catalogue by "
        f"{_shortened(protocol['retriever'])}, reranked; "
        f"{_number(retrieved['recall_ceiling'])} of the targets are there"
    )
    return Table(title, ["system", *(_heading(metric) for metric in metrics)], rows)


def _whole_catalogue(whole: Mapping[str, Any]) -> Table:
    metrics = ("hr@1", "hr@10", "ndcg@10", "mrr")
    rows = [
        [_shortened(name), *(_metric(system, metric) for metric in metrics)]
        for name, system in whole["systems"].items()
    ]
    protocol = whole["protocol"]
    title = (
        f"Whole catalogue: all {protocol['num_candidates']} items but those seen before, "
        f"{protocol['users']} users"
    )
    return Table(title, ["system", *(_heading(metric) for metric in metrics)], rows)


def _lists(lists: Mapping[str, Any]) -> Table:
    systems = lists.get("systems", {})
    shown = {name: None for one in systems.values() for name in one}
    rows = [
        [_shortened(name), *(_number(one.get(column)) for column in shown)]
        for name, one in systems.items()
    ]
    title = f"What these lists of {lists.get('length')} are like"
    if lists.get("diversity_column"):
        title += f"; diversity by {one_line(lists['diversity_column'])}"
    return Table(title, ["system", *shown], rows)


def _agreement(distillation: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        [
            _shortened(name),
            f"{_number(one.get('agreement'))}{_interval(one.get('ci95'))}",
            one_line(one.get("users", _UNKNOWN)),
        ]
        for name, one in distillation.items()
    ]
    title = "Agreement with the teacher's first choice on held-out histories"
    return Table(title, ["system", "agreement [95 %]", "users"], rows)


def _heading(metric: Any) -> str:
    return str(metric).upper().replace("_", "-")


def _metric(system: Mapping[str, Any], metric: str) -> str:
    shown = _number(system.get(metric))
    if metric in WITH_INTERVAL:
        shown += _interval(system.get("ci95", {}).get(metric))
    return shown


def _number(value: Any, sign: bool = False) -> str:
    if not isinstance(value, int | float):
        return _UNKNOWN
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def _interval(bounds: Any, sign: bool = False) -> str:
    if bounds is None:
        return ""
    low, high = (_number(bound, sign) for bound in bounds)
    return f" [{low}, {high}]"


def _seconds(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else _UNKNOWN


def _shortened(name: Any) -> str:
    text = one_line(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=110, subsequent_indent="  ")
