"""Lists as files: which are read, and which row or column is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.teachers.lists.ranked_lists import RankedLists

Write = Callable[[pd.DataFrame], Path]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "csv.gz"])
def test_text_files_are_read_as_well(
    prepared: PreparedData, lists: pd.DataFrame, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"lists.{ending}"
    if ending == "jsonl":
        lists.to_json(path, orient="records", lines=True)
    else:
        lists.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    found = RankedLists.read(path, prepared)
    assert len(found.items) == len(lists)


def test_ids_are_compared_as_texts(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    numbers = prepared.items.map(lambda row: {"item_id": row["item_id"][1:]})
    lists["item_id"] = lists["item_id"].str[1:].astype(float)
    found = RankedLists.read(write(lists), dataclasses.replace(prepared, items=numbers))
    assert len(found.items) == len(lists)


def changed(lists: pd.DataFrame, row: int, **values: object) -> pd.DataFrame:
    lists = lists.astype(dict.fromkeys(values, object))
    for name, value in values.items():
        lists.loc[row, name] = value
    return lists.infer_objects()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"user_id": "nobody"}, r"1 of \d+ rows name an unknown user_id, first .* row 4: `nobody`"),
        ({"item_id": "i99"}, r"unknown item_id, first .* row 4: `i99`.*data/items"),
        ({"position": 99}, r"row 4: position 99 is outside .* stand at 0 to \d+"),
        ({"position": -1}, "position is -1; expected a whole number"),
        ({"position": 2.5}, r"position is 2\.5; expected a whole number"),
        ({"rank": 1}, "contradicts row 1 of the list of user `u0`.*each rank once"),
        ({"rank": -1}, "rank is -1"),
        ({"rank": np.nan}, "rank is `.*expected a finite number"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(
    prepared: PreparedData,
    lists: pd.DataFrame,
    write: Write,
    values: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        RankedLists.read(write(changed(lists, 3, **values)), prepared)
    assert "\n" not in str(refused.value)


def test_an_item_twice_in_a_list_is_an_error(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    twice = changed(lists, 3, item_id=lists.loc[1, "item_id"])
    with pytest.raises(InputError, match=r"row 4 repeats item `i\d+` of row 2 .* user `u0`"):
        RankedLists.read(write(twice), prepared)


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf, None])
def test_a_score_that_is_not_finite_is_an_error(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, score: float | None
) -> None:
    lists["score"] = -lists["rank"].astype(float)
    lists.loc[3, "score"] = score
    with pytest.raises(InputError, match=r"row 4: score is .*expected a finite number"):
        RankedLists.read(write(lists), prepared)


def test_scores_that_rise_with_the_rank_are_an_error(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    lists["score"] = lists["rank"]
    with pytest.raises(InputError, match=r"user `u0`.*score must not rise"):
        RankedLists.read(write(lists), prepared)


def test_texts_in_place_of_numbers_are_an_error(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    lists["rank"] = "first"
    with pytest.raises(InputError, match="column `rank` holds something else than numbers"):
        RankedLists.read(write(lists), prepared)


def test_a_missing_column_is_an_error_that_names_the_nearest(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    path = write(lists.rename(columns={"item_id": "itemid"}))
    with pytest.raises(InputError, match=r"no column `item_id`.*did you mean `itemid`"):
        RankedLists.read(path, prepared)


def _cut(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def _scratched(whole: bytes) -> bytes:
    return whole[:4] + bytes(len(whole) // 3) + whole[4 + len(whole) // 3 :]


@pytest.mark.parametrize("damage", [_cut, _scratched, lambda _: b"", lambda _: b"PAR1" * 5])
def test_a_damaged_file_is_one_line(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, damage: Callable[[bytes], bytes]
) -> None:
    path = write(lists)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError) as refused:
        RankedLists.read(path, prepared)
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_one_without_rows_are_named(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    with pytest.raises(InputError, match="does not exist"):
        RankedLists.read(tmp_path / "nothing.parquet", prepared)
    with pytest.raises(InputError, match="does not exist"):
        RankedLists.read(folder, prepared)
    with pytest.raises(InputError, match="holds no rows"):
        RankedLists.read(write(lists[:0]), prepared)
