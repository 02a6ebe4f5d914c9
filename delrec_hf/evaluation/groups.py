"""The tables of systems measured apart on groups of users."""

from collections.abc import Mapping, Sequence
from typing import Any

from delrec_hf.evaluation.cells import heading, number, paired, shortened
from delrec_hf.evaluation.claims import LEAST_USERS
from delrec_hf.evaluation.metrics import LOG_LOSS
from delrec_hf.evaluation.notes import FEW
from delrec_hf.evaluation.slices import SEEN, by_kind, main_pair, words
from delrec_hf.evaluation.table import Table

_GROUPED = ("ndcg@10", LOG_LOSS)
"""Metrics that groups of users are told apart in."""


def of_slices(slices: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return tables of what users are grouped by, where that makes several groups.

    How often targets were met is told of all systems, the rest of the main pair alone: more
    columns fit on no terminal.
    """
    kinds = {by: groups for by, groups in by_kind(slices).items() if len(groups) > 1}
    seen = kinds.get(SEEN, [])
    found = [
        Table(
            f"{heading(metric)} by {words(SEEN)} (users)",
            ["system", *(f"{_group(one)} ({one['users']})" for one in seen)],
            [
                [shortened(name), *(number(one["systems"][name].get(metric)) for one in seen)]
                for name in seen[0]["systems"]
            ],
        )
        for metric in _GROUPED
        if seen and any(metric in system for system in seen[0]["systems"].values())
    ]
    compared = {
        by: groups
        for by, groups in kinds.items()
        if any(one.get("comparisons") for one in groups)  # not of one system, or earlier versions
    }
    return found + [_of_groups(by, groups) for by, groups in compared.items()]


def _of_groups(by: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    """Return the main pair in each group."""
    first, other = main_pair(list(groups[0]["systems"]))
    metrics = [metric for metric in _GROUPED if metric in groups[0]["systems"][first]]
    rows = []
    for one in groups:
        compared = {held["metric"]: held for held in one.get("comparisons", [])}
        cells = [_group(one), str(one["users"])]
        for metric in metrics:
            cells += [number(one["systems"][first].get(metric)), paired(compared.get(metric, {}))]
        rows.append(cells)
    headers = ["group", "users"]
    for metric in metrics:
        headers += [heading(metric), "difference [95 %]"]
    pair = f"{shortened(first)} and its difference to {shortened(other)}"
    return Table(f"{pair}, by {shortened(words(by), 45)}", headers, rows)


def _group(one: Mapping[str, Any]) -> str:
    """Name a group, and mark it where it is too small to claim anything about it."""
    return f"{shortened(one['group'])}{FEW if one['users'] < LEAST_USERS else ''}"
