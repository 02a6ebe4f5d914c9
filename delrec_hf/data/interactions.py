"""Who took which item when, read from wherever it lies, checked and filtered."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from delrec_hf.data.account import about_times, describe, listed, log_left_out, log_times
from delrec_hf.data.columns import ColumnNames, find_columns
from delrec_hf.data.config import DataConfig
from delrec_hf.data.expanded import one_row_each
from delrec_hf.data.filters import (
    BoolArray,
    codes,
    core,
    first_of_moment,
    one_of_each,
    rated_enough,
    with_values,
)
from delrec_hf.data.items import items_of_interactions, read_items
from delrec_hf.data.problems import Problems, shown
from delrec_hf.data.readers import Table
from delrec_hf.data.sources import read_tables
from delrec_hf.data.times import NO_TIME
from delrec_hf.data.titles import count_markup
from delrec_hf.data.values import (
    TimeColumns,
    bad_value,
    rating_numbers,
    read_ids,
    read_time_columns,
    time_columns,
)
from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class Source:
    """What was read.

    Attributes:
        interactions: In file order: `user_id`, `item_id` (string), `timestamp` (int64 or float64),
            `rating` (float64) where there is one. No user has an item twice.
        events: What they were chosen from, repeats and all: `user_id`, `item_id`, `timestamp`.
        items: In file order: `item_id`, `title` (string, as written) and all further columns.
        left_out: What was not kept, by the names of `account.LEFT_OUT`.
        reading: Lines that say what was read from where, and how it was taken.
    """

    interactions: Dataset
    events: pa.Table
    items: Dataset
    left_out: dict[str, int]
    reading: list[str]


def read_interactions(config: DataConfig) -> Source:
    """Read, check and filter interactions and items.

    Filters come in this order: ratings, kinds of events, exact repeats, repeats of an item, k-core,
    what cannot be used; then the k-core once more, so that it holds in the end. Without a table of
    items, the items are those of the interactions, which then need a title each.

    Raises:
        InputError: If something is missing, unreadable or contradictory: all that was found, the
            worst first, each with its number of rows and where it is first.
    """
    events, catalogue = read_tables(config)
    events = one_row_each(events, config)
    names = find_columns(config, events, catalogue)
    problems, left_out = Problems(list(events.faults)), Counter[str]()
    left_out["broken_lines"] += sum(fault.rows for fault in events.faults)
    time = time_columns(events, names.time, config.timestamp_column == names.time)
    reading = describe(events, catalogue, names, time)
    for line in reading:
        logger.info("%s", line)
    wanted = _wanted(events, names, config, left_out)
    bad, rows, times = _read(wanted, names, time, config, problems)
    left_out["unusable_rows"] += int(bad.sum())
    usable = wanted.where(~bad)
    met = rows.select(["user_id", "item_id", "timestamp"])
    marks = _counting(rows, config, left_out)
    if catalogue is None:
        usable = usable.where(marks)
        rows = rows.filter(pa.array(marks))
        items = items_of_interactions(usable, rows["item_id"], names.title, problems, left_out)
    else:
        rows = rows.filter(pa.array(marks))
        items = read_items(catalogue, str(names.catalogue_item), names.title, problems, left_out)
        _report_unknown_items(events, rows, catalogue, str(names.catalogue_item), problems)
    problems.refuse(all_but_droppable=config.drop_unusable)
    rows = _with_items(rows, items, config, left_out)
    items = _of_core(items, rows, config, left_out)
    if not rows.num_rows:
        raise InputError(
            f"no interaction of {events.label} is left; left out: {'; '.join(listed(left_out))}"
        )
    marked = count_markup(items["title"].to_pylist())
    if marked:
        reading.append(f"titles with HTML, which is unescaped or left out: {marked}")
        logger.info("%s", reading[-1])
    reading.append(about_times(rows, times))
    log_times(reading[-1], rows, times)
    log_left_out(left_out)
    interactions = Dataset(rows.drop_columns(["row"]))
    return Source(interactions, met, Dataset(items), dict(left_out), reading)


def _wanted(events: Table, names: ColumnNames, config: DataConfig, left_out: Counter[str]) -> Table:
    """Leave out what the recipe does not want, before anything else is asked of it."""
    if not events.data.num_rows and events.faults:
        return events
    if config.min_rating is not None:
        enough, without = rated_enough(events, names.rating, config.min_rating)
        left_out["without_rating"] += int(without.sum())
        left_out["below_min_rating"] += int((~enough & ~without).sum())
        events = events.where(enough)
    kept = with_values(events, config.kept_values())
    left_out["other_events"] += int((~kept).sum())
    events = events.where(kept)
    if not events.data.num_rows:
        raise InputError(
            f"no interaction of {events.label} is left after data.min_rating and data.keep; set "
            "others"
        )
    return events


def _read(
    events: Table,
    names: ColumnNames,
    clock: tuple[str, ...],
    config: DataConfig,
    problems: Problems,
) -> tuple[BoolArray, pa.Table, TimeColumns]:
    """Read ids, times and ratings.

    Returns:
        Which rows lack one of the first three; the others' `user_id`, `item_id`, `timestamp`,
        perhaps `rating`, and `row` of the source; where the times stand.
    """
    columns, bad = {}, np.zeros(events.data.num_rows, dtype=bool)
    time: TimeColumns | None = None
    for kind, column in (("user_id", names.user), ("item_id", names.item), ("", clock[0])):
        try:
            if kind:
                ids = read_ids(events, column)
                columns[kind], wrong, why = ids.texts, ids.bad, ids.why
            else:
                form = config.timestamp_format
                time = read_time_columns(events, clock, form)
                wrong, column = time.times.bad, time.bad_name
                why = NO_TIME if form is None else f"is not a time of the form `{form}`"
        except InputError as error:
            problems.add(str(error))
            continue
        if wrong.any():
            can_drop = not wrong.all()
            problems.add(bad_value(events, column, wrong, why), int(wrong.sum()), can_drop=can_drop)
        bad |= wrong
    if time is None or len(columns) < 2 or bad.all():
        problems.refuse()
        raise AssertionError("what cannot be read was refused")
    columns["timestamp"] = pa.chunked_array([pa.array(time.times.numbers)])
    ratings = None if names.rating is None else rating_numbers(events, names.rating)
    if ratings is not None:
        columns["rating"] = ratings
    numbers = np.arange(len(bad)) if events.numbers is None else events.numbers
    columns["row"] = pa.chunked_array([pa.array(numbers)])
    return bad, pa.table(columns).filter(pa.array(~bad)), time


def _counting(rows: pa.Table, config: DataConfig, left_out: Counter[str]) -> BoolArray:
    """Mark the rows that count: no repeats, and those of the k-core."""
    users, items = codes(rows["user_id"]), codes(rows["item_id"])
    times = rows["timestamp"].to_numpy()
    marks = first_of_moment(users, items, times)
    left_out["exact_repeats"] += int((~marks).sum())
    places = np.flatnonzero(marks)
    once = one_of_each(users[places], items[places], times[places], config.repeats)
    left_out["repeated_interactions"] += int((~once).sum())
    marks[places[~once]] = False
    places = places[once]
    inside = _core(users[places], items[places], config, left_out)
    marks[places[~inside]] = False
    return marks


def _core(
    users: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    items: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    config: DataConfig,
    left_out: Counter[str],
) -> BoolArray:
    inside = core(users, items, config.min_user_interactions, config.min_item_interactions)
    left_out["interactions_outside_core"] += int((~inside).sum())
    left_out["users_outside_core"] += len(np.unique(users)) - len(np.unique(users[inside]))
    return inside


def _report_unknown_items(
    events: Table, rows: pa.Table, catalogue: Table, column: str, problems: Problems
) -> None:
    ids = read_ids(catalogue, column)
    known = pc.unique(ids.texts.filter(pa.array(~ids.bad)))
    unknown = pc.invert(pc.is_in(rows["item_id"], value_set=known))
    count = pc.sum(unknown).as_py() or 0
    if count:
        row = pc.index(unknown, True).as_py()
        place = events.at_number(rows["row"][row].as_py())
        item = rows["item_id"][row]
        there = f"the first there is `{shown(known[0])}`" if len(known) else "there is none there"
        problems.add(
            f"interactions with items that {catalogue.label} does not hold: {count} of "
            f"{len(unknown)}, first {place}: item `{shown(item)}` (ids are compared as texts; "
            f"{there}); add the items or leave these interactions out",
            count,
            can_drop=count < len(unknown),
        )


def _with_items(
    rows: pa.Table, items: pa.Table, config: DataConfig, left_out: Counter[str]
) -> pa.Table:
    """Leave out interactions with items that are not in the catalogue, and take the core again."""
    known = pc.is_in(rows["item_id"], value_set=items["item_id"])
    lost = len(rows) - (pc.sum(known).as_py() or 0)
    if not lost:
        return rows
    left_out["interactions_with_unknown_items"] += lost
    rows = rows.filter(known)
    inside = _core(codes(rows["user_id"]), codes(rows["item_id"]), config, left_out)
    return rows.filter(pa.array(inside))


def _of_core(
    items: pa.Table, rows: pa.Table, config: DataConfig, left_out: Counter[str]
) -> pa.Table:
    """Leave out items without enough interactions, where the recipe asks for some."""
    if not config.min_item_interactions:
        return items
    met = pc.is_in(items["item_id"], value_set=pc.unique(rows["item_id"]))
    left_out["items_outside_core"] += len(items) - (pc.sum(met).as_py() or 0)
    return items.filter(met)
