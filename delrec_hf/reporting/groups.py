"""What a report shows of groups of users: by what they met before, and by what their target is."""

from collections.abc import Sequence
from typing import Any

from delrec_hf.evaluation.claims import LEAST_USERS
from delrec_hf.evaluation.metrics import LOG_LOSS
from delrec_hf.evaluation.notes import FEW, GROUPS_NOTE
from delrec_hf.evaluation.slices import HISTORY, ITEMS, SEEN, by_kind, main_pair
from delrec_hf.evaluation.slices import words as told
from delrec_hf.reporting.drawing import GRID, Picture, add_legend, new_figure, picture, styled
from delrec_hf.reporting.figures import LONGEST, bars, followed, line
from delrec_hf.reporting.reading import FinishedRun, interval, number
from delrec_hf.reporting.tables import Cell, Rows
from delrec_hf.reporting.wording import UNKNOWN, decimal, heading, printable, span

METRICS = ("ndcg@10", LOG_LOSS)
"""What groups are told apart in."""

_TICKS = {SEEN: "training interactions with the target", HISTORY: "items before the target"}


def words(run: FinishedRun) -> list[str]:
    """Say what may not be read from groups."""
    return [GROUPS_NOTE] if _kinds(run) else []


def pictures(run: FinishedRun, prefix: str) -> list[Picture | None]:
    """Draw what users are grouped by: numbers as lines, what targets are as differences."""
    shown = [(by, groups, metric) for by, groups in _kinds(run).items() for metric in METRICS]
    return [
        _differences(run, by, groups, metric, f"{prefix}slices-{place}")
        if by.startswith(ITEMS)
        else _lines(run, by, groups, metric, f"{prefix}slices-{place}")
        for place, (by, groups, metric) in enumerate(shown, start=1)
    ]


def tables(run: FinishedRun) -> list[Rows]:
    """Return each metric of all systems, a group a column, and how the main pair differs."""
    return [
        _table(run, by, groups, metric)
        for by, groups in _kinds(run).items()
        for metric in METRICS
        if any(metric in _of(one, name) for one in groups for name in run.systems)
    ]


def _kinds(run: FinishedRun) -> dict[str, list[dict[str, Any]]]:
    """Return the groups by what they are grouped by, where there are several."""
    kinds = by_kind(run.results.get("slices", []))
    return {by: groups for by, groups in kinds.items() if len(groups) > 1}


@styled
def _lines(
    run: FinishedRun, by: str, groups: Sequence[dict[str, Any]], metric: str, name: str
) -> Picture | None:
    systems = [one for one in followed(run) if any(metric in _of(g, one) for g in groups)]
    if not systems:
        return None
    figure, axes = new_figure(3.0)
    for look, system in enumerate(systems):
        values = [number(_of(group, system).get(metric)) for group in groups]
        points = [(place, one) for place, one in enumerate(values) if one is not None]
        line(axes, points, look, printable(system, LONGEST))
    axes.set_xticks(range(len(groups)), [f"{_named(g, 9)}\n({g.get('users')})" for g in groups])
    axes.set_xlim(-0.4, len(groups) - 0.6)
    axes.set_xlabel(f"{_TICKS.get(by, printable(by, 40))} (test users)")
    axes.set_ylabel(heading(metric))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    add_legend(figure, axes)
    caption = "Groups of few users vary most; the table has all systems."
    title = f"{heading(metric)} by {printable(told(by), 60)}"
    return picture(figure, name, title, caption, "The numbers stand in the table.")


def _differences(
    run: FinishedRun, by: str, groups: Sequence[dict[str, Any]], metric: str, name: str
) -> Picture | None:
    first, other = main_pair(list(run.systems))
    found = {
        f"{_named(one)} ({one.get('users')})": (difference, interval(compared) or ())
        for one in groups
        if (compared := _compared(one, metric))
        and (difference := number(compared.get("difference"))) is not None
    }
    pair = f"{printable(first, LONGEST)} less {printable(other, LONGEST)}"
    title = f"{heading(metric)} of {pair}, by {printable(told(by), 60)}"
    return bars(found, metric, name, title, printable(other, LONGEST))


def _table(run: FinishedRun, by: str, groups: Sequence[dict[str, Any]], metric: str) -> Rows:
    rows = [
        (printable(name), [Cell(decimal(_of(one, name).get(metric))) for one in groups])
        for name in run.systems
    ]
    compared = [_compared(one, metric) for one in groups]
    pairs = [f"{one['a']} \N{MINUS SIGN} {one['b']}" for one in compared if one]
    if pairs:
        rows.append((printable(pairs[0]), [_difference(one) for one in compared]))
    return Rows(
        f"{heading(metric)} by {printable(told(by), 60)} (test users).",
        ["system", *(f"{_named(one, LONGEST)} ({one.get('users')})" for one in groups)],
        rows,
    )


def _difference(compared: dict[str, Any]) -> Cell:
    if not compared:
        return Cell(UNKNOWN)
    return Cell(decimal(compared.get("difference"), sign=True), span(interval(compared), sign=True))


def _compared(group: dict[str, Any], metric: str) -> dict[str, Any]:
    """Return the main pair's comparison by a metric, if there is one."""
    found = [one for one in group.get("comparisons", []) if one.get("metric") == metric]
    return found[0] if found else {}


def _named(group: dict[str, Any], longest: int = 200) -> str:
    """Name a group, and mark it where it is too small to claim anything about it."""
    users = number(group.get("users"))
    few = users is not None and users < LEAST_USERS
    return f"{printable(group.get('group'), longest)}{FEW if few else ''}"


def _of(group: dict[str, Any], system: str) -> dict[str, Any]:
    found = group.get("systems", {}).get(system, {})
    return found if isinstance(found, dict) else {}
