"""Whatever file is given: the reference's result, or one line that refuses it and nothing written.

There are few files here; `DELREC_FILES=10000 python -m pytest tests/data/test_properties.py` makes
and prepares as many, as `make test-files` does.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delrec_hf.data.config import DataConfig
from delrec_hf.data.inspection import inspect
from delrec_hf.data.prepared import PreparedData, prepare
from delrec_hf.data.titles import readable_titles
from delrec_hf.errors import InputError
from tests.data import reference
from tests.data.budget import files
from tests.data.damage import Damage, damages, odd_columns
from tests.data.layouts import Style, World, fit
from tests.data.worlds import styles, worlds
from tests.data.writers import COMPRESSIONS, UNPACK, write

pytestmark = pytest.mark.usefixtures("quiet")


@contextmanager
def shop() -> Iterator[tuple[Path, Path]]:
    """Yield an empty folder for files, and where to write: something lies there already."""
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "shop", Path(place) / "out"
        folder.mkdir()
        out.mkdir()
        (out / "before.txt").write_text("what was there")
        yield folder, out


def refusal(config: DataConfig, out: Path) -> str | None:
    """Prepare; return the message of a refusal, which is one line and leaves all as it was."""
    try:
        prepare(config, out)
    except InputError as error:
        assert [path.name for path in out.iterdir()] == ["before.txt"]
        message = str(error)
        assert len(message.splitlines()) == 1
        assert len(message) < 2500
        with pytest.raises(InputError, match=re.escape(message)):
            inspect(config)
        return message
    finally:
        assert sorted(path.name for path in out.parent.iterdir()) == ["out", "shop"]
    return None


def check_account(data: PreparedData) -> dict[str, int]:
    """Check that every row that was read is kept or counted; return how many were read."""
    lost, info = data.info["left_out"], data.info
    rows = {}
    for line in info["reading"]:
        told = re.match(r"(\w+): (\d+) rows of", line)
        if told is None:  # on times, or on titles
            continue
        table, count = told.groups()
        rows[table] = int(count)
    assert rows["interactions"] == info["interactions"] + sum(
        lost[name]
        for name in (
            *("broken_lines", "without_rating", "below_min_rating", "other_events"),
            *("unusable_rows", "exact_repeats", "repeated_interactions"),
            *("interactions_outside_core", "interactions_with_unknown_items"),
            *("interactions_of_these_users", "interactions_without_candidates"),
        )
    )
    if "items" in rows:
        assert rows["items"] == info["items"] + sum(
            lost[name]
            for name in (
                *("broken_item_lines", "unusable_item_rows", "items_without_title"),
                *("repeated_item_rows", "contradicting_item_rows", "items_outside_core"),
            )
        )
    return rows


def check_consistency(data: PreparedData) -> None:
    """Check what holds of any prepared data: titles, sequences, candidates, parts."""
    titles, info = data.items["title"][:], data.info
    assert len({one.casefold() for one in titles}) == len(titles) == len(set(data.items["item_id"]))
    assert all(one.strip() and len(one.splitlines()) == 1 for one in titles)
    met = {}
    for row in data.sequences:
        assert len(set(row["items"])) == len(row["items"]) >= 3
        met[row["user_id"]] = row
    assert list(met) == sorted(met)
    places = set()
    for part, rows in data.examples.items():
        for row in rows:
            own = met[row["user_id"]]
            position = row["position"]
            assert row["target"] == own["items"][position]
            assert row["history"] == own["items"][:position][-info["history_length"] :]
            assert (position < own["train_end"]) == (part == "train")
            assert len(set(row["candidates"])) == len(row["candidates"]) == info["num_candidates"]
            assert set(row["candidates"]) & set(own["items"]) == {row["target"]}
            places.add((row["user_id"], position))
    assert len(places) == sum(info["examples"].values())


def check_inspection(config: DataConfig, data: PreparedData) -> None:
    """Check that inspecting says what preparing did."""
    text, info = "\n".join(inspect(config)), data.info
    counts = re.search(r"(\d+) users, (\d+) items \((\d+) of .*, (\d+) interactions", text)
    names = ("users", "items", "items_without_interactions", "interactions")
    assert [int(one) for one in counts.groups()] == [info[name] for name in names]
    examples = ", ".join(f"{count} {part}" for part, count in info["examples"].items())
    assert f"examples: {examples}, of {info['num_candidates']} candidates" in text


def check(data: PreparedData, expected: reference.Expected, keys: dict[str, Any]) -> None:
    """Check prepared data against what the reference reader says."""
    ids = data.items["item_id"][:]
    assert ids == [item for item, _ in expected.items]
    raw = [title for _, title in expected.items]
    assert data.items["title"][:] == readable_titles(raw, keys["max_title_characters"])
    rows = {row["user_id"]: row for row in data.sequences}
    assert {
        user: [ids[item] for item in row["items"]] for user, row in rows.items()
    } == expected.sequences
    assert {user: row["moments"] for user, row in rows.items()} == expected.moments
    assert {user: row["train_end"] for user, row in rows.items()} == expected.train_ends
    for part, rows in data.examples.items():
        targets = list(zip(rows["user_id"][:], rows["position"][:], strict=True))
        assert targets == expected.targets[part]
    lost = data.info["left_out"]
    assert lost == {name: expected.left_out[name] for name in lost}
    assert set(expected.left_out) <= set(lost)


def check_untold(config: DataConfig, out: Path) -> dict[str, int]:
    """Check what must hold of any files, whatever is in them; return how many rows were read."""
    if refusal(config, out) is not None:
        return {}
    data = PreparedData.load(out)
    check_consistency(data)
    check_inspection(config, data)
    return check_account(data)


def outcome(world: World) -> reference.Expected | reference.Refused:
    try:
        return reference.prepared(
            world.events, world.items, world.keys, world.broken_lines, world.broken_item_lines
        )
    except reference.Refused as reason:
        return reason


@files(0.5)
@given(worlds(), styles())
def test_every_format_gives_what_the_reference_reader_gives(world: World, style: Style) -> None:
    world = fit(world, style)
    with shop() as (folder, out):
        config = DataConfig(**write(world, style, folder))
        expected = outcome(world)
        message = refusal(config, out)
        if isinstance(expected, reference.Refused):
            assert message, f"not refused: {expected}"
            return
        assert message is None, message
        data = PreparedData.load(out)
        check(data, expected, world.keys)
        check_account(data)
        check_consistency(data)
        check_inspection(config, data)


def rows_in(path: Path, style: Style) -> int | None:
    """Count a file's rows by the simplest means; None where quotes make that hard."""
    if style.form == "parquet":
        return pq.read_metadata(path).num_rows
    raw = UNPACK[style.compression](path.read_bytes())
    if style.encoding not in ("utf-8", "cp1252", "shift-jis", "latin-1"):
        return None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    raw = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    is_json = style.form in ("json", "jsonl", "python")
    if is_json and (style.form == "json" or raw.lstrip().startswith(b"[")):
        is_utf8 = raw.decode(errors="replace").encode() == raw
        text = raw.decode("utf-8" if is_utf8 else style.encoding)
        return len(json.loads(text, strict=False)) if text.lstrip().startswith("[") else None
    if is_json:
        return sum(bool(line.strip()) for line in raw.split(b"\n"))
    if style.form in ("csv", "tsv") and b'"' in raw:
        return None
    lines = [line for line in raw.split(b"\n") if line]
    starts = bool(re.match(rb"sep=.$", lines[0], re.DOTALL))
    has_names = style.has_header and not style.form.startswith("movielens")
    return len(lines) - starts - has_names


@files(0.35)
@given(
    worlds(is_clean=True).flatmap(
        lambda world: styles().flatmap(
            lambda style: st.tuples(
                st.just(world),
                st.just(style),
                st.booleans(),
                st.integers(0, 5).map(bool),
                damages(is_json=style.form in ("json", "jsonl", "python")),
            )
        )
    )
)
def test_a_damaged_file_is_refused_in_one_line_or_all_its_rows_are_accounted_for(
    case: tuple[World, Style, bool, bool, list[Damage]],
) -> None:
    world, style, hits_items, is_inside, damage = case
    world = fit(world, style)
    with shop() as (folder, out):
        config = DataConfig(**write(world, style, folder))
        path = sorted(folder.iterdir())[-1 if hits_items else 0]
        raw = path.read_bytes()
        raw = UNPACK[style.compression](raw) if is_inside else raw
        for one in damage:
            raw = one.apply(raw)
        path.write_bytes(COMPRESSIONS[style.compression](raw) if is_inside else raw)
        read = check_untold(config, out)
        is_of_items = re.match(r"items|movies|u\.item|data\.item", path.name)
        table = "items" if is_of_items else "interactions"
        if table in read:
            assert read[table] == (rows_in(path, style) or read[table])


@files(0.15)
@given(
    world=worlds(is_clean=True),
    roles=st.dictionaries(
        st.sampled_from(["user", "item", "time", "rating", "kind", "title"]),
        st.sampled_from(sorted(odd_columns(1, 0))),
        max_size=2,
    ),
    seed=st.integers(0, 999),
    hits_items=st.booleans(),
    least=st.sampled_from([None, 1.0]),
    kinds=st.sampled_from([None, None, {"event_type": ["buy"]}, {"event_type": [1, True]}]),
    form=st.sampled_from([None, None, "%Y"]),
)
def test_columns_of_any_type_are_refused_in_one_line_or_all_rows_are_accounted_for(
    world: World,
    roles: dict[str, str],
    seed: int,
    hits_items: bool,
    least: float | None,
    kinds: dict[str, Any] | None,
    form: str | None,
) -> None:
    style = Style("parquet", seed=seed)
    with shop() as (folder, out):
        keys = write(world, style, folder)
        keys |= {"min_rating": least, "keep": kinds, "timestamp_format": form}
        path = sorted(folder.iterdir())[-1 if hits_items else 0]
        table = pq.read_table(path)
        odd = odd_columns(len(table), seed)
        for role, kind in roles.items():
            if (name := style.names[role]) in table.column_names:
                table = table.set_column(table.column_names.index(name), name, odd[kind])
        for name, column in odd.items():
            table = table.append_column(f"odd {name}", column)
        pq.write_table(table, path)
        check_untold(DataConfig(**keys), out)
