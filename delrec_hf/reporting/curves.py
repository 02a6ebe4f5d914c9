"""The figures over time and over a setting: how trainings went, and what a setting changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from delrec_hf.reporting.drawing import (
    DASHES,
    GRID,
    MARKERS,
    SERIES,
    Picture,
    add_legend,
    new_figure,
    picture,
    styled,
)
from delrec_hf.reporting.figures import followed, shared_systems
from delrec_hf.reporting.reading import FinishedRun, interval, number
from delrec_hf.reporting.sweep import Sweep
from delrec_hf.reporting.wording import decimal, heading, over, printable

History = Sequence[Mapping[str, Any]]

_TASKS = ("TA", "RPS")
_TRAININGS = {
    "model": "delrec",
    "lora-only": "lora-only",
    "random-prompt": "delrec/random-prompt",
    "no-ta": "delrec/no-ta",
    "no-rps": "delrec/no-rps",
    "cartridge": "delrec/cartridge",
}
"""Logs of stage 2, and what the systems that were trained there are called."""

_BOTH = (("", ", training", False), ("eval_", ", validation", True))
"""How keys begin, what is added to labels, and whether validation said it."""

_BANDS = 2  # more of them hide each other


@dataclass(frozen=True)
class Logged:
    """One line of a figure over steps.

    Attributes:
        label: What the legend calls it.
        key: Of the log.
        histories: The log of each seed.
        look: Place among colours, markers and lines.
        validated: Whether validation said it, at some steps.
    """

    label: str
    key: str
    histories: Sequence[History]
    look: int
    validated: bool = False


def training(run: FinishedRun, prefix: str) -> list[Picture]:
    """Draw both stages' losses, what validation said, and the weights of stage 1's tasks."""
    drawn = [*_stage_1(run, f"{prefix}stage-1-"), *_stage_2(run, f"{prefix}stage-2-")]
    return [one for one in drawn if one is not None]


def _stage_1(run: FinishedRun, prefix: str) -> list[Picture | None]:
    logged = run.logs.get("distil", [])
    tasks = [(task, task.lower(), look) for look, task in enumerate(_TASKS)]
    losses = [
        Logged(f"{task}{words}", f"{start}{key}_loss", logged, look, validated)
        for task, key, look in tasks
        for start, words, validated in _BOTH
    ]
    weights = [Logged(task, f"{key}_weight", logged, look) for task, key, look in tasks]
    said = [
        Logged("RPS: agreement with the teacher", "eval_rps_agreement", logged, 1, True),
        Logged("TA: NDCG@10", "eval_ta_ndcg@10", logged, 0, True),
    ]
    return [
        _over_steps(f"{prefix}loss", "Stage 1: losses of both tasks", "loss", losses),
        _over_steps(f"{prefix}weights", "Stage 1: weights of both tasks", "weight", weights),
        _over_steps(f"{prefix}validation", "Stage 1: validation", "share, NDCG", said),
    ]


def _stage_2(run: FinishedRun, prefix: str) -> list[Picture | None]:
    logged = [
        (name, run.logs.get(log, []), look) for look, (log, name) in enumerate(_TRAININGS.items())
    ]
    losses = [
        Logged(f"{name}{words}", f"{start}loss", histories, look, validated)
        for name, histories, look in logged[:2]
        for start, words, validated in _BOTH
    ]
    said = [Logged(name, "eval_ndcg@10", histories, look, True) for name, histories, look in logged]
    return [
        _over_steps(f"{prefix}loss", "Stage 2: losses", "loss", losses),
        _over_steps(f"{prefix}validation", "Stage 2: validation", "NDCG@10", said),
    ]


@styled
def _over_steps(name: str, title: str, unit: str, series: Sequence[Logged]) -> Picture | None:
    drawn = [(one, _points(one)) for one in series]
    drawn = [(one, points) for one, points in drawn if points]
    if not drawn:
        return None
    figure, axes = new_figure(2.8)
    several = max(len(one.histories) for one, _ in drawn) > 1
    banded = several and len({one.look for one, _ in drawn}) <= _BANDS
    for one, points in drawn:
        _draw(axes, one, points, banded)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    add_legend(figure, axes)
    seeds = max(len(one.histories) for one, _ in drawn)
    caption = f"Mean of {seeds} seeds" if several else "One seed"
    caption += "; pale: lowest to highest." if banded else "."
    said = "; ".join(
        f"{one.label}: {decimal(fmean(points[min(points)]))} at step {min(points)}, "
        f"{decimal(fmean(points[max(points)]))} at step {max(points)}"
        for one, points in drawn
    )
    return picture(figure, name, title, caption, said)


def _points(series: Logged) -> dict[int, list[float]]:
    """Return the values of all seeds at each step."""
    found: dict[int, list[float]] = {}
    for history in series.histories:
        values = {
            one.get("step"): number(one.get(series.key)) for one in history if series.key in one
        }
        for step, value in values.items():
            if isinstance(step, int) and value is not None:
                found.setdefault(step, []).append(value)
    return dict(sorted(found.items()))


def _draw(axes: Axes, one: Logged, points: Mapping[int, Sequence[float]], banded: bool) -> None:
    steps, colour = list(points), SERIES[one.look]
    if banded:
        low, high = ([edge(points[step]) for step in steps] for edge in (min, max))
        axes.fill_between(steps, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(
        steps,
        [fmean(points[step]) for step in steps],
        color=colour,
        label=one.label,
        linewidth=1.0 if one.validated else 1.7,
        linestyle=":" if one.validated else DASHES[one.look],
        marker=MARKERS[one.look] if one.validated else None,
        markersize=5.5,
    )


@styled
def over_setting(
    runs: Sequence[FinishedRun], sweep: Sweep, metric: str, name: str
) -> Picture | None:
    """Draw a metric over the setting that runs differ in, with intervals over users."""
    order = sorted(range(len(runs)), key=lambda place: sweep.values[place])
    places = [sweep.values[one] for one in order]
    log = places[0] > 0 and places[-1] / places[0] >= 8
    shared = shared_systems(runs)
    systems = [one for one in followed(runs[0]) if one in shared]
    figure, axes = new_figure(3.1)
    said = []
    for look, system in enumerate(systems[: len(SERIES)]):
        points, widths = _of_system([runs[one] for one in order], places, system, metric)
        if not points:
            continue
        shift = (look - 2) * 0.012  # else the intervals hide each other
        axes.errorbar(
            [x * (1 + shift) if log else x + shift * (places[-1] - places[0]) for x, _ in points],
            [y for _, y in points],
            yerr=widths,
            color=SERIES[look],
            linestyle=DASHES[look],
            marker=MARKERS[look],
            markersize=5,
            linewidth=1.6,
            elinewidth=1,
            label=printable(system, 24),
        )
        said.append(f"{system}: " + ", ".join(f"{decimal(y)} at {x:g}" for x, y in points))
    if not said:
        return None
    axes.set_xscale("log" if log else "linear")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [f"{one:g}" for one in places])
    axes.set_xlabel(sweep.words)
    axes.set_ylabel(heading(metric))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    add_legend(figure, axes)
    caption = f"Lines up and down: 95 % intervals over {over(runs[0])}."
    return picture(figure, name, f"{heading(metric)} by {sweep.words}", caption, "; ".join(said))


def _of_system(
    runs: Sequence[FinishedRun], places: Sequence[float], system: str, metric: str
) -> tuple[list[tuple[float, float]], list[list[float]]]:
    """Return a system's points, and how far its intervals reach below and above them."""
    points: list[tuple[float, float]] = []
    widths: list[list[float]] = [[], []]
    for run, place in zip(runs, places, strict=True):
        value = number(run.systems.get(system, {}).get(metric))
        if value is None:
            continue
        low, high = interval(run.systems[system], metric) or (value, value)
        points.append((place, value))
        widths[0].append(max(0.0, value - low))
        widths[1].append(max(0.0, high - value))
    return points, widths
