"""One dataset in every format it may come in."""

import gzip
import itertools
import json
import lzma
import uuid

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delrec_hf.data.config import DataConfig
from delrec_hf.data.interactions import read_interactions
from delrec_hf.data.readers import read_table
from delrec_hf.errors import InputError

USERS = ["007", "NA", "7"]
ITEMS = ["01", "1", "1.0"]
TIMES = [1609459200123456789, 978300760, 5]
TITLES = ['Say "Cheese", The', "Amélie: A\ttab", "null"]


def frames():
    events = pd.DataFrame({"user_id": USERS, "item_id": ITEMS, "timestamp": TIMES})
    return events, pd.DataFrame({"item_id": ITEMS, "title": TITLES})


def read(path, **keys):
    source = read_interactions(DataConfig(path=str(path), **keys))
    return source.interactions.to_dict(), source.items.to_dict()


def write_csv(frame, path):
    frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")


def write_json(frame, path):
    frame.to_json(path, orient="records", lines=True, force_ascii=False)


def write_parquet(frame, path):
    frame.to_parquet(path)


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        (".csv", write_csv),
        (".csv.gz", write_csv),
        (".csv.xz", write_csv),
        (".tsv", write_csv),
        (".tsv.xz", write_csv),
        (".parquet", write_parquet),
        (".jsonl", write_json),
        (".jsonl.gz", write_json),
        (".jsonl.xz", write_json),
    ],
)
def test_every_format_gives_the_same_ids_times_and_titles(tmp_path, ending, write):
    for frame, name in zip(frames(), ("interactions", "items"), strict=True):
        write(frame, tmp_path / f"{name}{ending}")
    interactions, items = read(tmp_path)
    assert interactions == {"user_id": USERS, "item_id": ITEMS, "timestamp": TIMES}
    assert items == {"item_id": ITEMS, "title": TITLES}


def test_a_json_list_reads_as_json_lines_do(tmp_path):
    for frame, name in zip(frames(), ("interactions", "items"), strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(frame.to_dict("records")))
    assert read(tmp_path)[0]["timestamp"] == TIMES


def test_movielens_100k_reads_from_its_own_files(tmp_path):
    (tmp_path / "u.data").write_text("196\t2\t3\t881250949\n186\t1\t5\t891717742\n")
    flags = "|".join("1" if place in (1, 5) else "0" for place in range(19))
    (tmp_path / "u.item").write_bytes(
        f'1|"Misérables", Les (1995)|01-Jan-1995||http://x|{flags}\n'
        f"2|Heat (1995)|01-Jan-1995||http://y|{flags}\n".encode("latin-1")
    )
    interactions, items = read(tmp_path)
    assert interactions["user_id"] == ["196", "186"]
    assert interactions["timestamp"] == [881250949, 891717742]
    assert items["title"] == ['"Misérables", Les (1995)', "Heat (1995)"]
    assert items["genres"] == ["Action|Comedy"] * 2


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movielens_1m_reads_from_its_own_files(tmp_path, encoding):
    (tmp_path / "ratings.dat").write_text("1::2::5::978300760\n1::1::3::978302109\n")
    (tmp_path / "movies.dat").write_bytes(
        "1::Star Wars: Épisode IV (1977)::Action|Drama\n2::Heat::Crime\n".encode(encoding)
    )
    interactions, items = read(tmp_path)
    assert interactions["item_id"] == ["2", "1"]
    assert interactions["rating"] == [5.0, 3.0]
    assert items["title"] == ["Star Wars: Épisode IV (1977)", "Heat"]
    assert items["genres"] == ["Action|Drama", "Crime"]


def test_movielens_csv_reads_from_its_own_files(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,4.0,964982703\n")
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n2,"Mask, The (1994)",Comedy\n')
    (tmp_path / "tags.csv").write_text("userId,movieId,tag\n")
    interactions, items = read(tmp_path)
    assert interactions["timestamp"] == [964982703]
    assert items["title"] == ["Mask, The (1994)"]


def test_recbole_reads_from_its_atomic_files(tmp_path):
    (tmp_path / "ml.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t07\t5\t978300760.0\n"
    )
    (tmp_path / "ml.item").write_text(
        'item_id:token\tmovie_title:token_seq\tclass:token_seq\n07\t"Weird Al" Live\tComedy\n'
    )
    interactions, items = read(tmp_path)
    assert (interactions["item_id"], interactions["timestamp"]) == (["07"], [978300760.0])
    assert (items["title"], items["class"]) == (['"Weird Al" Live'], ["Comedy"])


def test_items_come_out_of_interactions_that_hold_titles(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,title\nb,2,1,Heat\na,1,2,Emma\nb,1,3,Emma\n")
    assert read(path)[1] == {"item_id": ["1", "2"], "title": ["Emma", "Heat"]}


def test_a_file_of_interactions_finds_the_items_beside_it(folder):
    (folder / "interactions.csv").rename(folder / "dense.csv")
    assert len(read(folder / "dense.csv")[1]["item_id"]) == 12


def test_files_and_columns_are_named_by_the_user_where_names_say_nothing(folder):
    text = (folder / "interactions.csv").read_text()
    (folder / "log.csv").write_text(text.replace("user_id,item_id,timestamp", "who,what,when"))
    (folder / "interactions.csv").unlink()
    (folder / "items.csv").rename(folder / "things.csv")
    keys = {"user_column": "who", "item_column": "what", "timestamp_column": "when"}
    interactions, items = read(folder, interactions="log.csv", items="things.csv", **keys)
    assert (interactions["user_id"][0], items["item_id"][1]) == ("u0", "01")


def test_typed_ids_become_texts_without_a_fraction(tmp_path):
    ids = pa.array([1.0, 2.0])
    pq.write_table(
        pa.table({"user": pa.array([3, 4]), "item": ids, "time": [1, 2], "title": ["a", "b"]}),
        tmp_path / "log.parquet",
    )
    interactions, _ = read(tmp_path / "log.parquet")
    assert (interactions["user_id"], interactions["item_id"]) == (["3", "4"], ["1", "2"])


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view()], ids=str
)
def test_ids_of_any_kind_of_text_are_read_and_filtered(tmp_path, kind):
    users, items = pa.array(["3", "4", None], pa.string()), pa.array(["a", "b", "c"])
    columns = {"user": users.cast(kind), "item": items.cast(kind), "time": [1, 2, 3]}
    pq.write_table(pa.table({**columns, "title": items.cast(kind)}), tmp_path / "log.parquet")
    interactions, found = read(tmp_path / "log.parquet", drop_unusable=True)
    assert (interactions["user_id"], interactions["item_id"]) == (["3", "4"], ["a", "b"])
    assert found["title"] == ["a", "b"]


def test_ids_that_are_uuids_are_read_as_they_are_written(tmp_path):
    ids = [uuid.UUID(int=1), uuid.UUID(int=2**128 - 1)]
    users = pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([one.bytes for one in ids], pa.binary(16))
    )
    columns = {"user": users, "item": [1, 2], "time": [1, 2], "title": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet")[0]["user_id"] == [str(one) for one in ids]


def test_a_film_called_title_is_no_header(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::2::5::978300760\n")
    (tmp_path / "movies.dat").write_text("2::Title::Drama\n3::Id::Drama\n")
    assert read(tmp_path)[1]["title"] == ["Title", "Id"]
    (tmp_path / "movies.dat").write_text("id\ttitle\tyear\n2\tHeat\t1995\n")
    assert read(tmp_path)[1] == {"item_id": ["2"], "title": ["Heat"], "year": ["1995"]}


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [["a"], ["b"]], "`user` holds list<.*>, not ids"),
        ("item", [1.0, 2.5], "row 2: item is `2.5`, which is not an id"),
        ("item", [None, 2.0], "row 1: item is empty, which is not an id"),
        ("item", [float("inf"), 2.0], "row 1: item is `inf`, which is not an id"),
        ("time", [["a"], ["b"]], "`time` holds list<.*>, not times"),
        ("time", [None, 2], "row 1: time is empty, which is not a time"),
        ("title", [["a"], ["b"]], "`title` holds list<.*>, not titles"),
        ("title", ["a", None], "row 2: item `2` has no title"),
    ],
)
def test_typed_values_that_cannot_be_meant_are_refused(tmp_path, column, values, message):
    columns = {"user": ["3", "4"], "item": [1, 2], "time": [1, 2], "title": ["a", "b"]}
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({**columns, column: values}), path)
    with pytest.raises(InputError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("ratings", "read_ratings"),
    [([None, 2], [None, 2.0]), (["4", "5"], [4.0, 5.0]), (["good", ""], None), ([[1], [2]], None)],
)
def test_ratings_are_read_where_they_are_numbers(tmp_path, ratings, read_ratings):
    columns = {"user": ["3", "4"], "item": [1, 2], "time": [1, 2], "title": ["a", "b"]}
    pq.write_table(pa.table({**columns, "rating": ratings}), tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet")[0].get("rating") == read_ratings


@pytest.mark.parametrize(
    ("times", "numbers"),
    [
        (["9007199254740993", "9007199254740992"], [9007199254740993, 9007199254740992]),
        (["964982703.25", "1"], [964982703.25, 1.0]),
        (["1e3", " 5 "], [1000.0, 5.0]),
    ],
)
def test_numbers_keep_their_precision(tmp_path, times, numbers):
    read_times = times_of(tmp_path, times)
    assert read_times == numbers
    assert [type(one) for one in read_times] == [type(one) for one in numbers]


@pytest.mark.parametrize(
    "dates",
    [
        ["2001-01-01", "2001-01-02"],
        ["2001-01-01T00:00:00.000000001", "2001-01-01T00:00:00.000000002"],
        ["2001-01-01T00:00:00.5+02:00", "2001-01-01", "2001-01-01 00:00:01Z"],
        ["0001-01-01", "2001-01-01T01:02:03.123456"],
    ],
)
def test_iso_dates_become_whole_numbers_in_order(tmp_path, dates):
    read_times = times_of(tmp_path, dates)
    assert all(isinstance(one, int) for one in read_times)
    assert all(earlier < later for earlier, later in itertools.pairwise(read_times))


def times_of(folder, times):
    rows = "".join(f"u,{row},{time},t{row}\n" for row, time in enumerate(times))
    (folder / "log.csv").write_text("user,item,time,title\n" + rows)
    return read(folder / "log.csv")[0]["timestamp"]


def test_typed_dates_become_whole_numbers(tmp_path):
    moments = pd.to_datetime(["2001-01-01T00:00:00.000001", "2001-01-01T00:00:00.000000"])
    frame = pd.DataFrame({"user": ["a", "b"], "item": [1, 2], "date": moments, "name": ["x", "y"]})
    frame.to_parquet(tmp_path / "log.parquet")
    times = read(tmp_path / "log.parquet")[0]["timestamp"]
    assert isinstance(times[0], int)
    assert times[0] > times[1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b" \n\n", "is empty"),
        ("a.csv", b"user,item\n", "holds no rows"),
        ("a.csv.gz", b"user,item\n1,2\n", "cannot be decompressed"),
        ("a.csv.xz", lzma.compress(b"user,item\n1,2\n")[:-9], "cannot be decompressed"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "is empty"),
        (
            "a.csv",
            b"user,item\n1,2\n\xe9,3\n",
            r"not UTF-8: byte 14 \(line 3\) is 0xe9; set data.encoding",
        ),
        ("a.jsonl", b'{"user": "\xe9"}\n', "not UTF-8: byte 10"),
        ("a.csv", b"user,user\n1,2\n", "several columns named `user`"),
        ("a.pdf", b"user item\n", "of an unknown format; expected csv"),
        ("a.jsonl", b'{"user": 1}\n{"user": \n', "line 2 is not a valid JSON object"),
        ("a.jsonl", b'{"user": "\\ud800"}\n{]\n', "line 2 is not a valid JSON object"),
        ("a.json", b"[1, 2", "cannot be read as JSON"),
        ("a.parquet", b"nothing of the kind", "cannot be read as parquet"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        read_table(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
