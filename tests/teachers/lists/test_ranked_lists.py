"""Lists from elsewhere: what is read, what is refused, and what they score."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.histories import Histories
from delrec_hf.teachers.lists.ranked_lists import RankedLists
from delrec_hf.teachers.predictions import predict, score_candidates

Write = Callable[[pd.DataFrame], Path]
PARTS = ("train", "validation", "test")


def honest_lists(prepared: PreparedData, length: int = 5) -> pd.DataFrame:
    """The best unseen items by co-occurrence for every example."""
    teacher = CoOccurrence.fit(prepared)
    ids = np.array(prepared.items["item_id"][:])
    frames = []
    for part in PARTS:
        found = predict(teacher, prepared, prepared.examples[part], length).to_pandas()
        found["rank"] = [np.arange(1, len(items) + 1) for items in found["items"]]
        frames.append(found.explode(["items", "rank"]))
    frame = pd.concat(frames, ignore_index=True)
    frame["item_id"] = ids[frame["items"].astype(int)]
    frame["rank"] = frame["rank"].astype(int)
    return frame[["user_id", "position", "item_id", "rank"]]


def targets(prepared: PreparedData, *parts: str) -> pd.DataFrame:
    frame = pd.concat([prepared.examples[part].to_pandas() for part in parts])
    frame["item_id"] = [f"i{row}" for row in frame["target"]]
    return frame[["user_id", "position", "item_id"]]


def with_targets(lists: pd.DataFrame, prepared: PreparedData, *parts: str) -> pd.DataFrame:
    """Append each target to its list, where it is not there."""
    added = targets(prepared, *parts).assign(rank=1000)
    keys = ["user_id", "position", "item_id"]
    return pd.concat([lists, added]).drop_duplicates(keys, ignore_index=True)


@pytest.fixture
def lists(prepared: PreparedData) -> pd.DataFrame:
    return honest_lists(prepared)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(frame: pd.DataFrame) -> Path:
        path = tmp_path / "lists.parquet"
        frame.to_parquet(path, index=False)
        return path

    return make


def scores_of(found: RankedLists, user: str, position: int) -> dict[int, float]:
    scores = found.score([user], np.array([position]), [np.array([0])])[0]
    return {int(item): float(scores[item]) for item in np.flatnonzero(np.isfinite(scores))}


def rows_of(lists: pd.DataFrame, user: str, position: int) -> pd.DataFrame:
    return lists[(lists["user_id"] == user) & (lists["position"] == position)]


def test_an_item_scores_minus_its_rank_and_what_is_not_listed_minus_infinity(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    found = RankedLists.read(write(lists), prepared)
    for example in prepared.examples["test"]:
        listed = rows_of(lists, example["user_id"], example["position"])
        expected = {
            int(item[1:]): -rank
            for item, rank in zip(listed["item_id"], listed["rank"], strict=True)
        }
        assert scores_of(found, example["user_id"], example["position"]) == expected


def test_given_scores_are_the_scores(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    lists["score"] = 1 / lists["rank"]
    found = RankedLists.read(write(lists), prepared)
    example = prepared.examples["test"][0]
    scores = scores_of(found, example["user_id"], example["position"])
    assert sorted(scores.values(), reverse=True) == [1 / rank for rank in range(1, len(scores) + 1)]


def test_the_order_of_rows_users_and_requests_changes_nothing(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    straight = RankedLists.read(write(lists), prepared)
    mixed = dataclasses.replace(prepared, sequences=prepared.sequences.shuffle(seed=1))
    crossed = RankedLists.read(write(lists.sample(frac=1, random_state=0)), mixed)
    users, positions = lists["user_id"].tolist(), lists["position"].to_numpy()
    histories = [np.array([0])] * len(users)
    expected = straight.score(users, positions, histories)
    np.testing.assert_array_equal(crossed.score(users, positions, histories), expected)
    backwards = straight.score(users[::-1], positions[::-1], histories)
    np.testing.assert_array_equal(backwards[::-1], expected)


def test_who_has_no_list_gets_no_recommendation(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    found = RankedLists.read(write(lists), prepared)
    for user, position in (("u1", 0), ("u1", 99), ("u1", -1), ("nobody", 3)):
        assert scores_of(found, user, position) == {}
    assert found.score([], np.array([], dtype=np.int64), []).shape == (0, 30)


def test_predictions_are_the_lists(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    teacher = RankedLists.read(write(lists), prepared)
    examples = prepared.examples["test"]
    for row in predict(teacher, prepared, examples, 3):
        listed = rows_of(lists, row["user_id"], row["position"]).sort_values("rank")
        assert [f"i{item}" for item in row["items"]] == listed["item_id"].tolist()[:3]
    assert score_candidates(teacher, prepared, examples).shape == (40, 3)


def test_saved_lists_load_as_they_were(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    lists["score"] = 1 / lists["rank"]
    found = RankedLists.read(write(lists), prepared)
    folder = tmp_path / "teacher"
    folder.mkdir()
    found.save(folder)
    mixed = dataclasses.replace(prepared, sequences=prepared.sequences.shuffle(seed=1))
    users, positions = lists["user_id"].tolist(), lists["position"].to_numpy()
    histories = [np.array([0])] * len(users)
    np.testing.assert_array_equal(
        RankedLists.load(folder, mixed).score(users, positions, histories),
        found.score(users, positions, histories),
    )


def test_lists_of_other_data_do_not_load(
    prepared: PreparedData, cycle: PreparedData, lists: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    RankedLists.read(write(lists), prepared).save(tmp_path)
    with pytest.raises(InputError, match="made for other users or items"):
        RankedLists.load(tmp_path, cycle)
    with pytest.raises(InputError, match=r"holds no lists\.parquet"):
        RankedLists.load(tmp_path / "empty", prepared)


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


def without(lists: pd.DataFrame, examples: Sequence[dict[str, object]]) -> pd.DataFrame:
    gone = pd.MultiIndex.from_tuples([(row["user_id"], row["position"]) for row in examples])
    keys = pd.MultiIndex.from_frame(lists[["user_id", "position"]])
    return lists[~keys.isin(gone)]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_missing_list_is_an_error_naming_the_user(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, part: str
) -> None:
    example = prepared.examples[part][7]
    message = f"1 of 40 {part} examples, first user `u7` position {example['position']}; score"
    with pytest.raises(InputError, match=message):
        RankedLists.read(write(without(lists, [example])), prepared)


def test_a_list_of_seen_items_alone_is_missing(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    example = prepared.examples["test"][7]
    seen = pd.DataFrame({"item_id": [f"i{row}" for row in example["history"]]})
    seen = seen.assign(user_id="u7", position=example["position"], rank=range(len(seen)))
    path = write(pd.concat([without(lists, [example]), seen]))
    with pytest.raises(InputError, match="1 of 40 test examples, first user `u7`"):
        RankedLists.read(path, prepared)


def test_seen_items_are_left_out_with_a_warning(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    example = prepared.examples["test"][7]
    row = {"user_id": "u7", "position": example["position"], "rank": 0}
    more = pd.concat([lists, pd.DataFrame([row | {"item_id": f"i{example['history'][0]}"}])])
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        found = RankedLists.read(write(more), prepared)
    assert "left out 1 of" in caplog.text
    assert example["history"][0] not in scores_of(found, "u7", example["position"])


def test_training_examples_without_a_list_are_a_warning_and_none_at_all_an_error(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    train = prepared.examples["train"].to_list()
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        RankedLists.read(write(without(lists, train[:10])), prepared)
    assert "no list for 10 of 40 training examples (25.0%)" in caplog.text
    with pytest.raises(InputError, match="40 of 40 train examples"):
        RankedLists.read(write(without(lists, train)), prepared)


def test_more_lists_than_examples_are_fine(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    extra = pd.DataFrame({"user_id": "u7", "position": 0, "item_id": ["i3", "i4"], "rank": [0, 1]})
    found = RankedLists.read(write(pd.concat([lists, extra])), prepared)
    assert scores_of(found, "u7", 0) == {3: 0.0, 4: -1.0}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_targets_added_to_the_lists_are_caught_unless_allowed(
    prepared: PreparedData,
    lists: pd.DataFrame,
    write: Write,
    part: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(with_targets(lists, prepared, part))
    with pytest.raises(InputError, match=f"lists of {part} examples.*allow_leaks: true"):
        RankedLists.read(path, prepared)
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        RankedLists.read(path, prepared, allow_leaks=True)
    assert "allowed by teacher.allow_leaks" in caplog.text


def test_training_targets_in_the_lists_are_a_warning(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    known = targets(prepared, "train").assign(rank=1)
    lists = pd.concat([without(lists, prepared.examples["train"].to_list()), known])
    with caplog.at_level(logging.WARNING, logger="delrec_hf"):
        RankedLists.read(write(lists), prepared)
    assert "remembers what it was trained on" in caplog.text


def test_held_out_items_in_training_lists_are_caught(
    prepared: PreparedData, lists: pd.DataFrame, write: Write
) -> None:
    later = targets(prepared, "validation", "test")
    train = prepared.examples["train"].to_pandas().set_index("user_id")["position"]
    later["position"] = later["user_id"].map(train)
    later["rank"] = np.arange(len(later)) // 40 + 1000
    keys = ["user_id", "position", "item_id"]
    path = write(pd.concat([lists, later]).drop_duplicates(keys))
    with pytest.raises(InputError, match="held-out item in the lists of train examples"):
        RankedLists.read(path, prepared)


@pytest.mark.parametrize(("shift", "message"), [(1, "is outside"), (-1, "40 of 40 test")])
def test_positions_that_are_off_by_one_are_caught(
    prepared: PreparedData, lists: pd.DataFrame, write: Write, shift: int, message: str
) -> None:
    lists["position"] += shift
    with pytest.raises(InputError, match=message):
        RankedLists.read(write(lists), prepared)


def test_lists_of_the_whole_catalogue_are_no_leak(prepared: PreparedData, write: Write) -> None:
    lists = honest_lists(prepared, length=30)
    assert len(RankedLists.read(write(lists), prepared).items) == len(lists)


def test_lists_as_good_as_the_rule_of_the_data_are_no_leak(
    cycle: PreparedData, write: Write
) -> None:
    sequences = Histories.of(cycle)
    frames = [
        part.to_pandas()[["user_id", "position", "target"]].assign(rank=1)
        for part in cycle.examples.values()
    ]
    lists = pd.concat(frames)  # the next item on the ring is always the target
    lists["item_id"] = [f"i{item}" for item in lists["target"]]
    found = RankedLists.read(write(lists.drop(columns="target")), cycle)
    assert len(found.targets) == 3 * len(sequences.users)
