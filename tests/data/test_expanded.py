"""Files whose rows hold lists of items: RecBole's sequential files, MIND's behaviors."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delrec_hf.data.config import DataConfig
from delrec_hf.data.expanded import one_row_each
from delrec_hf.data.interactions import read_interactions
from delrec_hf.data.readers import Table
from delrec_hf.errors import InputError
from tests.data.budget import files

CONFIG = DataConfig(path="toy")


def expanded(columns, config=CONFIG):
    table = one_row_each(Table("log", pa.table(columns)), config)
    return [tuple(row.values()) for row in table.data.to_pylist()]


@files(0.25)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=4), st.integers(0, 9))
def test_sequences_written_as_beginnings_are_read_as_they_were(sequences, seed):
    rows = [
        (f"u{user}", " ".join(map(str, items[:end])), str(items[end]))
        for user, items in enumerate(sequences)
        for end in range(len(items))
    ]
    random.Random(seed).shuffle(rows)
    users, lists, lasts = zip(*rows, strict=True) if rows else ((), (), ())
    texts = [pa.array(column, pa.string()) for column in (users, lists, lasts)]
    table = dict(zip(("session_id", "item_id_list", "item_id"), texts, strict=True))
    found = {}
    for user, item, place in expanded(table):
        assert place == len(found.setdefault(user, []))
        found[user].append(int(item))
    assert found == {f"u{user}": items for user, items in enumerate(sequences)}


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.int64())])
def test_typed_lists_are_read_as_written_ones(kind):
    lists = pa.array([[], ["7"], None], pa.list_(pa.string())).cast(kind)
    columns = {"user_id": ["a", "a", "b"], "item_id_list": lists, "item_id": [7, 8, 9]}
    assert expanded(columns) == [("a", "7", 0), ("a", "8", 1), ("b", "9", 0)]


def test_a_row_without_a_user_is_left_out_by_its_items(tmp_path):
    columns = {
        "user_id": ["a", None, None],
        "item_id_list": ["1 2", "3", "3"],
        "item_id": ["3", "2", "1"],
    }
    pq.write_table(pa.table(columns), tmp_path / "interactions.parquet")
    (tmp_path / "items.csv").write_text("item_id,title\n1,A\n2,B\n3,C\n")
    source = read_interactions(DataConfig(path=str(tmp_path), drop_unusable=True))
    assert source.interactions["item_id"][:] == ["1", "2", "3"]
    assert source.left_out["unusable_rows"] == 4


def test_a_list_that_was_cut_is_refused_with_its_row():
    columns = {"user_id": ["a", "a"], "item_id_list": ["1 2", "2 3"], "item_id": ["3", "4"]}
    with pytest.raises(InputError, match=r"log row 2: `item_id_list` of user `a` holds items"):
        expanded(columns)


def test_a_column_of_neither_texts_nor_lists_is_refused():
    lists = pa.array([{"a": 1}])
    with pytest.raises(InputError, match=r"`item_id_list` holds struct<a: int64>, not ids"):
        expanded({"user_id": ["a"], "item_id_list": lists, "item_id": ["3"]})


BEHAVIORS = {
    "user_id": ["u", "u", "v", "w"],
    "time": ["11/15/2019 8:55:22 AM", "11/14/2019 8:55:22 PM", "11/14/2019 9:00:00 AM", None],
    "history": ["N1 N2", "N1 N2", None, "N4"],
    "impressions": ["N3-1 N4-0", "N4-1 N5-1", "N1-0 N2-0", "N1-1"],
}


def test_clicks_and_the_longest_history_before_them_are_interactions():
    rows = expanded(BEHAVIORS)
    times = {}
    for user, item, time in rows:
        times.setdefault(user, []).append((item, time and str(time)))
    (first, second, *clicks) = times["u"]
    assert [first[0], second[0]] == ["N1", "N2"]
    assert first[1] < second[1] < "2019-11-14 20:55:22"
    assert clicks == [
        ("N3", "2019-11-15 08:55:22"),
        ("N4", "2019-11-14 20:55:22"),
        ("N5", "2019-11-14 20:55:22"),
    ]
    assert "v" not in times
    assert times["w"] == [("N4", None), ("N1", None)]  # without a time: left out later, and counted


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.float64(), pa.decimal128(21, 2), pa.date32(), pa.timestamp("us")]
)
def test_times_of_impressions_may_be_of_any_kind(kind):
    width = pa.int32() if kind == pa.date32() else pa.int64()
    rows = expanded({**BEHAVIORS, "time": pa.array([5, 4, 3, 2], width).cast(kind)})
    assert len(rows) == 7
    assert [item for user, item, _ in sorted(rows, key=lambda row: row[2]) if user == "u"][:2] == [
        "N1",
        "N2",
    ]


def test_a_given_form_and_column_hold_for_impressions():
    times = ["02.01.2020", "01.01.2020", "03.01.2020", "04.01.2020"]
    columns = {**BEHAVIORS, "time": ["x"] * 4, "when": times}
    config = DataConfig(path="toy", timestamp_column="when", timestamp_format="%d.%m.%Y")
    assert str(expanded(columns, config)[-1][2]) == "2020-01-04 00:00:00"


def test_a_history_that_is_no_part_of_the_longest_is_refused():
    columns = {**BEHAVIORS, "history": ["N1 N2", "N9", None, None]}
    with pytest.raises(InputError, match=r"log row 2: `history` of user `u` holds items"):
        expanded(columns)


def test_impressions_without_a_click_leave_nothing(tmp_path):
    (tmp_path / "behaviors.tsv").write_text("1\tu\t11/15/2019 8:55:22 AM\t\tN1-0\n")
    (tmp_path / "news.tsv").write_text("N1\tx\ty\tTitle\tz\turl\t\t\n")
    with pytest.raises(InputError, match=r"no interaction of .* is left"):
        read_interactions(DataConfig(path=str(tmp_path)))
