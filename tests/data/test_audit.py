"""What the audit says of clean data, and of data with one fault planted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import DatasetDict

from benchmarks.audit.worlds import FAULTS, World, clean_world
from delrec_hf.data.audit import evidence
from delrec_hf.data.audit.checks import DATA_CHECKS, EXAMPLE_CHECKS, look, table, worst_first
from delrec_hf.data.audit.evidence import Evidence
from delrec_hf.data.audit.finding import TESTS, Finding
from delrec_hf.data.audit.order import ascents
from delrec_hf.data.config import DataConfig
from delrec_hf.data.interactions import read_interactions
from delrec_hf.data.prepared import build
from delrec_hf.data.toy_world import TOY_WORLDS
from delrec_hf.teachers import audit as teachers_audit

ALL = (*DATA_CHECKS, *EXAMPLE_CHECKS)

Read = Callable[..., Evidence]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """A function that writes a world as files and reads it back."""

    def of(world: World, **keys: Any) -> Evidence:
        world.events.to_csv(tmp_path / "interactions.csv", index=False)
        world.items.to_csv(tmp_path / "items.csv", index=False)
        config = DataConfig(path=str(tmp_path), **keys)
        source = read_interactions(config)
        return Evidence(source, build(config, source))

    return of


def codes(findings: list[Finding]) -> list[str]:
    return [one.code for one in findings if one.code != "trivial-baseline"]


@pytest.mark.parametrize("kind", [{}, {"repeats": True, "by_user": False}, {"series": True}])
def test_clean_data_raise_no_alarm(kind: dict[str, Any], read: Read) -> None:
    found = look(ALL, read(clean_world(3, users=300, items=200, **kind)))
    assert codes(found) == []
    assert [one.severity for one in found] == ["info"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TOY_WORLDS)
def test_the_toy_worlds_are_clean(name: str) -> None:
    config = DataConfig(path=name)
    source = read_interactions(config)
    assert codes(look(ALL, Evidence(source, build(config, source)))) == []


@pytest.mark.slow
def test_twenty_clean_sets_of_all_sizes_raise_no_alarm(read: Read) -> None:
    found = [
        look(ALL, read(clean_world(seed, users=60 * 2 ** (seed % 6), habit=seed % 4 / 4)))
        for seed in range(100, 120)
    ]
    assert [codes(one) for one in found] == [[]] * 20


@pytest.mark.parametrize("code", FAULTS)
def test_a_planted_fault_is_named_and_no_info(code: str, read: Read) -> None:
    world = clean_world(5, users=300, items=200)
    strength = 1.0 if code == "order-coded-ids" else 0.5  # few pairs of ids, as sets are small
    found = look(DATA_CHECKS, read(FAULTS[code](world, strength, np.random.default_rng(0))))
    (named,) = [one for one in found if one.code == code]
    assert named.severity in ("warning", "error")
    assert abs(named.value - named.expected) > 0.01


def test_a_tiny_but_certain_fault_is_an_info(read: Read) -> None:
    world = clean_world(5, users=1000, items=200, habit=0.0)
    few = FAULTS["sorted-by-id"](world, 0.04, np.random.default_rng(0))
    (named,) = [one for one in look(DATA_CHECKS, read(few)) if one.code == "sorted-by-id"]
    assert named.severity == "info"


def test_copies_are_counted_among_the_rows_that_are_looked_at(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "MOST", 2000)  # of 8000
    world = clean_world(5, users=600, habit=0.0)
    twice = FAULTS["repeated-interactions"](world, 0.02, np.random.default_rng(0))
    (named,) = [x for x in look(DATA_CHECKS, read(twice)) if x.code == "repeated-interactions"]
    assert named.value == pytest.approx(0.02, abs=0.01)


def test_identical_times_are_no_order_even_of_few_users(read: Read) -> None:
    world = clean_world(5, users=8, items=60)
    still = replace(world, events=world.events.assign(timestamp=5))
    found = look(DATA_CHECKS, read(still))
    assert ("shared-timestamps", "error", 1.0) in [(x.code, x.severity, x.value) for x in found]


def test_ten_second_times_are_not_taken_for_rounded_floats(read: Read) -> None:
    world = clean_world(5, users=300, items=200)
    coarse = world.events["timestamp"] // 20 * 20
    coarse_world = replace(world, events=world.events.assign(timestamp=coarse))
    assert "order-lost" not in codes(look(DATA_CHECKS, read(coarse_world)))


def test_the_variance_of_ascents_is_that_of_permuted_labels() -> None:
    generator = np.random.default_rng(0)
    leads_to = generator.integers(40, size=40)
    before = generator.integers(40, size=3000) ** 2 // 40  # favourites, always one way
    after = np.where(
        generator.random(3000) < 0.7, leads_to[before], generator.integers(40, size=3000)
    )
    shares, tails = [], []
    for _ in range(400):
        found = ascents(before, after, generator.permutation(40))
        shares.append(found.share)
        tails.append(found.tail)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.01)
    assert np.mean(np.array(tails) < 0.1) == pytest.approx(0.1, abs=0.05)
    coins = np.std(np.array(shares)) / (0.5 / np.sqrt(3000))
    assert coins > 2  # what a test of tossed coins would have taken for certainty


def test_no_more_is_asked_of_chance_than_is_paid_for() -> None:
    assert sum(check.tests for check in ALL) + teachers_audit.TESTS + 3 <= TESTS


def tampered(data: Evidence, change: Callable[[dict[str, Any], int], None]) -> list[Finding]:
    """Audit examples of which every other one was changed."""
    parts = {}
    for part, rows in data.prepared.examples.items():
        changed = rows.to_dict()
        for row in range(0, len(rows), 2):
            change(changed, row)
        parts[part] = rows.from_dict(changed, features=rows.features)
    return look(
        EXAMPLE_CHECKS, replace(data, prepared=replace(data.prepared, examples=DatasetDict(parts)))
    )


def test_examples_that_give_their_target_away_are_errors(read: Read) -> None:
    data = read(clean_world(5, users=300, items=200))

    def show(table: dict[str, Any], row: int) -> None:
        table["history"][row][-1] = table["target"][row]

    def in_front(table: dict[str, Any], row: int) -> None:
        others = [one for one in table["candidates"][row] if one != table["target"][row]]
        table["candidates"][row] = [table["target"][row], *others]

    def twice(table: dict[str, Any], row: int) -> None:
        table["candidates"][row][:2] = [table["target"][row]] * 2

    rare = np.argsort(data.popularity)[:60].tolist()

    def unknown(table: dict[str, Any], row: int) -> None:
        target, places = table["target"][row], table["candidates"][row]
        free = iter(
            one
            for one in rare
            if one != target
            and data.positions(
                np.array([data.sequences.user_ids.index(table["user_id"][row])]), np.array([one])
            )[0]
            < 0
        )
        table["candidates"][row] = [one if one == target else next(free) for one in places]

    for change, code, value in (
        (show, "leaked-target", 0.5),
        (in_front, "candidates-give-away-target", 0.5),
        (twice, "candidates-give-away-target", 0.5),
    ):
        (found,) = tampered(data, change)[:1]
        assert (found.code, found.severity) == (code, "error")
        assert found.value == pytest.approx(value, abs=0.1)
    (found,) = tampered(data, unknown)
    assert found.code == "candidates-give-away-target"
    assert found.value > found.expected + 0.1


def test_a_rule_that_solves_the_task_is_a_warning(read: Read) -> None:
    users, steps = 200, 8
    starts = np.random.default_rng(0).integers(300, size=users)
    items = (starts[:, None] + np.arange(steps)) % 300
    events = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), steps),
            "item_id": items.ravel(),
            "timestamp": np.tile(np.arange(steps), users),
        }
    )
    titles = [f"Tale Of {number}" for number in range(300)]
    world = World(events, pd.DataFrame({"item_id": np.arange(300), "title": titles}))
    found = {one.code: one for one in look(DATA_CHECKS, read(world))}
    assert found["trivial-baseline"].severity == "warning"
    assert found["trivial-baseline"].value > 0.9
    assert found["order-coded-ids"].severity == "error"


def test_the_table_tells_the_worst_first_and_what_is_clean() -> None:
    mild = Finding("duplicate-titles", "info", 0.001, 0.0, "Some titles.")
    bad = Finding("sorted-by-id", "error", 1.0, 0.5, "All steps go up.")
    told = table([mild, bad], [check.code for check in ALL])
    assert told.index("sorted-by-id") < told.index("duplicate-titles") < told.index("found clean:")
    assert "order-lost" in told
    assert worst_first([mild, bad]) == [bad, mild]
