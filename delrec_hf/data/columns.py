"""Which column is which."""

import re
from dataclasses import dataclass

from delrec_hf.data.config import DataConfig
from delrec_hf.data.problems import Problems, listed
from delrec_hf.data.readers import Table
from delrec_hf.data.separated import looks_like_values
from delrec_hf.errors import suggest

_ALIASES = {
    "user": (
        "user_id user uid user_name reviewer_id customer_id customer visitor_id member_id "
        "session_id reviewer_name u"
    ),
    "item": (
        "item_id item iid movie_id book_id game_id product_id parent_asin asin isbn app_id "
        "track_id tra_id song_id artist_id art_id anime_id article_id news_id video_id business_id "
        "content_id stock_code product_code sku movie book game product i"
    ),
    "timestamp": (
        "timestamp time ts unix_review_time unix_time date_time datetime created_at event_time "
        "rating_timestamp rated_at date review_date review_time date_added order_date invoice_date "
        "purchase_date t_dat t"
    ),
    "title": (
        "title item_title movie_title book_title game_title product_title name item_name "
        "movie_name product_name prod_name app_name track_name tra_name song_name artist_name "
        "art_name"
    ),
    "rating": "rating overall stars book_rating score",
    "day": "date day event_date order_date review_date t_dat",
}
"""Names a column is known by, the likeliest first; case and signs do not count: userId, USER-ID."""


def find_column(table: Table, kind: str, given: str | None = None, also: str = "") -> str | None:
    """Find the column of a kind (user, item, timestamp, title, rating, day).

    Args:
        table: Where to look.
        kind: What is looked for.
        given: The column's name, where the user has set it and the table has it.
        also: Further names, after the known ones.

    Returns:
        The column's name, or None if there is none.
    """
    names = table.data.column_names
    if given in names:
        return given
    by_key = {_key(name): name for name in reversed(names)}
    known = (_key(alias) for alias in f"{_ALIASES[kind]} {also}".split())
    return next((by_key[key] for key in known if key in by_key), None)


def missing_column(table: Table, kind: str, given: str | None = None) -> str:
    """Say that a table lacks a column, which ones it has, and which key to set."""
    names = table.data.column_names
    found = listed(names)
    if not given and table.has_header and looks_like_values(names):
        table_name = "items" if kind == "title" else "interactions"
        return (
            f"{table.label} seems to have no header: its first line is `{found}`; name its "
            f"columns with data.column_names, as in `{{{table_name}: "
            f"[{_as_many_names(table_name, len(names))}]}}`"
        )
    what = f"no column `{given}`" if given else f"no column known as {kind}"
    cure = "" if given else f"; set data.{kind}_column to the right one"
    if len(names) == 1 and table.has_header and not given:
        cure += ", or data.separator to what stands between the columns"
    hint = suggest(given, names) if given else ""
    return f"{table.label} has {what}; found {found}{hint}{cure}"


@dataclass(frozen=True)
class ColumnNames:
    """Which columns hold what.

    Attributes:
        user: Of the interactions.
        item: Of the interactions.
        time: Of the interactions.
        rating: Of the interactions, if there is one.
        title: Of the items, or of the interactions where there is no table of items.
        catalogue_item: The items' own id, where there is a table of items.
    """

    user: str
    item: str
    time: str
    rating: str | None
    title: str
    catalogue_item: str | None


def find_columns(config: DataConfig, events: Table, catalogue: Table | None) -> ColumnNames:
    """Find every column that is needed.

    Raises:
        InputError: If one is missing: all that are, in one message.
    """
    problems = Problems()
    for kind in ("user", "item", "timestamp", "title", "rating"):
        given = getattr(config, f"{kind}_column")
        tables = [one for one in (events, catalogue) if one is not None]
        if given and not any(given in table.data.column_names for table in tables):
            table = tables[-1] if kind == "title" else events
            problems.add(missing_column(table, kind, given))
    problems.refuse()

    def find(table: Table, kind: str, also: str = "") -> str:
        found = find_column(table, kind, getattr(config, f"{kind}_column"), also)
        if found is None:
            problems.add(missing_column(table, kind))
        return found or ""

    user, item, time = (find(events, kind) for kind in ("user", "item", "timestamp"))
    rating = find_column(events, "rating", config.rating_column)
    if catalogue is not None:
        catalogue_item, title = find(catalogue, "item", also="id"), find(catalogue, "title")
        problems.refuse()
        return ColumnNames(user, item, time, rating, title, catalogue_item)
    title = find_column(events, "title", config.title_column) or ""
    if not title:
        problems.add(
            f"no table of items beside {events.label}, and no column of titles in it (found "
            f"{listed(events.data.column_names)}); set data.items to the items' file, or "
            "data.title_column"
        )
    problems.refuse()
    return ColumnNames(user, item, time, rating, title, None)


def _as_many_names(table: str, count: int) -> str:
    usual = ["item_id", "title"] if table == "items" else ["user_id", "item_id", "rating", "time"]
    names = (usual if count != 3 or table == "items" else ["user_id", "item_id", "time"])[:count]
    return listed([*names, *(f"column_{place + 1}" for place in range(len(names), count))])


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
