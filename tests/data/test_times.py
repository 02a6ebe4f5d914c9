"""Times are read in every form in which they are met, and none is guessed."""

import datetime

import pyarrow as pa
import pytest

from delrec_hf.data.times import clock_seconds, moment, read_times
from delrec_hf.errors import InputError


def read(values, form=None, kind=None):
    return read_times(pa.chunked_array([pa.array(values, kind)]), "log.csv column `time`", form)


def seconds(values, form=None):
    times = read(values, form)
    assert not times.bad.any()
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[times.unit]
    return [number / per for number in times.numbers.tolist()]


MIDNIGHT = 978307200  # 2001-01-01 in UTC


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("2001-01-01", 0),
        ("2001-01-01T00:00:05", 5),
        ("2001-01-01 00:00:05", 5),
        ("2001-01-01T00:00:05Z", 5),
        ("2001-01-01T02:00:05+02:00", 5),
        ("2001-01-01T02:00:05+0200", 5),
        ("2000-12-31T19:00:05-05:00", 5),
        ("2001-01-01 00:00:05.25", 5.25),
        ("2001-01-01 00:00:05 UTC", 5),
        ("2001-01-01 00:00:05 GMT", 5),
        ("2001-01-01 00:00:05 GMT+0000", 5),
        ("2001/01/01 00:00:05", 5),
        ("2001.01.01 00:01", 60),
        ("2001/01/01 02:00:05 +0200", 5),
        ("Mon Jan 01 02:00:05 +0200 2001", 5),
        ("Mon Jan 01 00:00:05 2001", 5),
        ("Mon, 01 Jan 2001 00:00:05", 5),
        ("Mon, 01 Jan 2001 00:00:05 GMT", 5),
        ("01 1, 2001", 0),
        ("01/Jan/2001:02:00:05 +0200", 5),
        ("1 Jan 2001, 00:01", 60),
        ("Jan 1, 2001", 0),
        ("January 1, 2001 12:01 AM", 60),
        ("1 January 2001", 0),
        ("01-Jan-2001", 0),
        ("01-Jan-01 00:01", 60),
        ("  2001-01-01  ", 0),
    ],
)
def test_a_date_is_read_in_the_form_that_it_has(text, after):
    assert seconds([text]) == [MIDNIGHT + after]


@pytest.mark.parametrize(
    ("texts", "days"),
    [
        (["13/02/2001", "02/03/2001"], [43, 60]),
        (["02/13/2001", "02/03/2001"], [43, 33]),
        (["13.02.2001 00:00", "02.03.2001 00:00"], [43, 60]),
        (["2-13-01", "2-3-01"], [43, 33]),
        (["01/01/2001", "02/02/2001"], [0, 32]),  # both readings are the same
    ],
)
def test_the_values_tell_whether_the_day_or_the_month_comes_first(texts, days):
    assert seconds(texts) == [MIDNIGHT + 86400 * day for day in days]


def test_days_and_months_that_nothing_tells_apart_are_refused_with_both_forms():
    with pytest.raises(InputError) as refusal:
        read(["01/02/2001", "03/04/2001", "yesterday"])
    assert str(refusal.value) == (
        "log.csv column `time` holds dates such as `01/02/2001`, and none tells whether the day or "
        "the month comes first; set data.timestamp_format to `%d/%m/%Y` or `%m/%d/%Y`"
    )
    assert seconds(["01/02/2001"], "%d/%m/%Y") == [MIDNIGHT + 86400 * 31]
    assert seconds(["01/02/2001"], "%m/%d/%Y") == [MIDNIGHT + 86400]


def test_a_given_form_holds_for_texts_and_whole_numbers():
    assert seconds(["2001, day 001"], "%Y, day %j") == [MIDNIGHT]
    assert seconds([20010101, 20010102], "%Y%m%d") == [MIDNIGHT, MIDNIGHT + 86400]
    times = read(["2001-01-01", "01/01/2001"], "%d/%m/%Y")
    assert times.bad.tolist() == [True, False]
    with pytest.raises(InputError, match=r"data.timestamp_format` is `%Q`, which cannot be used"):
        read(["2001-01-01"], "%Q")


@pytest.mark.parametrize("words", ["now", "today", "", "yesterday", "NaT", "nan", "2001-02-30"])
def test_what_is_no_date_among_dates_is_none(words):
    times = read(["2001-01-01", words, "2001-01-02"])
    assert times.bad.tolist() == [False, True, False]


@pytest.mark.parametrize("word", ["", "yesterday", "nan", "inf", "-inf", None])
def test_a_value_that_is_no_number_costs_the_others_no_precision(word):
    times = read(["1609459200123456789", word, "1609459200123456788"])
    assert times.numbers.tolist() == [1609459200123456789, 0, 1609459200123456788]
    assert times.bad.tolist() == [False, True, False]


def test_fractions_and_exponents_are_numbers():
    assert read(["1.5", "2e3", "+7", " 8 ", "-9"]).numbers.tolist() == [1.5, 2000, 7, 8, -9]


@pytest.mark.parametrize(
    ("values", "kind", "numbers"),
    [
        ([1, None, -3], pa.int32(), [1, 0, -3]),
        ([2**64 - 1, 5], pa.uint64(), [2.0**64, 5.0]),
        ([1.5, None, float("nan")], pa.float32(), [1.5, 0.0, 0.0]),
        ([b"7", None], pa.binary(), [7, 0]),
        ([datetime.date(1970, 1, 3), None], pa.date32(), [2, 0]),
        ([5, None], pa.timestamp("ns", "Europe/Berlin"), [5, 0]),
        ([None, None], pa.null(), [0, 0]),
    ],
)
def test_typed_times_are_read_as_they_are(values, kind, numbers):
    times = read(values, kind=kind)
    assert [one if one == one else 0.0 for one in times.numbers.tolist()] == numbers
    missing = [one is None or one != one for one in values]
    assert times.bad.tolist() == missing


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True], pa.bool_()),
        ([[1]], pa.list_(pa.int64())),
        ([{"a": 1}], pa.struct({"a": pa.int64()})),
        ([b"\xff"], pa.binary()),
        ([(1, 2, 3)], pa.month_day_nano_interval()),
    ],
)
def test_a_column_of_something_else_is_refused(values, kind):
    with pytest.raises(InputError, match=r"log.csv column `time` holds .*, not times; set data"):
        read(values, kind=kind)


@pytest.mark.parametrize(
    ("values", "clock"),
    [
        (["00:00", "23:59"], [0, 86340]),
        (["0:05:07", "23:59:59.5"], [307, 86399.5]),
        (["2359", "5", "0105"], [86340, 300, 3900]),
        (["12:30 AM", "1:15 pm", "12:00 p.m."], [1800, 47700, 43200]),
        ([730, 5], [27000, 300]),
        ([datetime.time(1, 2, 3)], [3723]),
    ],
)
def test_times_of_day_are_seconds_since_midnight(values, clock):
    assert clock_seconds(pa.chunked_array([pa.array(values)])).tolist() == clock


@pytest.mark.parametrize("missing", ["", " ", None])
def test_a_missing_time_of_day_is_missing(missing):
    found = clock_seconds(pa.chunked_array([pa.array(["01:00", missing])])).tolist()
    assert found[0] == 3600
    assert found[1] != found[1]


@pytest.mark.parametrize("values", [["24:00"], ["12:60"], ["noon"], ["12:30", "x"], ["", None], []])
def test_what_is_no_time_of_day_is_none(values):
    assert clock_seconds(pa.chunked_array([pa.array(values, pa.string())])) is None


def test_a_moment_is_a_date_where_its_size_says_so():
    assert moment(0, "D") == "1970-01-01"
    assert moment(10**18, "") == "2001-09-09"
    assert moment(1.5, "") == "1.5"
    assert moment(-7, "") == "-7"
