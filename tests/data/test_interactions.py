"""Bad input is refused in one line that says where and what to do."""

import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delrec_hf.data.config import DataConfig
from delrec_hf.data.interactions import read_interactions
from delrec_hf.errors import InputError


def refusal(folder, **keys):
    with pytest.raises(InputError) as caught:
        read_interactions(DataConfig(path=str(folder), **keys))
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_missing_column_is_named_with_those_found_and_the_key(folder):
    edit(folder / "interactions.csv", "user_id", "who")
    assert refusal(folder).endswith(
        "interactions.csv has no column known as user; found who, item_id, timestamp; set "
        "data.user_column to the right one"
    )


def test_a_misnamed_column_is_named_with_those_found_and_the_nearest(folder):
    message = refusal(folder, timestamp_column="timestam")
    assert "has no column `timestam`; found user_id, item_id, timestamp" in message
    assert message.endswith("did you mean `timestamp`?")


def test_a_missing_title_column_is_named(folder):
    edit(folder / "items.csv", "title", "label")
    assert "items.csv has no column known as title; found item_id, label" in refusal(folder)


def test_titles_nowhere_at_all_are_missed(folder):
    (folder / "items.csv").unlink()
    message = refusal(folder)
    assert "no table of items beside" in message
    assert "set data.items" in message


@pytest.mark.parametrize("value", ["yesterday", "", "nan", "inf", "2001-13-01", "now", "NaT"])
def test_an_unreadable_time_is_named_with_row_and_value(folder, value):
    edit(folder / "interactions.csv", "u0,02,2", f"u0,02,{value}")
    message = refusal(folder)
    assert "interactions.csv row 3 after the header: timestamp is " in message
    assert (f"`{value}`" if value else "empty") in message
    assert "expected a number or an ISO date" in message


def test_an_unreadable_time_among_dates_is_the_one_that_is_named(folder):
    text = (folder / "interactions.csv").read_text()
    for step in range(6):
        text = text.replace(f",{step}\n", f",2001-01-0{step + 1}\n")
    (folder / "interactions.csv").write_text(text.replace("u4,05,2001-01-06", "u4,05,12"))
    assert "row 30 after the header: timestamp is `12`" in refusal(folder)


@pytest.mark.parametrize(("title", "row"), [('"Number 3, The"', 4), ('"Number 11, The"', 12)])
@pytest.mark.parametrize("nothing", ["", "  ", '"\t"'])
def test_an_item_without_a_title_is_named(folder, title, row, nothing):
    edit(folder / "items.csv", title, nothing)
    message = refusal(folder)
    assert f"items.csv row {row} after the header: item `{row - 1:02d}` has no title" in message
    assert "items without a title in column `title`: 1, first" in message


def test_unknown_items_are_counted_and_the_first_is_named(folder):
    edit(folder / "items.csv", '04,"Number 4, The"\n', "")
    message = refusal(folder)
    assert message.startswith("interactions with items that")
    assert "does not hold: 3 of 30" in message
    assert "interactions.csv row 5 after the header: item `04`" in message


def test_exact_repeats_are_left_out_and_counted_apart_from_later_ones(folder, caplog):
    with (folder / "interactions.csv").open("a") as file:
        file.write("u0,01,1\nu3,09,0\nu0,01,77\n")
    with caplog.at_level(logging.INFO, logger="delrec_hf"):
        source = read_interactions(DataConfig(path=str(folder)))
    assert len(source.interactions) == 30
    assert source.left_out["exact_repeats"] == 2
    assert source.left_out["repeated_interactions"] == 1
    assert "left out: interactions that repeat another's user, item and time: 2" in caplog.text


def test_an_item_with_two_rows_is_named(folder):
    with (folder / "items.csv").open("a") as file:
        file.write("03,Other\n")
    message = refusal(folder)
    assert "items.csv row 13 after the header repeats item `03` of row 4 (`Other`, not" in message


@pytest.mark.parametrize("row", ["u0,,2", ",02,2", "  ,02,2"])
def test_an_empty_id_is_named(folder, row):
    edit(folder / "interactions.csv", "u0,02,2", row)
    assert "row 3 after the header" in refusal(folder)
    assert "is not an id" in refusal(folder)


def test_metadata_goes_along(folder):
    lines = (folder / "items.csv").read_text().splitlines()
    lines = [f"{line},{'year' if not row else 1990 + row}" for row, line in enumerate(lines)]
    (folder / "items.csv").write_text("\n".join(lines))
    items = read_interactions(DataConfig(path=str(folder))).items
    assert items.column_names == ["item_id", "title", "year"]
    assert items[0] == {"item_id": "00", "title": "Number 0, The", "year": "1991"}


def test_metadata_of_kinds_that_datasets_lacks_become_texts(folder):
    lists = pa.map_(pa.string(), pa.int64())
    columns = {
        "item_id": [f"{item:02d}" for item in range(12)],
        "title": [f"Number {item}" for item in range(12)],
        "counts": pa.array([[("a", item)] for item in range(11)] + [None], lists),
        "tags": pa.array([["x"]] * 12, pa.list_(pa.string_view())),
    }
    (folder / "items.csv").unlink()
    pq.write_table(pa.table(columns), folder / "items.parquet")
    items = read_interactions(DataConfig(path=str(folder))).items
    assert items["counts"][0] == "[('a', 0)]"
    assert items["counts"][11] is None
    assert items["tags"][0] == "['x']"


def test_a_missing_time_of_day_is_named_with_its_column(folder):
    text = (folder / "interactions.csv").read_text().replace("timestamp", "date,time")
    for step in range(6):
        text = text.replace(f",{step}\n", f",2001-01-01,12:0{step}\n")
    (folder / "interactions.csv").write_text(
        text.replace("u0,02,2001-01-01,12:02", "u0,02,2001-01-01,")
    )
    assert "row 3 after the header: time is empty, which is not a time" in refusal(folder)
    source = read_interactions(DataConfig(path=str(folder), drop_unusable=True))
    assert source.left_out["unusable_rows"] == 1
    assert source.reading[-1].startswith("times: 2001-01-01 to 2001-01-01 (ISO dates and times of")


def test_a_value_that_ends_a_line_is_shown_in_one(folder):
    edit(folder / "interactions.csv", "u0,02,2", 'u0,02,"noon\n\x1b[31m"')
    assert r"timestamp is `noon\n\x1b[31m`" in refusal(folder)


def test_a_catalogue_of_broken_lines_is_refused(folder):
    (folder / "items.csv").write_text("item_id,title\n1\n2\n")
    message = refusal(folder, drop_unusable=True)
    assert "lines with another number of values than columns: 2" in message
    assert "ids are compared as texts; there is none there" in message


@pytest.mark.parametrize(
    "keys",
    [
        {"history_length": 0},
        {"num_candidates": 1},
        {"train_prefixes": 0},
        {"min_user_interactions": -1},
        {"separator": ", "},
        {"separator": "§"},
        {"separator": '"'},
        {"column_names": ["user_id"]},
        {"column_names": {"events": ["user_id"]}},
        {"keep": {"event": []}},
        {"keep": {"event": [{"a": 1}]}},
        {"max_title_characters": 5},
        {"test_share": 0.0},
        {"validation_share": 0.5, "test_share": 0.5},
    ],
)
def test_a_value_out_of_range_is_refused(keys):
    with pytest.raises(InputError, match=f"data.{next(iter(keys))}"):
        DataConfig(path="toy", **keys)
