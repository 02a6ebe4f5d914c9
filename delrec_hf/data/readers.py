"""Files of the formats that interactions and items come in, read as they stand."""

import csv
import gzip
import io
import json
import lzma
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from delrec_hf.errors import InputError

_GENRES = (  # noqa: SIM905 - a line of words reads better than nineteen lines
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
).split()

_MOVIELENS: dict[str, tuple[str, tuple[str, ...]]] = {
    "u.data": ("\t", ("user_id", "item_id", "rating", "timestamp")),
    "u.item": ("|", ("item_id", "title", "release_date", "video_date", "url", *_GENRES)),
    "ratings.dat": ("::", ("user_id", "item_id", "rating", "timestamp")),
    "movies.dat": ("::", ("item_id", "title", "genres")),
}
"""MovieLens' own files that have no header: what stands between their columns, and these."""

_ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".inter": "recbole",
    ".item": "recbole",
}
_COMPRESSED = {".gz": gzip.decompress, ".xz": lzma.decompress}

FORMATS = "csv, tsv, parquet, jsonl, .inter/.item (RecBole), u.data/u.item, ratings.dat/movies.dat"


@dataclass(frozen=True)
class Table:
    """A table and where it comes from, for messages.

    Attributes:
        label: File or dataset.
        data: Columns under their own names; all texts where the file holds text.
        has_header: Whether the file's first row names the columns.
    """

    label: str
    data: pa.Table
    has_header: bool = False

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column; texts of any arrow kind, dictionaries included, as plain strings."""
        values = self.data[name]
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
            values = values.cast(pa.string())
        return values

    def at(self, row: int) -> str:
        """Name a row (counted from 0 here, from 1 in the message)."""
        return f"{self.label} row {row + 1}{' after the header' if self.has_header else ''}"


def file_format(path: Path) -> str | None:
    """Return how a file is read, by its name: a format, a MovieLens name, or None if unknown."""
    name = plain_name(path)
    return name if name in _MOVIELENS else _ENDINGS.get(Path(name).suffix)


def plain_name(path: Path) -> str:
    """Return a file's name in lower case, without the ending of a compression."""
    return path.name.lower().removesuffix(".gz").removesuffix(".xz")


def read_table(path: Path) -> Table:
    """Read a file: csv, tsv, parquet, json lines, RecBole or MovieLens, plain or .gz or .xz.

    Values of text formats stay texts, so that `007` or `NA` is what it was.

    Raises:
        InputError: If the file is missing, empty, damaged, not UTF-8 (MovieLens' own files may be
            Latin-1) or of an unknown format.
    """
    form = file_format(path)
    if form is None:
        raise InputError(f"{path} is of an unknown format; expected {FORMATS}, plain, .gz or .xz")
    raw = _bytes(path)
    if not raw.strip():
        raise InputError(f"{path} is empty; expected rows of {form}")
    try:
        if form == "parquet":
            table = Table(str(path), pq.read_table(pa.BufferReader(raw)))
        elif form == "json":
            table = Table(str(path), _json(_utf8(raw, path), path))
        else:
            table = _separated(raw, path, form)
    except pa.ArrowInvalid as error:
        raise InputError(_reason(path, form, error)) from error
    if not table.data.num_rows:
        raise InputError(f"{path} holds no rows")
    names = table.data.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path} has several columns named `{twice[0]}`; rename all but one")
    return table


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the path of a file")
    raw = path.read_bytes()
    decompress = _COMPRESSED.get(path.suffix.lower())
    if decompress is None:
        return raw
    try:
        return decompress(raw)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InputError(
            f"{path} cannot be decompressed ({error}); the file is damaged or not {path.suffix}"
        ) from error


def _utf8(raw: bytes, path: Path) -> bytes:
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} is not UTF-8: byte {error.start} (line {line}) is 0x{raw[error.start]:02x}; "
            "save it as UTF-8, for example with `iconv -f latin1 -t utf8`"
        ) from error
    return raw


def _separated(raw: bytes, path: Path, form: str) -> Table:
    if form in _MOVIELENS:
        between, names = _MOVIELENS[form]
        raw = _utf8_or_latin1(raw)
        if len(between) > 1:
            raw, between = raw.replace(between.encode(), b"\x1f"), "\x1f"
        data = _texts(raw, list(names), between, quoted=False, skip=0)
        return Table(str(path), _join_genres(data) if form == "u.item" else data)
    raw = _utf8(raw, path).lstrip(b"\r\n")
    between = "," if form == "csv" else "\t"
    quoted = form != "recbole"
    first = raw.splitlines()[0].decode()
    header = next(csv.reader([first], delimiter=between)) if quoted else first.split(between)
    columns = [name.strip() if quoted else name.strip().partition(":")[0] for name in header]
    return Table(str(path), _texts(raw, columns, between, quoted, skip=1), has_header=True)


def _texts(raw: bytes, names: list[str], between: str, quoted: bool, skip: int) -> pa.Table:
    return pacsv.read_csv(
        pa.BufferReader(raw),
        read_options=pacsv.ReadOptions(
            column_names=names, skip_rows=skip, use_threads=False, block_size=1 << 24
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=between, quote_char='"' if quoted else False, newlines_in_values=quoted
        ),
        convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _utf8_or_latin1(raw: bytes) -> bytes:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1").encode()
    return raw


def _join_genres(items: pa.Table) -> pa.Table:
    """Turn u.item's nineteen columns of 0 and 1 into one column such as `Action|Drama`."""
    flags = zip(*(items[name].to_pylist() for name in _GENRES), strict=True)
    genres = [
        "|".join(name for name, flag in zip(_GENRES, row, strict=True) if flag == "1")
        for row in flags
    ]
    kept = items.select(["item_id", "title", "release_date"])
    return kept.append_column("genres", pa.array(genres, pa.string()))


def _json(raw: bytes, path: Path) -> pa.Table:
    is_list = raw.lstrip().startswith(b"[")
    try:
        frame = pd.read_json(
            io.BytesIO(raw),
            lines=not is_list,
            orient="records",
            dtype=False,
            precise_float=True,
        )
        return pa.table({str(name): _column(frame[name]) for name in frame.columns})
    except (ValueError, UnicodeEncodeError) as error:
        raise InputError(_bad_json(raw, path, is_list, error)) from error


def _column(values: "pd.Series[Any]") -> pa.Array:
    """Return an arrow column; one that mixes kinds of values becomes texts."""
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        texts = [None if value is None else str(value) for value in values]
        return pa.array(texts, pa.string())


def _bad_json(raw: bytes, path: Path, is_list: bool, error: Exception) -> str:
    lines = [] if is_list else raw.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                return f"{path} line {number} is not a JSON object; expected one per line"
        except ValueError as reason:
            return f"{path} line {number} is not valid JSON ({reason}); expected one object a line"
    return f"{path} cannot be read as JSON: {' '.join(str(error).split())}"


def _reason(path: Path, form: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    counts = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text)
    if counts:
        row, expected, got = counts.groups()
        return (
            f"{path} line {row} has {got} values where {expected} columns were expected; quote "
            "values that hold the separator, or mend the line"
        )
    return f"{path} cannot be read as {form}: {text}"
