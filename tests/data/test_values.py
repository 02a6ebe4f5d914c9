"""What a column holds: days, times of day, or both in one."""

import pyarrow as pa
import pytest

from delrec_hf.data.readers import Table, written_out
from delrec_hf.data.values import read_time_columns, time_columns
from delrec_hf.errors import InputError


def test_dates_that_python_has_not_are_times_all_the_same():
    days = pa.array([10**7, 5, None], pa.int32()).cast(pa.date32())
    table = Table("log", pa.table({"time": days}))
    assert time_columns(table, "time", False) == ("time",)
    times = read_time_columns(table, ("time",), None).times
    assert times.numbers.tolist() == [10**7, 5, 0]
    assert times.bad.tolist() == [False, False, True]


def test_times_of_day_are_known_by_the_first_value_that_is_there():
    table = Table("log", pa.table({"time": ["", None, "12:30"]}))
    with pytest.raises(InputError, match="holds times of day without a date"):
        time_columns(table, "time", False)
    table = Table("log", pa.table({"time": ["", None, "12:30"], "date": ["2001-01-01"] * 3}))
    assert time_columns(table, "time", False) == ("date", "time")
    both = read_time_columns(table, ("date", "time"), None)
    assert both.bad_name == "time"
    assert both.times.bad.tolist() == [True, True, False]


def test_values_that_cannot_be_written_out_are_refused():
    days = pa.array([10**7], pa.int32()).cast(pa.date32())
    with pytest.raises(InputError, match=r"a column of date32.* cannot be written out"):
        written_out(pa.chunked_array([days]))
