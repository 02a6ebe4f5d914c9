"""Filters leave out what the recipe names, and count it."""

import numpy as np
import pyarrow as pa
import pytest

from delrec_hf.data.account import LEFT_OUT
from delrec_hf.data.config import DataConfig
from delrec_hf.data.filters import codes, core, first_of_moment, one_of_each, with_values
from delrec_hf.data.interactions import read_interactions
from delrec_hf.data.readers import Table
from delrec_hf.errors import InputError

HEADER = "user,item,time,rating,event,title\n"
ROWS = [
    "u,a,1,5,buy,A",
    "u,b,2,3.5,view,B",
    "u,c,3,,buy,C",
    "v,a,1,4.0,buy,A",
    "v,b,2,n/a,view,B",
    "v,b,5,5,buy,B",
    "v,c,3,1,buy,C",
]


@pytest.fixture
def read(tmp_path):
    def make(rows=ROWS, **keys):
        (tmp_path / "log.csv").write_text(HEADER + "\n".join(rows))
        source = read_interactions(DataConfig(path=str(tmp_path / "log.csv"), **keys))
        events = source.interactions
        kept = list(zip(events["user_id"], events["item_id"], events["timestamp"], strict=True))
        lost = {name: number for name, number in source.left_out.items() if number}
        assert set(lost) <= set(LEFT_OUT)
        return kept, lost

    return make


def test_interactions_rated_lower_or_not_at_all_are_left_out(read):
    kept, lost = read(min_rating=4)
    assert kept == [("u", "a", 1), ("v", "a", 1), ("v", "b", 5)]
    assert lost == {"below_min_rating": 2, "without_rating": 2}


@pytest.mark.parametrize("values", [["buy"], "buy", ["buy", "buy"]])
def test_rows_with_the_kept_values_alone_are_kept(read, values):
    kept, lost = read(keep={"event": values})
    assert kept == [("u", "a", 1), ("u", "c", 3), ("v", "a", 1), ("v", "b", 5), ("v", "c", 3)]
    assert lost == {"other_events": 2}


def test_rows_must_have_a_kept_value_in_every_column(read):
    kept, lost = read(keep={"event": ["buy"], "rating": ["5", 1]})
    assert kept == [("u", "a", 1), ("v", "b", 5), ("v", "c", 3)]
    assert lost == {"other_events": 4}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"keep": {"evnt": ["buy"]}}, "has no such column; found .*; did you mean `event`"),
        ({"keep": {"event": ["bye"]}}, r"found buy \(5\), view \(2\); did you mean `buy`"),
        ({"keep": {"event": ["view"]}, "min_rating": 5}, "data.keep names `view`"),
        ({"min_rating": 9}, "no interaction of .* is left after data.min_rating"),
        ({"min_rating": 1, "rating_column": "title"}, "column `title` holds no number"),
        ({"min_user_interactions": 9}, "no interaction of .* is left; left out: "),
    ],
)
def test_a_filter_that_leaves_nothing_is_refused(read, keys, message):
    with pytest.raises(InputError, match=message):
        read(**keys)


def test_a_rating_that_is_missed_is_asked_for(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,time,title\nu,a,1,A\n")
    with pytest.raises(InputError, match=r"no column known as rating; .*set data.rating_column"):
        read_interactions(DataConfig(path=str(tmp_path / "log.csv"), min_rating=4))


@pytest.mark.parametrize(
    ("kind", "values", "kept"),
    [
        (pa.bool_(), [True, False, None], [True]),
        (pa.int8(), [1, 2, None], [1]),
        (pa.float64(), [1.0, 1.5, None], [1]),
        (pa.float64(), [1.0, 1.5, None], [1.0]),
        (pa.string(), [" 1 ", "1.5", None], ["1"]),
    ],
)
def test_kept_values_are_compared_as_they_are_written(kind, values, kept):
    table = Table("log", pa.table({"event": pa.array(values, kind)}))
    keep = DataConfig(path="toy", keep={"event": kept}).kept_values()
    assert with_values(table, keep).tolist() == [True, False, False]


@pytest.mark.parametrize(("which", "time"), [("first", 2), ("last", 5)])
def test_one_of_several_interactions_with_an_item_counts(read, which, time):
    kept, lost = read(repeats=which)
    assert [row for row in kept if row[:2] == ("v", "b")] == [("v", "b", time)]
    assert lost == {"repeated_interactions": 1}


def test_filters_come_before_repeats(read):
    kept, lost = read(keep={"event": ["buy"]})
    assert ("v", "b", 5) in kept
    assert "repeated_interactions" not in lost


def test_equal_times_keep_the_order_of_the_file():
    users, items, times = np.array([0, 0, 0]), np.array([1, 1, 1]), np.array([5, 5, 4])
    assert one_of_each(users, items, times, "first").tolist() == [False, False, True]
    assert one_of_each(users, items, times, "last").tolist() == [False, True, False]
    assert first_of_moment(users, items, times).tolist() == [True, False, True]


def test_the_core_is_taken_until_all_have_enough():
    # Item 3 goes first (one user), then user 2 (one item left), then item 2 (one user left).
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 2), (2, 3)]
    users, items = np.array(pairs).T
    assert core(users, items, 2, 2).tolist() == [True] * 4 + [False] * 3
    assert core(users, items, 0, 0).all()
    assert not core(users, items, 4, 0).any()
    empty = np.array([], dtype=np.int64)
    assert core(empty, empty, 2, 2).tolist() == []


def test_what_is_outside_the_core_is_counted_by_rows_users_and_items(tmp_path):
    events = ["u,a,1", "u,b,2", "v,a,1", "v,b,2", "w,c,1", "w,a,3"]
    items = ["a,A", "b,B", "c,C", "d,Never met"]
    (tmp_path / "interactions.csv").write_text("user,item,time\n" + "\n".join(events))
    (tmp_path / "items.csv").write_text("item,title\n" + "\n".join(items))
    source = read_interactions(
        DataConfig(path=str(tmp_path), min_user_interactions=2, min_item_interactions=2)
    )
    assert source.items["item_id"][:] == ["a", "b"]
    assert source.left_out["interactions_outside_core"] == 2
    assert source.left_out["users_outside_core"] == 1
    assert source.left_out["items_outside_core"] == 2


def test_the_core_holds_after_unusable_rows_are_left_out_too(tmp_path):
    events = ["u,a,1", "u,b,2", "v,a,1", "v,b,2", "v,x,3", "w,x,1", "w,a,3"]
    (tmp_path / "interactions.csv").write_text("user,item,time\n" + "\n".join(events))
    (tmp_path / "items.csv").write_text("item,title\na,A\nb,B\n")
    keys = {"min_user_interactions": 2, "min_item_interactions": 2, "drop_unusable": True}
    source = read_interactions(DataConfig(path=str(tmp_path), **keys))
    assert source.interactions["user_id"][:] == ["u", "u", "v", "v"]
    assert source.left_out["interactions_with_unknown_items"] == 2
    assert source.left_out["interactions_outside_core"] == 1


def test_nothing_is_left_of_a_log_with_titles_outside_the_core(read):
    with pytest.raises(InputError, match=r"no interaction of .* is left"):
        read(min_item_interactions=3)


def test_codes_number_values_in_the_order_in_which_they_first_stand():
    assert codes(pa.chunked_array([["b", "a"], ["b", None, "c"]])).tolist() == [0, 1, 0, 2, 3]
    assert codes(pa.chunked_array([], pa.string())).tolist() == []


def test_rows_that_cannot_be_used_are_left_out_on_demand_and_counted(tmp_path):
    events = ["u,a,1", "u,b,2", "u,c,3", ",a,1", "v, ,1", "v,a,soon", "v,x,1", "v,d,2", "v,a", "v"]
    items = ["a,A", "b,B", "c,C", "d,", ",E", "a,A", "a,", "b,Other", "f,F,F", "d,\u200b"]
    (tmp_path / "interactions.csv").write_text("user,item,time\n" + "\n".join(events))
    (tmp_path / "items.csv").write_text("item,title\n" + "\n".join(items))
    with pytest.raises(InputError) as refusal:
        read_interactions(DataConfig(path=str(tmp_path)))
    assert str(refusal.value).startswith("9 problems, the worst first: (1) ")
    assert "leave them out with data.drop_unusable: true" in str(refusal.value)
    source = read_interactions(DataConfig(path=str(tmp_path), drop_unusable=True))
    assert source.interactions["item_id"][:] == ["a", "b", "c"]
    assert source.items["title"][:] == ["A", "B", "C"]
    assert {name: number for name, number in source.left_out.items() if number} == {
        "broken_lines": 2,
        "unusable_rows": 3,
        "interactions_with_unknown_items": 2,
        "broken_item_lines": 1,
        "unusable_item_rows": 1,
        "items_without_title": 1,
        "repeated_item_rows": 3,  # `a,A`, `a,` and the second row of `d`
        "contradicting_item_rows": 1,
    }
