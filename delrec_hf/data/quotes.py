"""Which quotes of a table of text are quotes: those that pair."""

import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from delrec_hf.errors import InputError

_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@contextmanager
def long_fields() -> Iterator[None]:
    """Let Python's csv module read values of any length."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def paired_quotes(raw: bytes, between: str, width: int, path: Path) -> tuple[bytes, list[str]]:
    """Return a text in which every value that begins with a quote ends with one.

    Where quotes do not pair, each line is taken for itself, and a value that only begins with a
    quote is text.

    Args:
        raw: The text.
        between: What stands between columns.
        width: Number of columns.
        path: Where it comes from.

    Returns:
        The text, and notes on what was mended.

    Raises:
        InputError: If quotes do not pair, and lines taken for themselves are no table either.
    """
    text = raw.decode()
    fault, spaced = _look(text, between, width)
    if spaced:
        other_fault, quoted = _look(text, between, width, skip_spaces=True)
        if other_fault is None and quoted < spaced:
            return _without_spaces(text, between), ["spaces before quoted values are left out"]
    if fault is None:
        return raw, []
    lines, mended = [], 0
    for line in text.split("\n"):
        tamed = line if '"' not in line else _tamed(line, between, width)
        if tamed is None:
            if between == "\t":
                tamed = between.join(map(_closed, line.split(between)))
            else:
                raise InputError(f"{path} {fault}; write quotes inside a quoted value twice")
        mended += tamed != line
        lines.append(tamed)
    notes = [f"quotes that do not pair are text, on lines: {mended}"] if mended else []
    return "\n".join(lines).encode(), notes


def _look(
    text: str, between: str, width: int, *, skip_spaces: bool = False
) -> tuple[str | None, int]:
    """Find the first quote that does not pair, and count values of spaces and then a quote.

    A quoted value that holds whole rows is not meant to: they would be swallowed without a word.
    """
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=between, strict=True, skipinitialspace=skip_spaces
    )
    start, spaced = 1, 0
    try:
        with long_fields():
            for row in reader:
                for value in row:
                    spaced += value.startswith(" ") and value.lstrip(" ").startswith('"')
                    if "\n" in value and _holds_rows(value, between, width, len(row)):
                        return f"line {start}: a quoted value holds whole rows", spaced
                start = reader.line_num + 1
    except csv.Error as error:
        return f"line {start}: a quote does not pair ({error})", spaced
    return None, spaced


def _holds_rows(value: str, between: str, width: int, own_width: int) -> bool:
    """Say whether a value of several lines is rows, rather.

    It is if later lines have as many values as the table has columns. Of two columns, one separator
    in a line says little: then all lines must have it, and two of them. In a tsv, where quotes
    often mean nothing, one tab is enough, or a row of another length.
    """
    if between == "\t":
        return between in value or own_width != width
    inner = [line.count(between) == width - 1 for line in value.split("\n")[1:]]
    return any(inner) if width > 2 else width == 2 and len(inner) > 1 and all(inner)


def _without_spaces(text: str, between: str) -> bytes:
    source, target = io.StringIO(text, newline=""), io.StringIO(newline="")
    with long_fields():
        reader = csv.reader(source, delimiter=between, skipinitialspace=True)
        csv.writer(target, delimiter=between, lineterminator="\n").writerows(reader)
    return target.getvalue().encode()


def _tamed(line: str, between: str, width: int) -> str | None:
    """Return a line whose quotes pair; None where it has not the table's number of values."""
    cells = line.split(between)
    if len(cells) == width:
        return between.join(map(_closed, cells))
    try:
        with long_fields():
            row = next(csv.reader([line], delimiter=between, strict=True))
    except csv.Error:
        return None
    return line if len(row) == width else None


def _closed(cell: str) -> str:
    if not cell.startswith('"') or _QUOTED.fullmatch(cell):
        return cell
    return '"' + cell.replace('"', '""') + '"'
