"""Files of the formats that interactions and items come in, read as they stand."""

import bz2
import codecs
import gzip
import lzma
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from delrec_hf.data.json_lines import read_json_lines
from delrec_hf.data.problems import Problem, shown
from delrec_hf.data.separated import OWN_LAYOUTS, read_separated
from delrec_hf.errors import InputError

_ENDINGS = {
    ".csv": ",",
    ".tsv": "\t",
    ".tab": "\t",
    ".txt": "\t",
    ".dat": "\t",
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".inter": "recbole",
    ".item": "recbole",
}
"""Formats by ending; a character stands between the columns, unless the file shows another."""

_COMPRESSED = {".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress}

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks; UTF-32's begins as UTF-16's does, so it stands before it."""

FORMATS = (
    "csv, tsv, parquet, jsonl, .inter/.item (RecBole), u.data/u.item, ratings.dat/movies.dat, "
    "behaviors.tsv/news.tsv"
)


@dataclass(frozen=True)
class Table:
    """A table and where it comes from, for messages.

    Attributes:
        label: File or dataset.
        data: Columns under their own names; all texts where the file holds text.
        has_header: Whether the file's first row names the columns.
        notes: How it was read, where that was found out or mended.
        faults: Rows that are left out already because they cannot be read.
        numbers: `(rows,)` which row of the source each one was; None: as they stand.
    """

    label: str
    data: pa.Table
    has_header: bool = False
    notes: tuple[str, ...] = ()
    faults: tuple[Problem, ...] = ()
    numbers: npt.NDArray[np.int64] | None = field(default=None, repr=False)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column; texts of any arrow kind, dictionaries and UUIDs included, as strings."""
        values = self.data[name]
        if isinstance(values.type, pa.UuidType):
            values = written_out(values)
        elif isinstance(values.type, pa.BaseExtensionType):
            values = values.cast(values.type.storage_type)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pa.types.is_large_string(values.type):
            values = values.cast(pa.string())
        return values

    def at(self, row: int) -> str:
        """Name a row (counted from 0 here, from 1 in the message)."""
        return self.at_number(row if self.numbers is None else int(self.numbers[row]))

    def at_number(self, number: int) -> str:
        """Name a row by its number in the source, counted from 0 here, from 1 in the message."""
        return f"{self.label} row {number + 1}{' after the header' if self.has_header else ''}"

    def where(self, kept: npt.NDArray[np.bool_]) -> "Table":
        """Return the table of the rows that are marked."""
        if kept.all():
            return self
        numbers = np.arange(len(kept)) if self.numbers is None else self.numbers
        return replace(self, data=self.data.filter(pa.array(kept)), numbers=numbers[kept])


@dataclass(frozen=True)
class Layout:
    """What the user says about a file of text; None: what the file shows.

    Attributes:
        separator: What stands between columns.
        encoding: Encoding of a file that is not UTF-8 and has no byte order mark.
        column_names: Names of the columns of a file without a header.
    """

    separator: str | None = None
    encoding: str | None = None
    column_names: list[str] | None = None


def file_format(path: Path) -> str | None:
    """Return how a file is read, by its name: a format, a known name, or None if unknown."""
    name = plain_name(path)
    return name if name in OWN_LAYOUTS else _ENDINGS.get(Path(name).suffix)


def plain_name(path: Path) -> str:
    """Return a file's name in lower case, without the ending of a compression."""
    name = path.name.lower()
    return name[: -len(path.suffix)] if path.suffix.lower() in _COMPRESSED else name


def read_table(path: Path, layout: Layout | None = None) -> Table:
    """Read a file of any format in `FORMATS`, plain or .gz, .xz or .bz2.

    Values of text formats stay texts, so that `007` or `NA` is what it was.

    Raises:
        InputError: If the file is missing, empty, damaged, in an unknown encoding (MovieLens' own
            files may be Latin-1) or of an unknown format.
    """
    layout = layout or Layout()
    form = file_format(path)
    if form is None:
        raise InputError(f"{path} is of an unknown format; expected {FORMATS}, plain, .gz or .xz")
    raw = _bytes(path)
    if not raw.strip():
        raise InputError(f"{path} is empty; expected rows")
    if form == "parquet":
        table = Table(str(path), _parquet(raw, path))
    else:
        text, notes = _utf8(raw, path, "latin-1" if form in OWN_LAYOUTS else layout.encoding)
        if not text.strip():
            raise InputError(f"{path} is empty; expected rows")
        if form == "json":
            data, more = read_json_lines(text, path)
            table = Table(str(path), data, notes=(*notes, *more))
        else:
            read = read_separated(text, path, form, layout.separator, layout.column_names)
            table = Table(str(path), read.data, read.has_header, (*notes, *read.notes), read.faults)
    if not table.data.num_rows and not table.faults:
        raise InputError(f"{path} holds no rows")
    names = table.data.column_names
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(
            f"{path} has several columns named `{shown(twice[0])}`; rename all but one"
        )
    return table


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the path of a file")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; mend its permissions"
        ) from error
    decompress = _COMPRESSED.get(path.suffix.lower())
    if decompress is None:
        return raw
    try:
        return decompress(raw)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be decompressed ({error}); the file is damaged or not {path.suffix}"
        ) from error


def _parquet(raw: bytes, path: Path) -> pa.Table:
    try:
        data = pq.read_table(pa.BufferReader(raw))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as parquet: {reason}") from error
    for place, field_ in enumerate(data.schema):
        data = data.set_column(place, field_.name, _without_views(data.column(place)))
    return data


def _without_views(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of a kind whose rows arrow can choose among."""
    if pa.types.is_string_view(values.type):
        return values.cast(pa.string())
    if pa.types.is_binary_view(values.type):
        return values.cast(pa.binary())
    try:
        values.slice(0, 0).take(pa.array([], pa.int64()))
    except pa.ArrowNotImplementedError:  # lists of views and the like
        return written_out(values)
    return values


def written_out(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of any kind as texts, as Python writes its values.

    Raises:
        InputError: If Python has not such values: dates after the year 9999.
    """
    try:
        texts = [None if one is None else str(one) for one in values.to_pylist()]
    except (OverflowError, ValueError) as error:
        raise InputError(
            f"a column of {values.type} holds what cannot be written out ({error}); leave it out"
        ) from error
    return pa.chunked_array([pa.array(texts, pa.string())])


def _utf8(raw: bytes, path: Path, encoding: str | None) -> tuple[bytes, list[str]]:
    """Return a text as UTF-8 without a mark, and what it was if it was something else."""
    mark = next((mark for mark in _MARKS if raw.startswith(mark)), b"")
    if mark:
        encoding, raw = _MARKS[mark], raw[len(mark) :]
    elif _is_utf8(raw) and b"\x00" not in raw[:1000]:
        return raw, []
    elif encoding is None:
        raise InputError(_not_utf8(raw, path))
    try:
        text = raw.decode(encoding)
    except UnicodeError as error:
        raise InputError(
            f"{path} cannot be decoded as {encoding}: {error}; set data.encoding to the right one"
        ) from error
    except (LookupError, ValueError) as error:
        raise InputError(
            f"recipe key `data.encoding` is `{encoding}`, which is no encoding; expected one such "
            "as latin-1, cp1252, utf-16 or shift-jis"
        ) from error
    return text.encode("utf-8", "replace"), [] if encoding == "utf-8" else [encoding]


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(raw: bytes, path: Path) -> str:
    if b"\x00" in raw[:1000]:
        return (
            f"{path} holds zero bytes, as UTF-16 without a byte order mark does; set data.encoding "
            "to utf-16-le or utf-16-be, or save it as UTF-8"
        )
    start = _first_bad_byte(raw)
    line = raw.count(b"\n", 0, start) + 1
    return (
        f"{path} is not UTF-8: byte {start} (line {line}) is 0x{raw[start]:02x}; set data.encoding "
        "(often cp1252 or latin-1), or save it as UTF-8"
    )


def _first_bad_byte(raw: bytes) -> int:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    raise AssertionError("only what does not decode is looked at")
