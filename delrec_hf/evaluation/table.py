"""A titled table, as aligned plain text or as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A titled table; the columns after the first `left` ones are aligned to the right.

    Attributes:
        title: Line above it.
        headers: One name per column.
        rows: Cells as text.
        left: How many columns are aligned to the left.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


def plain_text(table: Table) -> str:
    """Return a table whose columns are aligned by spaces."""
    rows = [table.headers, *table.rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < table.left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([table.title, lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def markdown(table: Table) -> str:
    """Return a table as GitHub-flavoured Markdown, its cells escaped."""
    rule = ["---" if number < table.left else "---:" for number in range(len(table.headers))]
    rows = [[escape(cell) for cell in row] for row in (table.headers, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]
    return "\n".join([f"**{escape(table.title)}**", "", *lines])


def escape(text: str) -> str:
    r"""Return text that Markdown shows as it is, in a table cell or outside one.

    >>> print(escape("a|b *c*\n<i> [d](e) [0.1, 0.2]"))
    a\|b \*c\* \<i\> [d\](e) [0.1, 0.2]
    """
    return re.sub(r"([\\`*_<>|~$&]|\](?=[(\[:]))", r"\\\1", one_line(text))


def one_line(value: Any) -> str:
    """Return a value as text without line breaks or repeated spaces."""
    return " ".join(str(value).split())
