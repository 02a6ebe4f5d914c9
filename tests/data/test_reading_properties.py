"""Tables of text, as Python's own csv module writes and reads them, and broken ones."""

import csv
import io
import re
import tempfile
from pathlib import Path

from hypothesis import assume, example, given
from hypothesis import strategies as st

from delrec_hf.data.readers import read_table
from delrec_hf.errors import InputError
from tests.data.budget import files

CELLS = st.text("ab1 ,;|\t\"\n'é\\", max_size=6)


def read(text: bytes, name: str = "table.csv"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(text)
        return read_table(path)


@st.composite
def tables(draw) -> tuple[list[list[str]], str]:
    """Draw rows of values, the first of them names, and what stands between columns."""
    width = draw(st.integers(2, 4))
    names = ["user_id", "item_id", "time", "title"][:width]
    rows = draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=6))
    return [names, *rows], draw(st.sampled_from(",;|\t"))


@files(1)
@given(
    tables(), st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
)
def test_what_pythons_csv_module_writes_is_read_as_it_was(table, line_end, quoting) -> None:
    rows, between = table
    for value in (one for row in rows for one in row):
        later = value if between == "\t" and "\n" in value else value.partition("\n")[2]
        assume(between not in later)  # such a value may seem to hold rows, see below
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=between, lineterminator=line_end, quoting=quoting).writerows(rows)
    data = read(text.getvalue().encode()).data
    assert [data.column_names, *map(list, zip(*data.to_pydict().values(), strict=True))] == rows


@files(2)
@given(st.text('ab,\t"\n\r ', max_size=40), st.sampled_from(["csv", "tsv"]))
@example('\n\t"\n\t\r\r\r,,,\t\t\r\tb,\t\n "\t,\ra,,', "tsv")
@example('1,"x,a\n2,y,b\n3,"z,c\n', "csv")
@example('1, "a",1\n2,"b,2\n3,c,3\n4,d",4\n', "csv")
@example('1, "a",1\n2,"b,2\n3,c,3\n4,d,4\n', "csv")
def test_no_line_of_a_broken_text_is_lost_without_being_counted(text, ending) -> None:
    between = "," if ending == "csv" else "\t"
    lines = re.split("\r\n|\r|\n", text)
    raw = between.join(["user_id", "item_id", "title"]) + "\n" + text
    try:
        table = read(raw.encode(), f"table.{ending}")
    except InputError:
        return
    values = [one for column in table.data.columns for one in column.to_pylist()]
    later = [line for value in values for line in re.split("\r\n|\r|\n", value)[1:]]
    assert not any(line.count(between) == 2 for line in later), "a value holds a row"
    broken = sum(fault.rows for fault in table.faults)
    if not broken or '"' not in text:
        rows = table.data.num_rows + broken + len(later)
        assert sum(line != "" for line in lines) <= rows <= len(lines)
