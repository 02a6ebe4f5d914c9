"""Tables of text: what stands between the columns, and which quotes are quotes."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from delrec_hf.data.problems import Problem
from delrec_hf.data.quotes import long_fields, paired_quotes
from delrec_hf.errors import InputError

_GENRES = (  # noqa: SIM905 - a line of words reads better than nineteen lines
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
).split()

OWN_LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "u.data": ("\t", ("user_id", "item_id", "rating", "timestamp")),
    "u.item": ("|", ("item_id", "title", "release_date", "video_date", "url", *_GENRES)),
    "ratings.dat": ("::", ("user_id", "item_id", "rating", "timestamp")),
    "movies.dat": ("::", ("item_id", "title", "genres")),
    "behaviors.tsv": ("\t", ("impression_id", "user_id", "time", "history", "impressions")),
    "news.tsv": (
        "\t",
        (
            *("news_id", "category", "subcategory", "title", "abstract", "url"),
            *("title_entities", "abstract_entities"),
        ),
    ),
}
"""Files of MovieLens and MIND that have no header: what stands between their columns, and these."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}

_VALUE = re.compile(r"[-+]?[\d.,:/ -]*\d[\d.,:/ TZ+-]*( ?[AP]M)?", re.IGNORECASE)


@dataclass(frozen=True)
class Separated:
    """What a text holds.

    Attributes:
        data: Columns of texts.
        has_header: Whether the first line named them.
        notes: What was found out or mended.
        faults: Lines that are not in `data`.
    """

    data: pa.Table
    has_header: bool
    notes: list[str]
    faults: tuple[Problem, ...]


def read_separated(
    raw: bytes, path: Path, form: str, separator: str | None, names: list[str] | None
) -> Separated:
    """Read a table of text.

    The separator is the user's, else that of the format, unless the header has but one column
    then and several by another. Quotes are those of csv, where they pair.

    Args:
        raw: The text, UTF-8.
        path: Where it comes from.
        form: A name of `OWN_LAYOUTS`, `recbole`, or the separator of the format.
        separator: What stands between columns; None: as the text shows.
        names: Names of the columns, if the text has no header.

    Raises:
        InputError: If quotes do not pair and lines taken for themselves are no table either.
    """
    raw = _unix_lines(raw).lstrip(b"\n")
    if form in OWN_LAYOUTS and names is None and not _names_columns(raw):
        return _own_layout(raw, path, form)
    notes: list[str] = []
    given = re.match(rb"sep=([^\"\x00\n])\n", raw)  # the first line of some spreadsheets' exports
    if given:
        raw, separator = raw[given.end() :].lstrip(b"\n"), separator or given[1].decode()
    first = _first_line(raw)
    usual = form if form in _SEPARATORS else "\t"
    between = separator or _separator(first, usual)
    if between != usual:
        notes.append(f"{_SEPARATORS.get(between, repr(between))} between columns")
    is_quoted = form != "recbole"
    skip = names is None
    if names is None:
        names = _header(first, between, is_quoted)
    if is_quoted and b'"' in raw:
        raw, more = paired_quotes(raw, between, len(names), path)
        notes += more
    data, faults = _texts(raw, path, names, between, is_quoted and b'"' in raw, skip=int(skip))
    return Separated(data, skip, notes, faults)


def looks_like_values(names: list[str]) -> bool:
    """Say whether a header seems to be a row of values: numbers, dates, addresses, twins.

    >>> looks_like_values(["196", "242", "3", "881250949"]), looks_like_values(["user", "item"])
    (True, False)
    """
    shown = [name.strip() for name in names]
    return len(set(shown)) < len(shown) or any(
        _VALUE.fullmatch(name) or name.startswith("http") for name in shown
    )


def _own_layout(raw: bytes, path: Path, form: str) -> Separated:
    between, names = OWN_LAYOUTS[form]
    if len(between) > 1:
        raw, between = raw.replace(between.encode(), b"\x1f"), "\x1f"
    data, faults = _texts(raw, path, list(names), between, False, skip=0)
    return Separated(_join_genres(data) if form == "u.item" else data, False, [], faults)


def _names_columns(raw: bytes) -> bool:
    """Say whether a file that is called like one without a header has one."""
    cells = re.split(r"\t|::|[|,;]", _first_line(raw).lower().replace("_", ""))
    names = {"userid", "itemid", "movieid", "newsid", "id", "title", "time", "timestamp", "rating"}
    return len(names.intersection(cells)) > 1  # one alone may be a title


def _first_line(raw: bytes) -> str:
    return raw.partition(b"\n")[0].decode()


def _unix_lines(raw: bytes) -> bytes:
    """Return a text whose lines end as Unix has it, also those of old Macs, and stray ones."""
    return raw if b"\r" not in raw else raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _separator(first: str, usual: str) -> str:
    """Return what stands between the columns of a header."""
    counts = {one: len(_header(first, one, True)) for one in (usual, *_SEPARATORS)}
    if counts[usual] > 1:
        return usual
    best = max((one for one in counts if one != " "), key=lambda one: counts[one])
    return best if counts[best] > 1 else " " if counts[" "] > 1 else usual


def _header(first: str, between: str, is_quoted: bool) -> list[str]:
    if not is_quoted:  # RecBole's names carry a type: `user_id:token`
        return [name.strip().partition(":")[0] for name in first.split(between)]
    with long_fields():
        reader = csv.reader([first], delimiter=between, skipinitialspace=between != " ")
        return [name.strip() for name in next(reader, [])]


def _texts(
    raw: bytes, path: Path, names: list[str], between: str, quoted: bool, skip: int
) -> tuple[pa.Table, tuple[Problem, ...]]:
    """Parse columns of texts; lines of another number of values are left out and reported."""
    broken: list[tuple[int, int]] = []

    def note(row: pacsv.InvalidRow) -> str:
        broken.append((row.number or 0, row.actual_columns))
        return "skip"

    width = len(names)
    places = [str(place) for place in range(width)]  # names need not differ yet
    try:
        data = pacsv.read_csv(
            pa.BufferReader(raw),
            read_options=pacsv.ReadOptions(
                column_names=places, skip_rows=skip, use_threads=False, block_size=1 << 24
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=between,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                invalid_row_handler=note,
            ),
            convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(places, pa.string())),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error) or "Could not skip initial" in str(error):
            data = pa.table({place: pa.array([], pa.string()) for place in places})
        else:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} cannot be read as a table of text: {reason}") from error
    faults: tuple[Problem, ...] = ()
    if broken:
        row, got = broken[0]
        faults = (
            Problem(
                f"lines with another number of values than columns: {len(broken)}, first {path} "
                f"line {row} has {got} values where {width} columns were expected (quote values "
                "that hold the separator, or set data.separator)",
                len(broken),
                can_drop=data.num_rows > 0,
            ),
        )
    return data.rename_columns(names), faults


def _join_genres(items: pa.Table) -> pa.Table:
    """Turn u.item's nineteen columns of 0 and 1 into one column such as `Action|Drama`."""
    flags = zip(*(items[name].to_pylist() for name in _GENRES), strict=True)
    genres = [
        "|".join(name for name, flag in zip(_GENRES, row, strict=True) if flag == "1")
        for row in flags
    ]
    kept = items.select(["item_id", "title", "release_date"])
    return kept.append_column("genres", pa.array(genres, pa.string()))
