"""Json as publishers write it: lines, lists, Python's dicts; numbers as they are."""

import pytest

from delrec_hf.data.readers import read_table
from delrec_hf.errors import InputError


@pytest.fixture
def read(tmp_path):
    def make(text):
        path = tmp_path / "log.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path)

    return make


def columns(table):
    return table.data.to_pydict()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
def test_lines_that_end_in_any_way_are_rows(read, end):
    table = read(end.join(['{"a": 1, "b": "x"}', ' {"b": "y", "a": 2}', ""]))
    assert columns(table) == {"a": [1, 2], "b": ["x", "y"]}
    assert table.notes == ()


def test_whole_numbers_beside_missing_ones_are_exact(read):
    text = '{"a": 1609459200123456789}\n{"b": 1}\n{"a": null}\n{"a": 1609459200123456788}\n'
    assert columns(read(text))["a"] == [1609459200123456789, None, None, 1609459200123456788]


def test_numbers_of_more_than_64_bits_become_texts(read):
    assert columns(read('{"a": 100000000000000000001}\n{"a": 5}\n'))["a"] == [
        "100000000000000000001",
        "5",
    ]


def test_numbers_that_are_none_are_missing(read):
    assert columns(read('{"a": NaN}\n{"a": 1.5}\n'))["a"] == [None, 1.5]


def test_values_of_several_kinds_become_texts(read):
    assert columns(read('{"a": "x"}\n{"a": 7}\n{"a": null}\n'))["a"] == ["x", "7", None]


def test_dates_and_numbers_stay_what_they_are(read):
    text = '{"date": 5, "timestamp": 6, "created_at": "2001-01-01"}\n'
    assert columns(read(text)) == {"date": [5], "timestamp": [6], "created_at": ["2001-01-01"]}


def test_halves_of_characters_stay_apart_and_are_noted(read):
    table = read('{"a": "x\\ud83d"}\n{"a": "x\\ud83e"}\n{"a": "\\ud83d\\ude00"}\n')
    assert columns(table)["a"] == ["x\\ud83d", "x\\ud83e", "😀"]
    assert table.notes == ("halves of characters, written as \\udXXX: in 2 texts",)


def test_control_characters_inside_texts_are_read(read):
    assert columns(read('{"a": "x\ty"}\n'))["a"] == ["x\ty"]


def test_lines_of_python_dicts_are_read_and_noted(read):
    table = read("{u'a': u'it\\'s', 'b': True, 'c': None}\n{'a': 'x', 'b': False, 'c': 1}\n")
    assert columns(table) == {"a": ["it's", "x"], "b": [True, False], "c": [None, 1]}
    assert table.notes == ("lines are Python dicts, not JSON",)


def test_a_list_over_many_lines_is_rows(read):
    assert columns(read('\n [{"a": 1},\n  {"a": 2}\n]'))["a"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n7\n', "line 2 is not a JSON object; expected one a line"),
        ('{"a": 1}\n[1]\n', "line 2 is not a JSON object; expected one a line"),
        ('{"a": 1}\n\n{"a": \n', r"line 3 is not a valid JSON object \(Expecting value"),
        ("{'a': 1}\n{'a': x}\n", "line 2 is not a valid Python dict; expected one a line"),
        ("{'a': 1}\n{[]: 1}\n", "line 2 is not a valid Python dict; expected one a line"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a": ' + "[" * 100_000, "line 1 is not a valid JSON object"),
        ('[{"a": 1}, 7]', "entry 2 is not a JSON object; expected a list of them"),
        ('[{"a": 1}', "cannot be read as JSON"),
        ('{"a": ' + "9" * 5000 + "}", "line 1 is not a valid JSON object"),
        ("{}\n{}\n", "holds no rows"),
        ("[]", "holds no rows"),
    ],
)
def test_what_is_no_object_is_named(read, text, message):
    with pytest.raises(InputError, match=message):
        read(text)
