"""One dataset written in every format, as spreadsheets, databases and publishers write it."""

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.layouts import GIVEN, TIMES, Style, World

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda raw: gzip.compress(raw, mtime=0),
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".bz2": bz2.decompress,
}
EXTRAS = ("", "x", 'so "good"', "a,b;c|d", "42", "ünï")


def write(world: World, style: Style, folder: Path) -> dict[str, Any]:
    """Write the files, and return the keys that a user would set to have them read."""
    keys: dict[str, Any] = {"path": str(folder), **world.keys}
    if style.times in GIVEN:
        keys["timestamp_format"] = GIVEN[style.times]
    events, items = _columns(world, style)
    if style.form.startswith("movielens"):
        _write_movielens(world, style, folder)
        return keys
    if style.form == "recbole":
        _write_recbole(world, style, folder, events, items)
        return keys
    endings = {"python": ".json", "jsonl": ".jsonl"}
    for name, columns in (("interactions", events), ("items", items)):
        if columns is None:
            continue
        path = folder / f"{name}{endings.get(style.form, f'.{style.form}')}"
        if style.form == "parquet":
            _write_parquet(columns, style, path)
            continue
        if style.is_separated:
            broken = world.broken_lines if name == "interactions" else world.broken_item_lines
            text = _separated(columns, style, broken)
            if not style.has_header:
                keys.setdefault("column_names", {})[name] = list(columns)
        else:
            text = _json(columns, style)
        raw, encoding = encoded(text, style.encoding)
        keys |= {"encoding": encoding} if encoding else {}
        _save(path, raw, style.compression)
    if style.form == "csv" and (style.seed % 2 or not style.has_header):
        keys["separator"] = style.separator
    return keys


def encoded(text: str, encoding: str) -> tuple[bytes, str | None]:
    """Return bytes, and the encoding where a user has to name it: UTF-8 goes without saying."""
    raw = text.encode(encoding, "replace")
    if encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        return raw, None
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw, encoding
    return (raw, encoding) if b"\x00" in raw else (text.encode(), None)


def _save(path: Path, raw: bytes, compression: str) -> None:
    path.with_name(path.name + compression).write_bytes(COMPRESSIONS[compression](raw))


def _columns(
    world: World, style: Style
) -> tuple[dict[str, list[Any]], dict[str, list[Any]] | None]:
    """Return the columns of both tables as texts, in an order of the seed's choice."""
    names, chosen = style.names, random.Random(style.seed + 1)
    bad_times = ["", "yesterday", "nan", "2001-13-01", "NaT", "now", " ", "today", "None"]
    written = [
        chosen.choice(bad_times) if one.time is None else TIMES[style.times](one.time)
        for one in world.events
    ]
    columns = {
        names["user"]: [one.user for one in world.events],
        names["item"]: [one.item for one in world.events],
        names["time"]: written,
        names["kind"]: [one.kind for one in world.events],
        names["rating"]: [
            chosen.choice(("", "n/a")) if one.rating is None else f"{one.rating:g}"
            for one in world.events
        ],
        names["extra"]: [chosen.choice(EXTRAS) for _ in world.events],
    }
    if style.times == "day and clock":
        days = [one.partition("|")[0] for one in written]
        clocks = [one.partition("|")[2] or "00:00" for one in written]
        columns |= {names["time"]: clocks, "date": days}
    items = None
    if world.items is None:
        columns[names["title"]] = [one.title for one in world.events]
    else:
        items = {
            names["item"]: [item for item, _ in world.items],
            names["title"]: [title for _, title in world.items],
            "genre": [chosen.choice(EXTRAS) for _ in world.items],
        }
    return _mixed(columns, chosen), items and _mixed(items, chosen)


def _mixed(columns: dict[str, list[Any]], chosen: random.Random) -> dict[str, list[Any]]:
    names = list(columns)
    chosen.shuffle(names)
    return {name: columns[name] for name in names}


def _separated(columns: dict[str, list[str]], style: Style, broken: int) -> str:
    separator = style.separator if style.form == "csv" else "\t"

    def cell(value: str) -> str:
        needs = any(one in value for one in (separator, '"', "\n", "\r"))
        quoted = '"' + value.replace('"', '""') + '"'
        return quoted if needs or style.always_quoted else value

    rows = [list(map(cell, row)) for row in zip(*columns.values(), strict=True)]
    lines = [separator.join(row) for row in rows]
    _break(lines, separator, len(columns), broken, style)
    header = [separator.join(map(cell, columns))] if style.has_header else []
    return _text([*header, *lines], style)


def _break(lines: list[str], separator: str, width: int, broken: int, style: Style) -> None:
    """Put in lines of another number of values."""
    chosen = random.Random(style.seed + 2)
    for _ in range(broken):
        count = chosen.choice([1, width - 1, width + 1, width + 3])
        lines.insert(chosen.randrange(len(lines) + 1), separator.join(["9"] * count))


def _text(lines: list[str], style: Style) -> str:
    return style.line_end.join(lines) + (style.line_end if style.ends_with_line else "")


def _json(columns: dict[str, list[str]], style: Style) -> str:
    chosen = random.Random(style.seed + 3)
    as_numbers = style.types[0] == "int64"
    rows = []
    for values in zip(*columns.values(), strict=True):
        row = {}
        for name, value in zip(columns, values, strict=True):
            if value == "" and name != style.names["kind"] and chosen.random() < 0.7:
                if chosen.random() < 0.5:
                    row[name] = None
                continue
            is_time = name == style.names["time"]
            row[name] = (
                _number(value) if as_numbers or (is_time and chosen.random() < 0.5) else value
            )
        rows.append(row)
    rows[0] = dict.fromkeys(columns) | rows[0]
    if style.form == "python":
        return _text([repr(row) for row in rows], style)
    as_ascii = style.seed % 2 == 0
    if style.form == "json":
        return json.dumps(rows, ensure_ascii=as_ascii, indent=style.seed % 3 or None)
    return _text([json.dumps(row, ensure_ascii=as_ascii) for row in rows], style)


def _number(text: str) -> Any:
    """Return the number that a text is, where nothing is lost by it."""
    return int(text) if text.lstrip("-").isdecimal() and str(int(text)) == text else text


def _write_parquet(columns: dict[str, list[str]], style: Style, path: Path) -> None:
    ids, times = style.types
    names, arrays = style.names, {}
    for name, values in columns.items():
        if name in (names["user"], names["item"]):
            arrays[name] = _typed_ids(values, ids)
        elif name == names["time"] and style.times == "seconds":
            arrays[name] = _typed_times(values, times)
        elif name == names["rating"] and style.seed % 2:
            numbers = [float(value) if _is_float(value) else None for value in values]
            arrays[name] = pa.array(numbers, pa.float32())
        else:
            arrays[name] = pa.array(values, pa.string())
    pq.write_table(pa.table(arrays), path, row_group_size=1 + style.seed % 7)


def _typed_ids(values: list[str], kind: str) -> pa.Array:
    texts = pa.array([value or None for value in values], pa.string())
    if kind in ("int64", "int32", "double"):
        numbers = [_number(value) for value in values]
        if all((isinstance(one, int) and abs(one) < 2**31) or one == "" for one in numbers):
            return pa.array([None if one == "" else one for one in numbers]).cast(kind)
        return texts
    if kind == "dictionary":
        return texts.dictionary_encode()
    return texts.cast({"string": "string", "large_string": "large_string"}.get(kind, "binary"))


def _typed_times(values: list[str], kind: str) -> pa.Array:
    times = [_number(value) for value in values]
    numbers = [one if isinstance(one, int) else None for one in times]
    if kind in ("int64", "int32", "double"):
        return pa.array(numbers, pa.int64()).cast(kind)
    if kind == "decimal":
        exact = [None if one is None else Decimal(one) / 4 for one in numbers]
        return pa.array(exact, pa.decimal128(12, 2))
    if kind == "uint64":
        return pa.array(
            [None if one is None else 2**63 + 4096 * one for one in numbers], pa.uint64()
        )
    if kind == "date32":
        return pa.array(numbers, pa.int32()).cast(pa.date32())
    if kind == "zoned":
        return pa.array(numbers, pa.int64()).cast(pa.timestamp("us", "Europe/Berlin"))
    if kind.startswith("timestamp"):
        return pa.array(numbers, pa.int64()).cast(pa.timestamp(kind[10:-1]))
    texts = pa.array(values, pa.string())
    return texts.dictionary_encode() if kind == "dictionary" else texts.cast(kind)


def _is_float(value: str) -> bool:
    return value not in ("", "n/a")


def _write_recbole(
    world: World,
    style: Style,
    folder: Path,
    events: dict[str, list[str]],
    items: dict[str, list[str]] | None,
) -> None:
    counts = (world.broken_lines, world.broken_item_lines)
    for ending, columns, broken in zip((".inter", ".item"), (events, items), counts, strict=True):
        assert columns is not None, "RecBole's interactions hold no titles"
        lines = ["\t".join(row) for row in zip(*columns.values(), strict=True)]
        _break(lines, "\t", len(columns), broken, style)
        header = "\t".join(f"{name}:token" for name in columns)
        raw = _text([header, *lines], style).encode()
        _save(folder / f"data{ending}", raw, style.compression)


def _write_movielens(world: World, style: Style, folder: Path) -> None:
    is_small = style.form == "movielens-100k"
    names = ("u.data", "u.item") if is_small else ("ratings.dat", "movies.dat")
    first, second = ("\t", "|") if is_small else ("::", "::")
    lines = [
        first.join(
            (
                *(one.user, one.item, "" if one.rating is None else f"{one.rating:g}"),
                "" if one.time is None else TIMES[style.times](one.time),
            )
        )
        for one in world.events
    ]
    _break(lines, first, 4, world.broken_lines, style)
    flags = second.join(["01-Jan-1995", "", "http://x", *["0", "1"] * 9, "0"])
    assert world.items is not None, "MovieLens has files of items"
    films = [second.join((*one, flags if is_small else "Drama|War")) for one in world.items]
    _break(films, second, 24 if is_small else 3, world.broken_item_lines, style)
    for name, rows in zip(names, (lines, films), strict=True):
        raw, _ = encoded(_text(rows, style), style.encoding)
        _save(folder / name, raw, style.compression)
