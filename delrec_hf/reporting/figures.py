"""The figures of results: what was measured, what differs, who gains."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from delrec_hf.evaluation.claims import LEVEL
from delrec_hf.evaluation.metrics import EXPECTED_HR, LOG_LOSS
from delrec_hf.reporting.drawing import (
    DASHES,
    GRID,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Picture,
    add_legend,
    new_figure,
    picture,
    styled,
)
from delrec_hf.reporting.reading import FinishedRun, interval, number
from delrec_hf.reporting.wording import adjusted, decimal, heading, over, printable, verdict

KINDS = ("baseline", "teacher", "language model", "fused with the teacher")
_ROW = 0.29
LONGEST = 24
"""Characters of a label; longer ones are cut."""


@styled
def measured(runs: Sequence[FinishedRun], metric: str, name: str) -> Picture:
    """Draw a metric of all systems, a dot and the interval over users for each run."""
    systems = shared_systems(runs)
    rows = len(systems) * max(1.0, 0.55 * len(runs))
    figure, axes = new_figure(_ROW * rows + 1.0)
    named: set[str] = set()
    for place, run in enumerate(runs):
        shift = (place - (len(runs) - 1) / 2) * 0.6 / len(runs)
        for row, system in enumerate(systems):
            value = number(run.systems.get(system, {}).get(metric))
            if value is None:
                continue
            look = KINDS.index(kind(system)) if len(runs) == 1 else place
            label = kind(system) if len(runs) == 1 else printable(run.name, LONGEST)
            bounds = interval(run.systems[system], metric)
            _dot(axes, value, row + shift, bounds, look, "" if label in named else label)
            named.add(label)
            if len(runs) == 1:
                _beside(axes, row, decimal(value))
    _rows(axes, [printable(one, LONGEST) for one in systems])
    limit = number(runs[0].protocol.get("best_hr_at_1")) if metric == EXPECTED_HR else None
    if limit is not None:
        axes.axvline(limit, color=INK, linestyle=":", linewidth=1.2, label="limit")
    axes.set_xlabel(f"{heading(metric)}{' (lower is better)' if metric == 'log_loss' else ''}")
    add_legend(figure, axes)
    said = [
        f"{printable(run.name, 40)}: "
        + ", ".join(f"{one} {decimal(found.get(metric))}" for one, found in run.systems.items())
        for run in runs
    ]
    spans = f"their 95 % intervals over {over(runs[0])}"
    caption = f"Dots are means over test users, lines {spans}."
    return picture(figure, name, heading(metric), caption, "; ".join(said))


@styled
def differences(run: FinishedRun, metric: str, name: str) -> Picture | None:
    """Draw the paired differences of a metric; filled where the interval leaves 0 out."""
    found = [one for one in run.results.get("comparisons", []) if one["metric"] == metric]
    found = [one for one in found if number(one.get("difference")) is not None]
    if not found:
        return None
    labels: list[str] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    for one in found:
        first = f"{_short(one['a'])} minus"
        if first not in labels:
            labels.append(first)
        rows.append((len(labels), one))
        labels.append(_short(one["b"]))
    figure, axes = new_figure(_ROW * len(labels) + 0.8)
    for row, one in rows:
        apart = verdict(one) in ("above", "below")
        _dot(axes, one["difference"], row, interval(one), 0, "", filled=apart)
        _beside(axes, row, decimal(one["difference"], sign=True))
    axes.axvline(0, color=INK, linewidth=1)
    _rows(axes, labels)
    axes.set_xlabel(f"difference in {heading(metric)}")
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text().endswith(" minus") else "normal")
    said = "; ".join(
        f"{one['a']} minus {one['b']}: {decimal(one['difference'], True)}" for one in found
    )
    corrected = all(adjusted(one) is not None for one in found)
    caption = f"Holm p below {LEVEL:g}" if corrected else "the 95 % interval leaves 0 out"
    caption = f"Filled: {caption}. To the right, the first of the pair ranks "
    caption += "better." if metric != LOG_LOSS else "worse: lower log-loss is better."
    return picture(figure, name, f"Paired differences in {heading(metric)}", caption, said)


def ablations(run: FinishedRun, metric: str, name: str) -> Picture | None:
    """Draw what DELRec loses without one of its parts, as bars from DELRec's own value."""
    found = {
        one["b"]: (-one["difference"], [-bound for bound in reversed(interval(one) or ())])
        for one in ablated(run)
        if one["metric"] == metric
    }
    title = f"{heading(metric)} of DELRec without its parts"
    return bars(found, metric, name, title, "DELRec as a whole")


@styled
def bars(
    found: Mapping[str, tuple[float, Sequence[float]]],
    metric: str,
    name: str,
    title: str,
    whole: str,
) -> Picture | None:
    """Draw differences as bars to the left and to the right.

    Args:
        found: What differs, to its difference and the bounds of that, if there are any.
        metric: By what they are measured.
        name: Of the picture.
        title: Of the picture.
        whole: What they differ from.
    """
    if not found:
        return None
    figure, axes = new_figure(_ROW * 1.2 * len(found) + 0.8)
    for row, (value, bounds) in enumerate(found.values()):
        fill = SERIES[0] if bounds else "none"
        axes.barh(row, value, height=0.55, color=fill, edgecolor=SERIES[0])
        if bounds:
            axes.plot(bounds, [row, row], color=INK, linewidth=1.3)
        _beside(axes, row, decimal(value, sign=True))
    axes.axvline(0, color=INK, linewidth=1)
    _rows(axes, [_short(one) for one in found])
    axes.set_xlabel(f"{heading(metric)}, difference to {whole}")
    said = ", ".join(
        f"{printable(one)} {decimal(value, True)}" for one, (value, _) in found.items()
    )
    caption = f"Bars to the left: worse than {whole}"
    caption += " (log-loss: better)" if metric == LOG_LOSS else ""
    caption += "; thin lines: 95 % intervals"
    caption += "." if all(bounds for _, bounds in found.values()) else "; hollow: without one."
    return picture(figure, name, title, caption, said)


def shared_systems(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the systems that all runs measured, or, where there is none, those of any."""
    names = list(dict.fromkeys(name for run in runs for name in run.systems))
    return [name for name in names if all(name in run.systems for run in runs)] or names


def ablated(run: FinishedRun) -> list[dict[str, Any]]:
    """Return the comparisons of DELRec with itself less a part."""
    parts = ("prompt-only", "lora-only", "hard-prompt", "zero-shot")
    return [
        one
        for one in run.results.get("comparisons", [])
        if one["a"] == "delrec"
        and (one["b"] in parts or str(one["b"]).startswith("delrec/"))
        and number(one.get("difference")) is not None
    ]


def kind(system: str) -> str:
    """Say what kind of system a name stands for.

    >>> kind("markov"), kind("delrec/no-ta"), kind("co-occurrence+teacher")
    ('baseline', 'language model', 'fused with the teacher')
    """
    if "+" in system:
        return KINDS[3]
    if system in ("random", "popularity", "markov", "co-occurrence"):
        return KINDS[0]
    return KINDS[1] if system.split("/")[0] == "teacher" else KINDS[2]


def line(axes: Axes, points: Sequence[tuple[float, float]], look: int, label: str) -> None:
    """Draw a series with its own colour, line and marker."""
    look %= len(SERIES)
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=SERIES[look],
        linestyle=DASHES[look],
        marker=MARKERS[look],
        markersize=5,
        linewidth=1.6,
        label=label,
    )


def followed(run: FinishedRun) -> list[str]:
    """Return the systems that a figure with little room is about."""
    wanted = ("zero-shot", "lora-only", "delrec", "co-occurrence+teacher", "delrec+teacher")
    return [one for one in run.systems if one in wanted or kind(one) == "teacher"]


def _dot(
    axes: Axes,
    value: float,
    row: float,
    bounds: tuple[float, float] | None,
    look: int,
    label: str,
    filled: bool = True,
) -> None:
    look %= len(SERIES)
    colour = SERIES[look]
    if bounds is not None:
        axes.plot(bounds, [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot(
        [value],
        [row],
        linestyle="none",
        marker=MARKERS[look],
        markersize=6,
        color=colour,
        markerfacecolor=colour if filled else "none",
        markeredgewidth=1.4,
        label=label or None,
    )


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.grid(axis="x", color=GRID, linewidth=0.8)


def _beside(axes: Axes, row: float, text: str) -> None:
    """Write a number to the right of a row."""
    place = axes.get_yaxis_transform()
    axes.text(1.02, row, text, transform=place, va="center_baseline", color=MUTED)


def _short(name: Any) -> str:
    return printable(name, LONGEST)
