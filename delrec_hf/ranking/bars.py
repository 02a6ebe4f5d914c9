"""Panels of horizontal bars as an SVG picture, with nothing but text in, text out."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_COLOURS = ("#0072b2", "#e69f00")  # blue and orange of Okabe and Ito: told apart by all eyes
_INK, _PALE, _GRID = "#1a1a1a", "#595959", "#d9d9d9"
_WIDTH, _MARGIN = 820, 24
_PLOT = (290, 640)  # where bars begin and end
_COLUMNS = (710, 796)  # right ends of the two columns of numbers
_BAR, _ROW, _LINE = 9, 30, 19
_LABEL = 38


@dataclass(frozen=True)
class Bar:
    """A row of a panel: a bar for each series, one below the other.

    Attributes:
        label: What it is about.
        values: Length of each bar; negative to the left.
        total: Number beside them.
        note: Text in the last column.
    """

    label: str
    values: Sequence[float]
    total: float
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Rows on one scale.

    Attributes:
        heading: What they show.
        notes: Lines below it.
        bars: The rows.
        columns: Headings of the columns of `total` and `note`.
    """

    heading: str
    notes: Sequence[str]
    bars: Sequence[Bar]
    columns: tuple[str, str]


def draw(title: str, facts: Sequence[str], series: Sequence[str], panels: Sequence[Panel]) -> str:
    """Return the picture as SVG text.

    Args:
        title: Its heading.
        facts: Lines below it.
        series: Names of the bars of a row, in the order of their values; at most two.
        panels: What is drawn, from the top down.
    """
    page = _Page()
    page.text(title, size=18, bold=True, after=27)
    for fact in facts:
        page.text(with_minus(fact), colour=_PALE)
    if len(series) > 1:
        page.legend(series)
    for panel in panels:
        if panel.bars:
            page.panel(panel)
    return page.svg(title)


def shortened(text: str, longest: int) -> str:
    """Return a text cut to a length, with a sign that it was.

    >>> shortened("The Shawshank Redemption", 10)
    'The Shaws…'
    """
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


class _Page:
    """Grows downwards, element by element."""

    def __init__(self) -> None:
        self._elements: list[str] = []
        self._y = _MARGIN + 10.0

    def svg(self, title: str) -> str:
        height = round(self._y + _MARGIN - 10)
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
                f'width="{_WIDTH}" height="{height}" role="img" font-size="13" '
                "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">",
                f"<title>{_safe(title)}</title>",
                f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
                *self._elements,
                "</svg>\n",
            ]
        )

    def text(
        self, text: str, *, size: int = 13, bold: bool = False, colour: str = _INK, after: int = 0
    ) -> None:
        self._put(text, _MARGIN, size=size, bold=bold, colour=colour)
        self._y += after or _LINE

    def legend(self, series: Sequence[str]) -> None:
        x = float(_MARGIN)
        self._y += 4
        for name, colour in zip(series, _COLOURS, strict=False):
            self._rect(x, self._y - 9, 18, _BAR, colour)
            self._put(name, x + 25, colour=_PALE)
            x += 50 + 7.5 * len(name)
        self._y += _LINE

    def panel(self, panel: Panel) -> None:
        self._y += 20
        self._put(panel.heading, _MARGIN, size=14, bold=True)
        self._y += _LINE
        for note in panel.notes:
            self.text(note, colour=_PALE)
        self._y += 4
        for name, x in zip(panel.columns, _COLUMNS, strict=True):
            self._put(name, x, colour=_PALE, anchor="end", size=12)
        self._axis(panel.bars)

    def _axis(self, bars: Sequence[Bar]) -> None:
        ticks = _ticks([value for bar in bars for value in bar.values])
        low, high = ticks[0], ticks[-1]
        scale = (_PLOT[1] - _PLOT[0]) / (high - low)

        def place(value: float) -> float:
            return _PLOT[0] + (value - low) * scale

        top = self._y + 7
        bottom = top + _ROW * len(bars)
        for tick in ticks:
            colour, width = (_INK, 1.2) if tick == 0 else (_GRID, 1)
            x = f"{place(tick):.1f}"
            self._elements.append(
                f'<line x1="{x}" y1="{top:.1f}" x2="{x}" y2="{bottom:.1f}" stroke="{colour}" '
                f'stroke-width="{width}"/>'
            )
        for number, bar in enumerate(bars):
            self._row(bar, top + (number + 0.5) * _ROW, place)
        self._y = bottom + 15
        for tick in ticks:
            self._put(with_minus(f"{tick:g}"), place(tick), colour=_PALE, anchor="middle", size=12)
        self._y += _LINE

    def _row(self, bar: Bar, middle: float, place) -> None:  # type: ignore[no-untyped-def]
        self._y = middle + 4.5
        self._put(bar.label, _PLOT[0] - 14, anchor="end", longest=_LABEL)
        top = middle - _BAR * len(bar.values) / 2
        for number, (value, colour) in enumerate(zip(bar.values, _COLOURS, strict=False)):
            left, right = sorted((place(0.0), place(value)))
            self._rect(left, top + number * _BAR, right - left, _BAR - 0.5, colour)
        self._put(with_minus(f"{bar.total:+.2f}"), _COLUMNS[0], anchor="end")
        self._put(with_minus(bar.note), _COLUMNS[1], anchor="end")

    def _rect(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self._elements.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{colour}"/>'
        )

    def _put(
        self,
        text: str,
        x: float,
        *,
        size: int = 13,
        bold: bool = False,
        colour: str = _INK,
        anchor: str = "start",
        longest: int = 120,
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        cut = shortened(text, longest)
        whole = f"<title>{_safe(text)}</title>" if cut != text else ""
        self._elements.append(
            f'<text x="{x:.1f}" y="{self._y:.1f}" font-size="{size}" fill="{colour}" '
            f'text-anchor="{anchor}"{weight}>{_safe(cut)}{whole}</text>'
        )


def _safe(text: str) -> str:
    """Return text that XML can hold: escaped, without the characters that it has none for."""
    return escape("".join(one if one.isprintable() else " " for one in text))


def _ticks(values: Sequence[float]) -> list[float]:
    """Return round numbers, evenly spaced, from below the lowest value to above the highest.

    >>> _ticks([-0.3, 1.1])
    [-0.5, 0.0, 0.5, 1.0, 1.5]
    >>> _ticks([0.0])
    [0.0, 1.0]
    """
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    if low == high:
        return [0.0, 1.0]
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def with_minus(text: str) -> str:
    """Return a text whose negative numbers have a minus, which is as wide as a plus."""
    return re.sub(r"(?<!\w)-(?=\d)", "\u2212", text)
