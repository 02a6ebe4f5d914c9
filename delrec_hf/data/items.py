"""The catalogue: one row and one title per item."""

from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features

from delrec_hf.data.filters import BoolArray, IntArray, codes
from delrec_hf.data.problems import Problems, shown
from delrec_hf.data.readers import Table, written_out
from delrec_hf.data.titles import clean_title
from delrec_hf.data.values import bad_value, read_ids, title_texts


def read_items(
    catalogue: Table, item: str, title: str, problems: Problems, left_out: Counter[str]
) -> pa.Table:
    """Read a table of items.

    Rows that repeat an item and its title are one; the first counts, also for metadata.

    Args:
        catalogue: The table.
        item: Its column of ids.
        title: Its column of titles.
        problems: Gets rows without an id, items without a title, items with several titles.
        left_out: Gets the number of rows that are not returned.

    Returns:
        `item_id`, `title`, and all further columns, one row per item that has a title.
    """
    for fault in catalogue.faults:
        problems.found.append(fault)
        left_out["broken_item_lines"] += fault.rows
    ids = read_ids(catalogue, item)
    if ids.bad.any():
        problems.add(
            bad_value(catalogue, item, ids.bad, ids.why), int(ids.bad.sum()), can_drop=True
        )
        left_out["unusable_item_rows"] += int(ids.bad.sum())
    titles = title_texts(catalogue, title)
    bare = _bare(titles)
    numbers = codes(ids.texts)
    _report_without_title(catalogue, title, ids.texts, numbers, bare, ids.bad, problems, left_out)
    bare_rows = int((bare & ~ids.bad).sum())
    left_out["repeated_item_rows"] += bare_rows - left_out["items_without_title"]
    usable = np.flatnonzero(~bare & ~ids.bad)
    first = usable[np.sort(np.unique(numbers[usable], return_index=True)[1])]
    twins = np.setdiff1d(usable, first)
    if len(twins):
        _report_twins(catalogue, ids.texts, titles, numbers, first, twins, problems, left_out)
    columns = {"item_id": ids.texts, "title": titles}
    for name in catalogue.data.column_names:
        if name and name not in (item, title, "item_id", "title"):
            columns[name] = _storable(catalogue.column(name))
    return pa.table(columns).take(pa.array(first))


def items_of_interactions(
    events: Table, ids: pa.ChunkedArray, title: str, problems: Problems, left_out: Counter[str]
) -> pa.Table:
    """Take the items from a table of interactions that names them.

    Args:
        events: The interactions.
        ids: Their items' ids.
        title: Column of the titles.
        problems: Gets items without a title, and items with several: a column of headlines, say.
        left_out: Gets the number of items without a title.

    Returns:
        `item_id` and `title`, in order of the id: the order of the users must not matter.
    """
    titles = title_texts(events, title)
    bare = _bare(titles)
    numbers = codes(ids)
    nobody = np.zeros(len(bare), dtype=bool)
    _report_without_title(events, title, ids, numbers, bare, nobody, problems, left_out)
    usable = np.flatnonzero(~bare)
    first = usable[np.unique(numbers[usable], return_index=True)[1]]
    _report_several_titles(events, title, ids, titles, numbers, usable, first, problems)
    table = pa.table({"item_id": ids, "title": titles}).take(pa.array(first))
    return table.sort_by("item_id")


def _storable(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of metadata, as texts if `datasets` has no such type: maps, intervals."""
    try:
        Features.from_arrow_schema(pa.schema([("column", values.type)]))
    except ValueError:
        return written_out(values)
    return values


def _bare(titles: pa.ChunkedArray) -> BoolArray:
    """Mark titles of which nothing can be seen."""
    seen = [bool(title) and bool(clean_title(title)) for title in pc.unique(titles).to_pylist()]
    visible = pc.unique(titles).filter(pa.array(seen, pa.bool_()))
    return ~np.asarray(pc.is_in(titles, value_set=visible).to_numpy(), dtype=bool)


def _report_without_title(
    table: Table,
    column: str,
    ids: pa.ChunkedArray,
    numbers: IntArray,
    bare: BoolArray,
    bad: BoolArray,
    problems: Problems,
    left_out: Counter[str],
) -> None:
    """Report items none of whose rows has a title."""
    titled = np.zeros(numbers.max(initial=0) + 1, dtype=bool)
    titled[numbers[~bare & ~bad]] = True
    rows = np.flatnonzero(~titled[numbers] & ~bad)
    items = len(np.unique(numbers[rows]))
    if items:
        problems.add(
            f"items without a title in column `{column}`: {items}, first "
            f"{table.at(int(rows[0]))}: item `{shown(ids[int(rows[0])])}` has no title; every item "
            "needs one",
            items,
            can_drop=True,
        )
        left_out["items_without_title"] += items


def _report_twins(
    catalogue: Table,
    ids: pa.ChunkedArray,
    titles: pa.ChunkedArray,
    numbers: IntArray,
    first: IntArray,
    twins: IntArray,
    problems: Problems,
    left_out: Counter[str],
) -> None:
    """Count rows that repeat an item, and report those that give it another title."""
    row_of = np.zeros(numbers.max() + 1, dtype=np.int64)
    row_of[numbers[first]] = first
    earlier = titles.take(pa.array(row_of[numbers[twins]])).to_pylist()
    later = titles.take(pa.array(twins)).to_pylist()
    differs = np.array(
        [
            one != other and clean_title(one) != clean_title(other)
            for one, other in zip(earlier, later, strict=True)
        ]
    )
    left_out["repeated_item_rows"] += int((~differs).sum())
    if differs.any():
        place = int(differs.argmax())
        row = int(twins[place])
        before = int(row_of[numbers[row]])
        problems.add(
            f"rows that give an item another title than before: {int(differs.sum())}, first "
            f"{catalogue.at(row)} repeats item `{shown(ids[row])}` of row "
            f"{_number(catalogue, before)} (`{shown(later[place])}`, not "
            f"`{shown(earlier[place])}`); keep one row per item",
            int(differs.sum()),
            can_drop=True,
        )
        left_out["contradicting_item_rows"] += int(differs.sum())


def _report_several_titles(
    events: Table,
    column: str,
    ids: pa.ChunkedArray,
    titles: pa.ChunkedArray,
    numbers: IntArray,
    usable: IntArray,
    first: IntArray,
    problems: Problems,
) -> None:
    frame = pd.DataFrame({"item": numbers[usable], "title": codes(titles)[usable]})
    frame = frame.drop_duplicates()
    several = frame[frame["item"].duplicated(keep=False)].sort_values("item", kind="stable")
    texts = pc.unique(titles).to_pylist()
    found = [
        (item, [texts[one] for one in group])
        for item, group in several.groupby("item", sort=False)["title"]
    ]
    found = [(item, given) for item, given in found if len(set(map(clean_title, given))) > 1]
    if found:
        item, given = found[0]
        row = int(np.flatnonzero(numbers == item)[0])
        examples = ", ".join(f"`{shown(one)}`" for one in given[:3])
        problems.add(
            f"{len(found)} of {len(first)} items have several titles in {events.label} column "
            f"`{column}`, first item `{shown(ids[row])}`: {examples}; is it a review's headline? "
            "set data.items to a table with one title per item, or data.title_column"
        )


def _number(table: Table, row: int) -> int:
    return row + 1 if table.numbers is None else int(table.numbers[row]) + 1
