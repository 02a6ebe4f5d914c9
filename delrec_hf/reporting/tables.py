"""The tables of a report: cells of a number and, smaller, how sure it is."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from delrec_hf.evaluation.claims import p_value
from delrec_hf.evaluation.metrics import EXPECTED_HR, LOG_LOSS
from delrec_hf.reporting.reading import FinishedRun, interval, number
from delrec_hf.reporting.wording import (
    UNKNOWN,
    adjusted,
    decimal,
    duration,
    heading,
    over,
    printable,
    span,
)

_METRICS = (EXPECTED_HR, "hr@1", "hr@5", "hr@10", "ndcg@10", "mrr", LOG_LOSS)
_MINUS = " \N{MINUS SIGN} "


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Attributes:
        text: The number.
        note: Its interval or p, in small print.
        strong: Whether it is the best of its column.
    """

    text: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Rows:
    """A table whose rows have names.

    Attributes:
        caption: What it shows.
        headers: One for the names, then one for each column.
        rows: Name and cells of each row.
        words: Whether cells are words, which stand to the left.
    """

    caption: str
    headers: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    words: bool = False


def systems(run: FinishedRun) -> Rows:
    """Return every system's metrics with their intervals, the best of each in bold."""
    candidates = run.protocol.get("num_candidates")
    return _measured(
        f"All systems. Brackets: 95 % interval over {over(run)}. Bold: best of a column.",
        run.systems,
        [one for one in _METRICS if _tells(one, candidates)],
        seconds=True,
    )


def weights(run: FinishedRun) -> Rows | None:
    """Return what fused systems weigh their parts with."""
    found = {name: one.get("weights") for name, one in run.systems.items()}
    fused = {name: parts for name, parts in found.items() if isinstance(parts, dict)}
    rows = [
        (printable(name), [_weight(part, held) for part, held in parts.items()])
        for name, parts in fused.items()
        if len(parts) == 2
    ]
    words = "What fused systems weigh their parts' scores with, fitted on validation users."
    return Rows(words, ["system", "first part", "second part"], rows) if rows else None


def _weight(part: str, held: Any) -> Cell:
    """Show a weight to three digits: scores come in any unit."""
    value = number(held.get("weight")) if isinstance(held, dict) else None
    if value is None:
        return Cell(UNKNOWN)
    scale, bounds = held.get("scale"), interval(held)
    unit = "log " if isinstance(scale, dict) and scale.get("kind") == "log" else ""
    note = "" if bounds is None else f"[{bounds[0]:.3g}, {bounds[1]:.3g}]"
    return Cell(f"{value:.3g} of {unit}{printable(part, 40)}", note)


def elsewhere(run: FinishedRun) -> list[Rows]:
    """Return the tables of other candidates, and of what the lists of ten of them are like."""
    found = []
    metrics = ("hr@1", "hr@10", "ndcg@10", "mrr")
    for block, words in (
        ("retrieved", "End to end: the best {num_candidates} of the catalogue by {retriever}"),
        ("whole_catalogue", "Whole catalogue: all {num_candidates} items but those seen before"),
    ):
        held = run.results.get(block)
        if not isinstance(held, dict) or not isinstance(held.get("systems"), dict):
            continue
        facts = {**dict.fromkeys(("num_candidates", "retriever"), "?"), **held.get("protocol", {})}
        caption = words.format(**{name: printable(value, 40) for name, value in facts.items()})
        if number(held.get("recall_ceiling")) is not None:
            ceiling = _over_seeds(held, "recall_ceiling")
            caption += f", reranked; {ceiling} of the targets are there"
        found.append(_measured(f"{caption}.", held["systems"], metrics))
        if isinstance(held.get("lists"), dict) and isinstance(held["lists"].get("systems"), dict):
            found.append(_lists(held["lists"]))
    return found


def _lists(lists: dict[str, Any]) -> Rows:
    """Return what lists are like; more of it is not better, so that nothing is the best."""
    systems = {name: one for name, one in lists["systems"].items() if isinstance(one, dict)}
    shown = list(dict.fromkeys(name for one in systems.values() for name in one if name != "sd"))
    column = lists.get("diversity_column")
    by = "" if column is None else f"; diversity by {printable(column, 40)}"
    return Rows(
        f"What these lists of {printable(lists.get('length'), 9)} are like: share of the catalogue "
        "that they cover, Gini of how often items stand in them (0: all alike), training "
        f"interactions of their items, bits of surprise{by}.",
        ["system", *(printable(name, 40) for name in shown)],
        [
            (printable(name), [Cell(_over_seeds(one, column)) for column in shown])
            for name, one in systems.items()
        ],
    )


def comparisons(run: FinishedRun) -> Rows | None:
    """Return the paired differences, a pair a row."""
    found = run.results.get("comparisons", [])
    if not found:
        return None
    present = {one["metric"] for one in found}
    metrics = [one for one in _METRICS if one in present]
    metrics += sorted(present - set(metrics))
    cells: dict[str, dict[str, Cell]] = {}
    for one in found:
        pair = f"{printable(one['a'], 40)}{_MINUS}{printable(one['b'], 40)}"
        cells.setdefault(pair, {})[one["metric"]] = _difference(one)
    corrected = any(adjusted(one) is not None for one in found)
    words = "corrected by Holm for their number" if corrected else "not corrected for their number"
    nothing = Cell(UNKNOWN)
    return Rows(
        f"Paired differences, user by user; p {words}.",
        ["pair", *(heading(metric) for metric in metrics)],
        [(pair, [row.get(one, nothing) for one in metrics]) for pair, row in cells.items()],
    )


def _difference(one: dict[str, Any]) -> Cell:
    p = adjusted(one)
    p = number(one.get("p")) if p is None else p
    said = f"{span(interval(one), sign=True)} {'' if p is None else f'p {p_value(p)}'}"
    return Cell(decimal(one.get("difference"), sign=True), said.strip())


def agreement(run: FinishedRun) -> Rows | None:
    """Return how often prompts choose what the teacher ranks first."""
    found = run.results.get("distillation")
    if not isinstance(found, dict) or not found:
        return None
    return Rows(
        "Agreement with the teacher's first choice, on histories held out of training.",
        ["prompt", "agreement", "users"],
        [
            (
                printable(name),
                [
                    Cell(_over_seeds(one, "agreement"), span(interval(one))),
                    Cell(printable(one.get("users", UNKNOWN))),
                ],
            )
            for name, one in found.items()
            if isinstance(one, dict)
        ],
    )


def beside(runs: Sequence[FinishedRun], metric: str) -> Rows:
    """Return one metric of all systems, a run a column."""
    names = list(dict.fromkeys(name for run in runs for name in run.systems))
    rows = [
        (printable(name), [_metric(run.systems.get(name, {}), metric) for run in runs])
        for name in names
    ]
    return Rows(
        f"{heading(metric)} of each run. Brackets: 95 % interval. Bold: best of a run.",
        ["system", *(printable(run.name, 40) for run in runs)],
        _with_best(rows, [metric] * len(runs)),
    )


def differing_settings(differ: dict[str, list[Any]], runs: Sequence[FinishedRun]) -> Rows | None:
    """Return the settings that runs do not share."""
    if not differ:
        return None
    return Rows(
        "Settings that differ.",
        ["setting", *(printable(run.name, 40) for run in runs)],
        [(name, [Cell(_setting(value)) for value in values]) for name, values in differ.items()],
        words=True,
    )


def _setting(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(str(one) for one in value)
    return "not set" if value is None else printable(value, 120)


def times(run: FinishedRun) -> Rows | None:
    """Return how long the stages took."""
    stages = run.record.get("stages", {})
    rows = [
        (printable(name), [Cell(duration(one.get("seconds")))])
        for name, one in stages.items()
        if number(one.get("seconds")) is not None
    ]
    words = "Time of each stage" + (", first seed." if len(run.seeds) > 1 else ".")
    return Rows(words, ["stage", "time"], rows) if rows else None


def pairs(caption: str, facts: Iterable[tuple[str, Any]]) -> Rows | None:
    """Return facts as a table of words; what is not known is left out."""
    rows = [(name, [Cell(printable(value))]) for name, value in facts if value not in (None, "")]
    return Rows(caption, ["fact", "value"], rows, words=True) if rows else None


def _measured(
    caption: str,
    found: dict[str, dict[str, Any]],
    metrics: Sequence[str],
    seconds: bool = False,
) -> Rows:
    metrics = [metric for metric in metrics if any(metric in one for one in found.values())]
    rows = [
        (printable(name), [_metric(one, metric) for metric in metrics])
        for name, one in found.items()
    ]
    rows = _with_best(rows, metrics)
    headers = ["system", *(heading(metric) for metric in metrics)]
    if seconds and any("seconds" in one for one in found.values()):
        headers.append("seconds")
        rows = [
            (name, [*cells, Cell(_seconds(one.get("seconds")))])
            for (name, cells), one in zip(rows, found.values(), strict=True)
        ]
    return Rows(caption, headers, rows)


def _metric(one: dict[str, Any], metric: str) -> Cell:
    return Cell(_over_seeds(one, metric), span(interval(one, metric)))


def _over_seeds(one: dict[str, Any], name: str) -> str:
    """Show a number, and how it varies between seeds where there are several."""
    spread = number(one.get("sd", {}).get(name))
    return decimal(one.get(name)) + ("" if spread is None else f" ± {decimal(spread)}")


def _seconds(value: Any) -> str:
    found = number(value)
    return UNKNOWN if found is None else f"{found:.1f}"


def _with_best(
    rows: Sequence[tuple[str, Sequence[Cell]]], metrics: Sequence[str]
) -> list[tuple[str, list[Cell]]]:
    marked = [(name, list(cells)) for name, cells in rows]
    for place, metric in enumerate(metrics):
        values = [cells[place].text.split(" ")[0] for _, cells in marked]
        known = [one for one in values if number_of(one) is not None]
        if not known:
            continue
        best = (min if metric == LOG_LOSS else max)(known, key=lambda one: number_of(one) or 0.0)
        for (_, cells), value in zip(marked, values, strict=True):
            if value == best:
                cells[place] = Cell(cells[place].text, cells[place].note, strong=True)
    return marked


def number_of(text: str) -> float | None:
    """Return the number that a cell shows, if it shows one."""
    plain = text.replace("\N{MINUS SIGN}", "-")
    return float(plain) if re.fullmatch(r"-?\d+\.\d+", plain) else None


def _tells(metric: str, candidates: Any) -> bool:
    """Say whether a metric can be less than 1 for all: HR@10 of 10 candidates cannot."""
    cut = re.fullmatch(r"hr@(\d+)", metric)
    return cut is None or not isinstance(candidates, int) or int(cut[1]) < candidates
