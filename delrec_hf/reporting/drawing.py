"""Colours of figures, and how figures become pictures for the page and for files."""

import io
import re
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1b1d", "#58595b", "#d6d7d9"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa4a8a", "#7a6a00", "#3d3d4f")
"""After Okabe and Ito: told apart by all eyes; the pale ones darkened until white carries them."""

MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)))
"""A series has its own marker and line, too: no colour stands alone."""

WIDTH = 4.7
"""Inches: read at the width of a phone, and two beside each other on a desk."""

_SHORT = 24  # characters of a label, so that two stand beside each other

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "delrec",
    "text.parse_math": False,  # a `$` in a name is a `$`
    "font.size": 10,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.unicode_minus": True,
}
styled = rc_context(_SETTINGS)
"""Decorates what draws: texts take their settings when they are made."""

_NAMED = {
    **{INK: "ink", MUTED: "muted", GRID: "grid"},
    **{colour: f"series-{place}" for place, colour in enumerate(SERIES, start=1)},
}


@dataclass(frozen=True)
class Picture:
    """A figure for the page and a file.

    Attributes:
        name: Of its file, without ending.
        title: What it shows.
        caption: How it is read.
        alt: What it says, for those who do not see it.
        svg: For the page: no colour of its own but the page's variables, so that light, dark and
            print need no second picture.
        png: For everything else: light.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes


def new_figure(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of the common width, its axes without a box."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(color=GRID, labelcolor=INK, labelsize=10, length=0)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    return figure, axes


def add_legend(figure: Figure, axes: Axes) -> None:
    """Name the series above the axes, where nothing is drawn."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=2 if max(map(len, labels)) <= _SHORT else 1,
            frameon=False,
            labelcolor=INK,
            borderpad=0,
            handlelength=2.6,
            columnspacing=1.2,
        )


@styled
def picture(figure: Figure, name: str, title: str, caption: str, alt: str) -> Picture:
    """Render a figure.

    Args:
        figure: Drawn with the colours of this module alone.
        name: Of the file, and what its parts on the page are told apart by.
        title: What it shows.
        caption: How it is read.
        alt: What it says.
    """
    drawn, painted = io.StringIO(), io.BytesIO()
    figure.draw_without_rendering()  # places everything, once for both
    figure.set_layout_engine("none")
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    figure.savefig(painted, format="png", dpi=220, facecolor="white")
    svg = _for_the_page(drawn.getvalue(), name)
    return Picture(name, title, caption, alt, svg, painted.getvalue())


def _for_the_page(svg: str, name: str) -> str:
    """Return an SVG that stands within a page: its names are its own, its colours the page's."""
    inner = svg[svg.index("<svg") :]
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    inner = re.sub(r"<style .*?</style>", "", inner, flags=re.DOTALL)
    inner = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", inner, count=1)
    inner = inner.replace("<svg", '<svg aria-hidden="true"', 1)
    inner = re.sub(r'\bid="', f'id="{name}-', inner)
    inner = re.sub(r'(url\(#|href="#)', rf"\1{name}-", inner)
    inner = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", inner)
    return re.sub(
        r"#[0-9a-f]{6}\b",
        lambda found: f"var(--{_NAMED[found[0]]})" if found[0] in _NAMED else found[0],
        inner,
    )
