"""Tables of text are read as they are meant: separators, quotes, lines."""

import csv
import io

import pandas as pd
import pytest

from delrec_hf.data.readers import Layout, read_table
from delrec_hf.errors import InputError


@pytest.fixture
def read(tmp_path):
    def make(text, name="table.csv", **layout):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path, Layout(**layout))

    return make


def rows(table):
    return [list(row.values()) for row in table.data.to_pylist()]


def refusal(read, *given, **layout):
    with pytest.raises(InputError) as caught:
        read(*given, **layout)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt"])
@pytest.mark.parametrize("between", [",", ";", "\t", "|"])
def test_what_stands_between_columns_is_found(read, between, ending):
    text = f"user,item,time\na,b,1\n\nc{between}d{between}2\n".replace(",", between)
    table = read(text, f"table.{ending}")
    assert table.data.column_names == ["user", "item", "time"]
    assert rows(table) == [["a", "b", "1"], ["c", "d", "2"]]
    usual = {"csv": ","}.get(ending, "\t")
    assert bool(table.notes) == (between != usual)


def test_spaces_part_columns_where_nothing_else_does(read):
    table = read("user item time\na b 1\n", "table.txt")
    assert rows(table) == [["a", "b", "1"]]
    assert table.notes == ("spaces between columns",)


def test_the_line_by_which_spreadsheets_name_the_separator_is_no_header(read):
    assert rows(read("sep=;\nuser;item\na;b\n")) == [["a", "b"]]
    assert rows(read("sep=;\r\n\r\nuser;item\r\na;b\r\n")) == [["a", "b"]]


def test_a_given_separator_wins(read):
    table = read("user,x;item\na,b;c\n", separator=";")
    assert table.data.column_names == ["user,x", "item"]
    assert rows(table) == [["a,b", "c"]]


def test_columns_of_a_file_without_a_header_are_named_by_the_user(read):
    table = read("a,b\nc,d\n", column_names=["user", "item"])
    assert table.data.column_names == ["user", "item"]
    assert rows(table) == [["a", "b"], ["c", "d"]]
    assert not table.has_header


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_end_as_unix_windows_and_old_macs_end_them(read, end, last):
    lines = ["user,item", "a,b", "c,d"]
    assert rows(read(end.join(lines) + end * last)) == [["a", "b"], ["c", "d"]]


def test_a_stray_carriage_return_ends_a_line_of_the_header_too(read):
    assert rows(read("user,item\ra,b\nc,d\n")) == [["a", "b"], ["c", "d"]]


def test_values_of_several_lines_are_kept(read):
    assert rows(read('user,title\na,"two\nlines"\nb,"""so"", he\nsaid"\n')) == [
        ["a", "two\nlines"],
        ["b", '"so", he\nsaid'],
    ]


def test_a_tsv_is_read_as_pandas_writes_it(read):
    frame = pd.DataFrame({"item": ["1", "2", "3"], "title": ["two\nlines", 'so "good"', "a\ttab"]})
    table = read(frame.to_csv(index=False, sep="\t"), "items.tsv")
    assert rows(table) == frame.to_numpy().tolist()


def test_quotes_of_a_tsv_that_do_not_pair_are_text(read):
    lines = ['1\t"Weird Al" Live\tx', '2\t"Heroes\tx', '3\t7" Single\tx', '4\tAlien"\tx']
    table = read("\n".join(["item\ttitle\tgenre", *lines]), "items.tsv")
    assert rows(table) == [line.split("\t") for line in lines]
    assert table.notes == ("quotes that do not pair are text, on lines: 2",)


def test_quotes_of_a_tsv_swallow_no_row(read):
    lines = ['1\t"Heroes\tx', '2\tLow"\ty', '3\t"Lodger\tz', '4\tBlackstar"\tx']
    assert len(rows(read("\n".join(["item\ttitle\tgenre", *lines]), "items.tsv"))) == 4


def test_a_quote_inside_a_value_of_a_csv_is_text(read):
    assert rows(read('item,title\n1,7" Single\n2,The "Best" Of\n')) == [
        ["1", '7" Single'],
        ["2", 'The "Best" Of'],
    ]


def test_a_csv_value_that_only_begins_with_a_quote_is_text(read):
    table = read('item,title\n1,"Heroes\n2,Alien\n3,"Low" and high\n')
    assert rows(table) == [["1", '"Heroes'], ["2", "Alien"], ["3", '"Low" and high']]
    assert table.notes == ("quotes that do not pair are text, on lines: 2",)


def test_a_quoted_value_that_holds_a_row_is_no_value(read):
    text = 'item,title,genre\n1,"Heroes,x\n2,Low,y\n3,Lodger",z\n'
    assert rows(read(text)) == [["1", '"Heroes', "x"], ["2", "Low", "y"], ["3", 'Lodger"', "z"]]


@pytest.mark.parametrize(
    "text",
    [
        'item,title,genre\n1,"a, ""b""",x\n2,"Heroes, or not,y\n3,Low,z\n',
        'item,title,genre\n1, "a, b",x\n2,"Heroes, or not,y\n3,Low,z\n4,"Lodger",x\n',
    ],
)
def test_a_stray_quote_among_quoted_separators_is_refused_with_its_line(read, text):
    message = refusal(read, text)
    assert "line 3: a quote does not pair" in message or "line 3: a quoted value" in message
    assert message.endswith("write quotes inside a quoted value twice")


def test_spaces_before_quotes_are_no_part_of_the_value(read):
    table = read('item, title\n1, "a, b"\n2,  "say ""no"""\n')
    assert rows(table) == [["1", "a, b"], ["2", 'say "no"']]
    assert table.notes == ("spaces before quoted values are left out",)


def test_quoted_values_that_begin_with_a_space_and_a_quote_stay_whole(read):
    text = io.StringIO(newline="")
    values = [["item", "title"], ["1", ' "a'], ["2", " b"], ["3", "a, b"]]
    csv.writer(text, lineterminator="\n").writerows(values)
    table = read(text.getvalue())
    assert rows(table) == values[1:]
    assert table.notes == ()


def test_a_carriage_return_inside_a_quoted_value_is_a_line_break_of_it(read):
    assert rows(read('item,title\n1,"old\rMac"\n2, "a, b"\n')) == [["1", "old\nMac"], ["2", "a, b"]]


def test_a_quote_in_a_broken_line_of_a_tsv_swallows_no_row(read):
    table = read('item\ttitle\tgenre\n1\t"Heroes\n2\tLow\tx\n3\t"Lodger"\ty\n', "items.tsv")
    assert rows(table) == [["2", "Low", "x"], ["3", "Lodger", "y"]]
    assert sum(fault.rows for fault in table.faults) == 1


def test_lines_of_another_length_are_counted_and_the_first_is_shown(read):
    table = read("user,item,time\na,b,1\nc,d\ne,f,2,x\n\ng,h,3\n")
    assert rows(table) == [["a", "b", "1"], ["g", "h", "3"]]
    (fault,) = table.faults
    assert (fault.rows, fault.can_drop) == (2, True)
    assert "another number of values than columns: 2, first" in fault.message
    assert "line 3 has 2 values where 3 columns were expected" in fault.message


def test_a_table_of_broken_lines_alone_cannot_do_without_them(read):
    table = read("user,item,time\na,b\n")
    assert [fault.can_drop for fault in table.faults] == [False]


@pytest.mark.parametrize("text", ["user,item", "user,item\n", "\n\nuser,item\r\n\r\n", "sep=,\nx"])
def test_a_header_alone_holds_no_rows(read, text):
    assert refusal(read, text).endswith("holds no rows")


def test_values_of_any_length_are_read(read):
    long = "x" * 300_000
    assert rows(read(f'item,title\n1,"{long}"\n')) == [["1", long]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(read, encoding):
    assert rows(read("user,item\nü,😀\n".encode(encoding))) == [["ü", "😀"]]


@pytest.mark.parametrize("encoding", ["cp1252", "shift-jis", "utf-16-le"])
def test_an_encoding_that_nothing_tells_is_the_users_to_name(read, encoding):
    text = "user,item\na,ポ\n" if encoding == "shift-jis" else "user,item\na,“é”\n"
    raw = text.encode(encoding)
    assert "set data.encoding" in refusal(read, raw)
    assert rows(read(raw, encoding=encoding)) == [text.splitlines()[1].split(",")]
    assert "is no encoding; expected" in refusal(read, raw, encoding="klingon")
