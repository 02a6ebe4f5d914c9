"""What was read and how it was taken, and what was left out: for the log and `info.json`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from delrec_hf.data.columns import ColumnNames
from delrec_hf.data.filters import codes
from delrec_hf.data.readers import Table
from delrec_hf.data.times import moment
from delrec_hf.data.values import TimeColumns
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

LEFT_OUT = {
    "broken_lines": "lines of interactions with another number of values than columns",
    "below_min_rating": "interactions rated below data.min_rating",
    "without_rating": "interactions without a rating",
    "other_events": "interactions that data.keep does not name",
    "unusable_rows": "interactions without a user, an item or a time",
    "exact_repeats": "interactions that repeat another's user, item and time",
    "repeated_interactions": "interactions with an item that the user met at another time as well",
    "interactions_outside_core": "interactions of users or items with too few of them",
    "users_outside_core": "users with too few interactions",
    "interactions_with_unknown_items": "interactions with items that have no row or no title",
    "items_outside_core": "items with too few interactions",
    "broken_item_lines": "lines of items with another number of values than columns",
    "unusable_item_rows": "rows of items without an id",
    "items_without_title": "items without a title",
    "repeated_item_rows": "rows that repeat an item and its title",
    "contradicting_item_rows": "rows that give an item another title than an earlier one",
    "users_with_short_histories": "users with fewer than 3 different items",
    "interactions_of_these_users": "interactions of these users",
    "users_without_candidates": "users who have met too many items to draw candidates for",
    "interactions_without_candidates": "interactions of these users",
}
"""What may be left out, as `info.json` counts it."""


def describe(
    events: Table, catalogue: Table | None, names: ColumnNames, time: tuple[str, ...]
) -> list[str]:
    """Return the lines that say which file and which columns were taken for what.

    Args:
        events: The interactions.
        catalogue: The items, where they have a table of their own.
        names: Their columns.
        time: The columns of the times.
    """
    taken: dict[str, str | None] = {
        "user": names.user,
        "item": names.item,
        "time": "` and `".join(time),
    }
    taken["rating"] = names.rating
    if catalogue is None:
        taken["title"] = names.title
    lines = [_line("interactions", events, taken)]
    if catalogue is not None:
        columns = {"item": names.catalogue_item, "title": names.title}
        lines.append(_line("items", catalogue, columns))
    return lines


def about_times(rows: pa.Table, times: TimeColumns) -> str:
    """Return a line with the first and last date and the share of steps without an order.

    Args:
        rows: `user_id` and `timestamp` of what is kept.
        times: How the times were read.
    """
    if not rows.num_rows:
        return "times: none"
    numbers = rows["timestamp"].to_numpy()
    first, last = (moment(one.item(), times.times.unit) for one in (numbers.min(), numbers.max()))
    share = tied_share(rows)
    line = f"times: {first} to {last} ({times.times.form}); {share:.1%} of steps within a user tied"
    if times.is_short:
        line += "; the column holds 32-bit floats, which are exact to about two minutes at best"
    return line


def tied_share(rows: pa.Table) -> float:
    """Return the share of steps between a user's interactions at one and the same time."""
    users, times = codes(rows["user_id"]), rows["timestamp"].to_numpy()
    order = np.lexsort((times, users))
    steps = np.diff(users[order]) == 0
    tied = steps & (np.diff(times[order]) == 0)
    return float(tied.sum() / max(1, steps.sum()))


def log_times(line: str, rows: pa.Table, times: TimeColumns) -> None:
    """Log the line about times, as a warning where their order is lost."""
    if times.is_short or tied_share(rows) > 0.5:
        logger.warning("%s; tied items are in the order of the file", line)
    else:
        logger.info("%s", line)


def listed(left_out: Mapping[str, int]) -> list[str]:
    """Return what was left out and how much of it, without what was not."""
    return [f"{LEFT_OUT[name]}: {left_out[name]}" for name in LEFT_OUT if left_out.get(name)]


def log_left_out(left_out: Mapping[str, int]) -> None:
    """Log each number of what was left out."""
    for line in listed(left_out):
        logger.warning("left out: %s", line)


def _line(what: str, table: Table, columns: Mapping[str, str | None]) -> str:
    notes = f" ({'; '.join(table.notes)})" if table.notes else ""
    taken = ", ".join(f"{kind} from `{name}`" for kind, name in columns.items() if name)
    broken = sum(fault.rows for fault in table.faults)
    rows = table.data.num_rows + broken
    return f"{what}: {rows} rows of {_short(table.label)}{notes}: {taken}"


def _short(label: str) -> str:
    path = Path(label)
    return f"{path.parent.name}/{path.name}" if path.parent.name else label
