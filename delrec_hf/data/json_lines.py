"""Json lines, lists of objects, and lines that hold Python dicts."""

import ast
import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from delrec_hf.errors import InputError
from delrec_hf.logging import progress

_LONG_NUMBER = re.compile(rb"(?<![\w.\"])-?\d{19,}(?![\w.\"])")


def read_json_lines(raw: bytes, path: Path) -> tuple[pa.Table, list[str]]:
    """Read one object a line, or one list of objects; Python's way of writing dicts as well.

    Args:
        raw: The text, UTF-8.
        path: Where it comes from, for messages.

    Returns:
        The table, and a note if the lines were Python's.

    Raises:
        InputError: If a line is neither, naming it.
    """
    is_list = raw.lstrip().startswith(b"[")
    try:
        frame = pd.read_json(
            io.BytesIO(raw),
            lines=not is_list,
            orient="records",
            dtype=False,
            precise_float=True,
        )
        return _table(frame), []
    except (ValueError, TypeError, AttributeError, OverflowError, UnicodeEncodeError) as error:
        if not is_list and _is_python(raw):
            return _table(_python_dicts(raw, path)), ["lines are Python dicts, not JSON"]
        raise InputError(_bad_json(raw, path, is_list, error)) from error


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.table({str(name): _column(frame[name]) for name in frame.columns})


def _column(values: "pd.Series[Any]") -> pa.Array:
    """Return an arrow column; one that mixes kinds of values becomes texts."""
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        texts = [None if _is_nothing(value) else str(value) for value in values]
        return pa.array([text if text is None else _encodable(text) for text in texts], pa.string())


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _is_python(raw: bytes) -> bool:
    """Say whether the first line is a Python dict and no JSON: single quotes, True, None, u''."""
    first = raw.lstrip().partition(b"\n")[0].strip()
    try:
        json.loads(first)
    except ValueError:
        return first.startswith(b"{") and isinstance(_literal(first), dict)
    return False


def _literal(line: bytes) -> Any:
    try:
        return ast.literal_eval(line.decode())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _python_dicts(raw: bytes, path: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(progress(raw.splitlines(), desc=f"Reading {path.name}"), 1):
        if not line.strip():
            continue
        row = _literal(line.strip())
        if not isinstance(row, dict):
            raise InputError(
                f"{path} line {number} is neither a JSON object nor a Python dict, as the first "
                "line is; mend it or remove the line"
            )
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def _bad_json(raw: bytes, path: Path, is_list: bool, error: Exception) -> str:
    for number, line in enumerate([] if is_list else raw.splitlines(), start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError) as reason:
            return f"{path} line {number} is not valid JSON ({reason}); expected one object a line"
        if not isinstance(row, dict):
            return f"{path} line {number} is not a JSON object; expected one per line"
        for name, value in row.items():
            if isinstance(value, int) and not -(2**63) <= value < 2**64:
                return (
                    f"{path} line {number}: column `{name}` is the number {value}, above 2^64; "
                    'write such ids as texts, in quotes ("id": "100000000000000000000")'
                )
    long = _LONG_NUMBER.search(raw)
    if long and "too big" in str(error):
        place, digits = raw.count(b"\n", 0, long.start()) + 1, long[0].decode()
        return f"{path} line {place} holds the number {digits}; write it as a text, in quotes"
    return f"{path} cannot be read as JSON: {' '.join(str(error).split())}"
