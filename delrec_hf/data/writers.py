"""Tables written to files as they come, in the formats that `readers` reads again."""

import gzip
import json
import lzma
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from delrec_hf.data.readers import plain_name
from delrec_hf.errors import InputError

_ROWS_AT_ONCE = 1 << 16  # of one group of rows: what memory holds

ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl")


def check_ending(path: Path) -> None:
    """Refuse a file whose ending is of no format that tables are written in.

    Raises:
        InputError: If it is.
    """
    if Path(plain_name(path)).suffix not in ENDINGS or path.suffix.lower() == ".bz2":
        raise InputError(
            f"{path} is of an unknown format; expected {', '.join(ENDINGS)}, plain, .gz or .xz"
        )


def write_tables(path: Path, tables: Iterable[pa.Table], aside: Path) -> None:
    """Write tables of one schema as one, then rename it into place.

    The bytes depend on the rows alone, not on how they are parted into tables.

    Args:
        path: Its ending decides the format.
        tables: One at least.
        aside: Where to write it before; on the same disk.
    """
    form = Path(plain_name(path)).suffix
    with _opened(aside, path.suffix.lower()) as stream:
        _FORMATS[form](stream, _regrouped(tables))
    os.replace(aside, path)


@contextmanager
def _opened(path: Path, ending: str) -> Iterator[IO[bytes]]:
    if ending == ".xz":
        with lzma.open(path, "wb") as packed:
            yield packed
        return
    with path.open("wb") as stream:
        if ending != ".gz":
            yield stream
            return
        # Without a name and a time, the same rows are the same bytes.
        with gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as zipped:
            yield zipped  # type: ignore[misc]


def _regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in tables of so many rows each, a few more in the last."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= _ROWS_AT_ONCE:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, _ROWS_AT_ONCE)
            waiting, rows = [whole.slice(_ROWS_AT_ONCE)], rows - _ROWS_AT_ONCE
    yield pa.concat_tables(waiting)


def _parquet(stream: IO[bytes], tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(stream, first.schema) as writer:
        writer.write_table(first.combine_chunks())
        for table in tables:
            writer.write_table(table.combine_chunks())


def _csv(stream: IO[bytes], tables: Iterator[pa.Table], between: str = ",") -> None:
    first = next(tables)
    options = pacsv.WriteOptions(delimiter=between)
    with pacsv.CSVWriter(stream, first.schema, write_options=options) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _tsv(stream: IO[bytes], tables: Iterator[pa.Table]) -> None:
    _csv(stream, tables, "\t")


def _json_lines(stream: IO[bytes], tables: Iterator[pa.Table]) -> None:
    for table in tables:
        for batch in table.to_batches(max_chunksize=1024):
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist()]
            stream.write("".join(lines).encode())


_FORMATS: dict[str, Callable[[IO[bytes], Iterator[pa.Table]], Any]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
}
