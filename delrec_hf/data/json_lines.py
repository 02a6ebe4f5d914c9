"""Json lines, lists of objects, and lines that hold Python dicts."""

import ast
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from delrec_hf.errors import InputError
from delrec_hf.logging import progress

_DECODER = json.JSONDecoder(strict=False)  # control characters inside texts do no harm
_UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def read_json_lines(raw: bytes, path: Path) -> tuple[pa.Table, list[str]]:
    """Read one object a line, or one list of objects; Python's way of writing dicts as well.

    Numbers keep their precision. A column that mixes kinds of values becomes texts, and so does
    one with whole numbers of more than 64 bits.

    Args:
        raw: The text, UTF-8.
        path: Where it comes from, for messages.

    Returns:
        The table, and notes: if the lines were Python's, if a text held half a character.

    Raises:
        InputError: If a line is neither, naming it.
    """
    notes: list[str] = []
    if raw.lstrip().startswith(b"["):
        rows: Iterable[dict[Any, Any]] = _listed(raw, path)
    elif _is_python(raw):
        rows = _lines(raw, path, ast.literal_eval, "Python dict")
        notes.append("lines are Python dicts, not JSON")
    else:
        rows = _lines(raw, path, _DECODER.decode, "JSON object")
    columns = _by_column(progress(rows, desc=f"Reading {path.name}"))
    if b"\\ud" in raw or b"\\uD" in raw:
        halves = sum(_mend(values) for values in columns.values())
        notes += [f"halves of characters, written as \\udXXX: in {halves} texts"] if halves else []
    return pa.table({_whole(str(name)): _column(columns[name]) for name in columns}), notes


def _lines(
    raw: bytes, path: Path, parse: Callable[[str], Any], what: str
) -> Iterator[dict[Any, Any]]:
    raw = raw if b"\n" in raw else raw.replace(b"\r", b"\n")
    for number, line in enumerate(io.BytesIO(raw), start=1):
        if not line.strip():
            continue
        try:
            row = parse(line.decode().strip())
        except _UNREADABLE as error:
            reason = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
            raise InputError(
                f"{path} line {number} is not a valid {what}{reason}; expected one a line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{path} line {number} is not a {what}; expected one a line")
        yield row


def _listed(raw: bytes, path: Path) -> Iterator[dict[Any, Any]]:
    try:
        rows = _DECODER.decode(raw.decode())
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path} entry {number} is not a JSON object; expected a list of them")
        yield row


def _is_python(raw: bytes) -> bool:
    """Say whether the first line is a Python dict and no JSON: single quotes, True, None, u''."""
    first = raw.lstrip().partition(b"\n")[0].partition(b"\r")[0].decode()
    try:
        _DECODER.decode(first)
    except _UNREADABLE:
        try:
            return first.startswith("{") and isinstance(ast.literal_eval(first.strip()), dict)
        except _UNREADABLE:
            return False
    return False


def _by_column(rows: Iterable[dict[Any, Any]]) -> dict[Any, list[Any]]:
    """Return the values of every name, None where a row has none."""
    columns: dict[Any, list[Any]] = {}
    for count, row in enumerate(rows):
        for name, value in row.items():
            if name not in columns:
                columns[name] = [None] * count
            columns[name].append(value)
        if len(row) < len(columns):
            for values in columns.values():
                if len(values) == count:
                    values.append(None)
    return columns


def _column(values: list[Any]) -> pa.Array:
    """Return an arrow column; one that mixes kinds of values becomes texts."""
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        texts = [None if _is_nothing(value) else _whole(str(value)) for value in values]
        return pa.array(texts, pa.string())


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _mend(values: list[Any]) -> int:
    """Write halves of surrogate pairs, which are no characters, as JSON does; count these texts."""
    count = 0
    for row, value in enumerate(values):
        if isinstance(value, str) and not value.isascii() and (whole := _whole(value)) != value:
            values[row] = whole
            count += 1
    return count


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
