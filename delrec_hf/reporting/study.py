"""What a study shows: each variant of a recipe beside the recipe itself."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from delrec_hf.evaluation.claims import LEAST_USERS, LEVEL, p_value
from delrec_hf.reporting.drawing import Picture
from delrec_hf.reporting.figures import LONGEST, bars
from delrec_hf.reporting.reading import FinishedRun, interval, number
from delrec_hf.reporting.sweep import SWEPT, Sweep
from delrec_hf.reporting.tables import Cell, Rows
from delrec_hf.reporting.wording import (
    UNKNOWN,
    adjusted,
    decimal,
    duration,
    heading,
    printable,
    span,
)

_SHOWN = ("teacher", "prompt-only", "lora-only", "delrec", "delrec+teacher")


def words(run: FinishedRun) -> list[str]:
    """Say what was changed, what may be said of it, and what it cost."""
    variants = run.study.get("variants", [])
    if not variants:
        return []
    said = [
        f"The recipe and {len(variants)} variants of it, each with one thing changed and trained "
        f"anew from there on; seeds: {', '.join(str(seed) for seed in run.seeds)}. p is corrected "
        "by Holm for all variants."
    ]
    metric = _main_metric(run)
    apart = [
        f"{printable(one['name'], 60)} ({decimal(found.get('difference'), sign=True)})"
        for one in variants
        if (found := _against(one, "delrec", metric)) and _is_shown(found)
    ]
    said.append(
        f"By {heading(metric)} DELRec differs from the recipe's in: {', '.join(apart)}."
        if apart
        else f"By {heading(metric)} no variant of DELRec is shown to differ from the recipe's."
    )
    seconds = [number(one.get("seconds")) for one in (run.study, *variants)]
    known = [one for one in seconds if one is not None]
    if known:
        said.append(f"It took {duration(sum(known))} in all; what variants share was made once.")
    return said


def differences(run: FinishedRun, metric: str, name: str) -> Picture | None:
    """Draw how DELRec of each variant differs from the recipe's."""
    found = {
        _label(one): (entry["difference"], interval(entry) or ())
        for one in run.study.get("variants", [])
        if (entry := _against(one, "delrec", metric))
        and number(entry.get("difference")) is not None
    }
    return bars(found, metric, name, f"{heading(metric)} with one thing changed", "the recipe")


def table(run: FinishedRun, metric: str) -> Rows | None:
    """Return a metric of the systems of each variant, and how DELRec differs."""
    variants = run.study.get("variants", [])
    shown = [one for one in _SHOWN if any(one in held["systems"] for held in variants)]
    if not variants or not any(metric in one for one in run.study["systems"].values()):
        return None
    rows = [("the recipe", [*_values(run.study, shown, metric), Cell(""), Cell("")])]
    for one in variants:
        compared = [_difference(one, against, metric) for against in ("delrec", "lora-only")]
        rows.append((printable(one["name"], 60), [*_values(one, shown, metric), *compared]))
    for (_, cells), one in zip(rows, (run.study, *variants), strict=True):
        cells.append(Cell(duration(one.get("seconds"))))
    headers = ["variant", *shown, "delrec to the recipe's", "delrec to its lora-only", "time"]
    return Rows(
        f"{heading(metric)}. Small: 95 % interval, and p by Holm. Bold: p below {LEVEL:g}.",
        headers,
        rows,
    )


def sweeps(run: FinishedRun) -> list[tuple[Sweep, list[FinishedRun]]]:
    """Return each setting that takes three or more numbers, with the recipe as one of them."""
    by_setting: dict[str, list[tuple[float, FinishedRun]]] = {}
    for one in run.study.get("variants", []):
        for setting, value in one["changes"].items():
            if len(one["changes"]) == 1 and number(value) is not None:
                by_setting.setdefault(setting, []).append((value, _as_run(run, one)))
    found = []
    for setting, variants in by_setting.items():
        section, _, key = setting.partition(".")
        own = number(run.settings.get(section, {}).get(key))
        if own is None or len(variants) < 2:
            continue
        values, runs = zip((own, _as_run(run, run.study)), *variants, strict=True)
        found.append((Sweep(setting, SWEPT.get(setting, setting), values, ()), list(runs)))
    return found


def _main_metric(run: FinishedRun) -> str:
    compared = [one["metric"] for one in run.study["variants"][0]["comparisons"]]
    return next((one for one in ("expected_hr@1", "ndcg@10") if one in compared), "hr@1")


def _as_run(run: FinishedRun, held: dict[str, Any]) -> FinishedRun:
    return replace(run, results={"systems": held["systems"], "protocol": run.protocol}, study={})


def _against(one: dict[str, Any], other: str, metric: str) -> dict[str, Any]:
    found = [c for c in one["comparisons"] if (c.get("b"), c.get("metric")) == (other, metric)]
    return found[0] if found else {}


def _label(one: dict[str, Any]) -> str:
    """Return a variant's name, without its section where it would be cut."""
    name: str = one["name"]
    return name if len(name) <= LONGEST else name.partition(".")[2] or name


def _is_shown(comparison: dict[str, Any]) -> bool:
    p, users = adjusted(comparison), number(comparison.get("users"))
    return p is not None and p < LEVEL and (users or 0) >= LEAST_USERS


def _difference(one: dict[str, Any], against: str, metric: str) -> Cell:
    found = _against(one, against, metric)
    p = adjusted(found) if found else None
    if p is None:
        return Cell(UNKNOWN)
    note = f"{span(interval(found), sign=True)} p {p_value(p)}"
    return Cell(decimal(found["difference"], sign=True), note, strong=_is_shown(found))


def _values(held: dict[str, Any], shown: Sequence[str], metric: str) -> list[Cell]:
    systems = held["systems"]
    return [Cell(decimal(systems.get(name, {}).get(metric))) for name in shown]
