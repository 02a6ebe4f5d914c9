"""Inputs as people have them: a made-up shop in the shape of public reports and exports."""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

WORDS = ("Tin", "Oak", "Moss", "Fern")
TITLES = [f"{word} {thing}" for word in WORDS for thing in ("Kettle", "Bridge", "Parade")]
EVENTS = [
    (f"u{user}", (3 * user + step) % 12, 1_500_000_000 + user * 777_600 + step * 108_000)
    for user in range(6)
    for step in range(6)
]
"""Six users with six items each: (user, item, seconds since 1970)."""

Files = Mapping[str, str | bytes]


@dataclass(frozen=True)
class Input:
    """One input and what comes of it.

    Attributes:
        name: What it is.
        files: File names to contents.
        says: What a line of the account says, or the refusal.
        keys: Recipe keys.
        path: File of the folder that `data.path` names, if it is not the folder.
        refused: Whether it is refused.
        kept: How many interactions are left.
        first: The first user's titles, where they are not the shop's.
    """

    name: str
    files: Files
    says: str
    keys: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    refused: bool = False
    kept: int = 36
    first: list[str] | None = None


def events(
    header: str = "user_id,item_id,timestamp",
    time: Callable[[int], str] = str,
    *,
    extra: Callable[[int], str] | None = None,
    item: Callable[[int], str] = str,
    after: str = "",
) -> str:
    """Write the events as csv."""
    lines = [header] if header else []
    for row, (user, number, moment) in enumerate(EVENTS):
        more = "" if extra is None else f",{extra(row)}"
        lines.append(f"{user},{item(number)},{time(moment)}{more}")
    return "\n".join(lines) + "\n" + after


def items(header: str = "item_id,title", **other: str) -> str:
    """Write the items as csv; `t3="..."` gives item 3 another title."""
    rows = [f"{row},{other.get(f't{row}', title)}" for row, title in enumerate(TITLES)]
    return "\n".join([header, *rows]) + "\n"


def lines(rows: list[dict[str, Any]], write: Callable[[Any], str] = json.dumps) -> str:
    """Write one object a line."""
    return "".join(write(row) + "\n" for row in rows)


def dated(form: str) -> Callable[[int], str]:
    """Return what writes a moment in a form of strptime, in quotes."""
    return lambda moment: f'"{pd.Timestamp(moment, unit="s").strftime(form)}"'


def parquet(columns: dict[str, Any]) -> bytes:
    """Write a parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def shop(interactions: str | bytes, catalogue: str | bytes | None = None) -> Files:
    """Return a folder of two csv files."""
    return {"interactions.csv": interactions, "items.csv": catalogue or items()}


def rated(least: int) -> Callable[[int], str]:
    """Return what rates every third event one below the least."""
    return lambda row: str(least - 1 if row % 3 == 0 else least)


def reviews(**names: str) -> list[dict[str, Any]]:
    """Return the events as objects: `user="reviewerID"` names a column."""
    return [
        {names["user"]: user, names["item"]: f"B{item:03d}", names["time"]: moment, "text": "x"}
        for user, item, moment in EVENTS
    ]


def meta(item: str, title: str) -> list[dict[str, Any]]:
    """Return the items as objects."""
    return [{item: f"B{row:03d}", title: one, "brand": ""} for row, one in enumerate(TITLES)]


def impressions() -> str:
    """Write MIND's behaviors: five clicks before, one at a time, one item that was only shown."""
    rows = []
    for user in range(6):
        clicks = [f"B{(3 * user + step) % 12:03d}" for step in range(6)]
        time = f"11/{10 + user}/2019 9:05:58 AM"
        rows.append(f"{user}\tu{user}\t{time}\t{' '.join(clicks[:5])}\t{clicks[5]}-1 B000-0\n")
    return "".join(rows)


def lists() -> str:
    """Write RecBole's sequential file: a row for each beginning of a user's items."""
    rows = [
        f"u{user}\t{' '.join(str((3 * user + step) % 12) for step in range(count))}"
        f"\t{(3 * user + count) % 12}\n"
        for user in range(6)
        for count in range(1, 6)
    ]
    return "session_id:token\titem_id_list:token_seq\titem_id:token\n" + "".join(rows)


def in_two_columns(moment: int) -> str:
    """Write the date, and the time of day as a number: 2359, or 5 for five past midnight."""
    time = pd.Timestamp(moment, unit="s")
    return f"{time.date()},{time.hour * 100 + time.minute}"


_DAY_AND_MONTH = events(time=lambda moment: f"0{1 + moment % 7}/0{1 + moment // 108_000 % 9}/2020")
_WITH_KIND = events(
    "user_id,item_id,timestamp,event_type", extra=lambda row: "view" if row % 3 == 0 else "buy"
)
_FAULTS = "u1,2\n,3,5\nu1,4,yesterday\nu2,99,7\nu2,98,7\n"
_LONG = {
    "interactions.jsonl": lines(
        [{"user_id": u, "item_id": 10**20 + i, "timestamp": t} for u, i, t in EVENTS]
    ),
    "items.jsonl": lines([{"item_id": 10**20 + i, "title": t} for i, t in enumerate(TITLES)]),
}
_AMAZON = reviews(user="user_id", item="parent_asin", time="timestamp")
_HEADLINES = [{**row, "title": f"Nice {place}"} for place, row in enumerate(_AMAZON)]
_QUOTED = events("user_id,item_id,timestamp,title", extra=lambda row: TITLES[EVENTS[row][1]])
_AMAZON_18 = reviews(user="reviewerID", item="asin", time="unixReviewTime")

INPUTS = [
    Input(
        "rows that repeat",
        shop(events(after="u0,1,1500108000\nu0,2,1500216000\n")),
        "interactions that repeat another's user, item and time: 2",
    ),
    Input(
        "an item met again",
        shop(events(after="u0,0,1600000000\n")),
        "interactions with an item that the user met at another time as well: 1",
    ),
    Input(
        "an item met again, the last time counts",
        shop(events(after="u0,0,1600000000\n")),
        "interactions with an item that the user met at another time as well: 1",
        {"repeats": "last"},
        first=[*TITLES[1:6], TITLES[0]],
    ),
    Input(
        "Amazon 2023, the file of reviews",
        {"Toys.jsonl": lines(_HEADLINES), "meta_Toys.jsonl": lines(meta("parent_asin", "title"))},
        "items: 12 rows of shop/meta_Toys.jsonl: item from `parent_asin`, title from `title`",
        path="Toys.jsonl",
    ),
    Input(
        "Amazon 2023, reviews without their meta",
        {"Toys.jsonl": lines(_HEADLINES)},
        "12 of 12 items have several titles",
        path="Toys.jsonl",
        refused=True,
    ),
    Input(
        "Amazon 2018, gaps in the meta",
        {
            "Toys_5.json.gz": gzip.compress(lines(_AMAZON_18).encode()),
            "meta_Toys.json.gz": gzip.compress(
                lines([*meta("asin", "title")[1:], {"asin": "B000"}]).encode()
            ),
        },
        "items without a title in column `title`: 1",
        refused=True,
    ),
    Input(
        "Amazon 2018, gaps left out",
        {
            "Toys_5.json": lines(_AMAZON_18),
            "meta_Toys.json": lines([*meta("asin", "title")[1:], {"asin": "B000"}] * 2),
        },
        "interactions with items that have no row or no title: 3",
        {"drop_unusable": True},
        kept=33,
        first=TITLES[1:6],
    ),
    Input(
        "Amazon 2014, meta as Python dicts",
        {
            "reviews_Toys_5.json": lines(_AMAZON_18),
            "meta_Toys.json": lines(meta("asin", "title"), repr),
        },
        "items: 12 rows of shop/meta_Toys.json (lines are Python dicts, not JSON)",
    ),
    Input(
        "Steam",
        {
            "steam_reviews.json": lines(
                [
                    {
                        "username": user,
                        "product_id": str(item),
                        "date": f"{dated('%F')(moment)}"[1:-1],
                    }
                    for user, item, moment in EVENTS
                ],
                repr,
            ),
            "steam_games.json": lines(
                [{"app_name": title, "id": str(row)} for row, title in enumerate(TITLES)], repr
            ),
        },
        "user from `username`, item from `product_id`, time from `date`",
    ),
    Input(
        "MIND",
        {
            "behaviors.tsv": impressions(),
            "news.tsv": "".join(
                f"B{row:03d}\tnews\tlocal\t{title}\tMade up.\thttp://x\t[]\t[]\n"
                for row, title in enumerate(TITLES)
            ),
        },
        "one row per click: each user's longest history, then the impressions that end in -1",
    ),
    Input(
        "no header",
        shop(events("")),
        "seems to have no header: its first line is `u0, 0, 1500000000`; name its columns with "
        "data.column_names",
        refused=True,
    ),
    Input(
        "no header, columns named",
        shop(events("")),
        "time from `when`",
        {"column_names": {"interactions": ["user", "item", "when"]}, "timestamp_column": "when"},
    ),
    Input(
        "tsv with titles that begin with a quote",
        {"interactions.tsv": _QUOTED.replace(",Oak Kettle", ',"Oak Kettle').replace(",", "\t")},
        "quotes that do not pair are text, on lines: 4",
        first=[*TITLES[:3], '"Oak Kettle', *TITLES[4:6]],
    ),
    Input(
        "csv with titles that begin and end with a quote",
        shop(events(), items(t3='"Oak Kettle', t8='Moss Parade"')),
        "quotes that do not pair are text, on lines: 1",
        first=[*TITLES[:3], '"Oak Kettle', *TITLES[4:6]],
    ),
    Input(
        "csv with a title on two lines",
        shop(events(), items(t3='"Oak\nKettle, Two"')),
        "items: 12 rows",
        first=[*TITLES[:3], "Oak Kettle, Two", *TITLES[4:6]],
    ),
    Input(
        "semicolons",
        shop(events().replace(",", ";")),
        "semicolons between columns",
    ),
    Input(
        "a spreadsheet's export with `sep=`",
        shop("sep=;\r\n" + events().replace(",", ";").replace("\n", "\r\n")),
        "semicolons between columns",
    ),
    Input("bars", shop(events().replace(",", "|")), "bars between columns"),
    Input(
        "another separator, named",
        shop(events().replace(",", "^"), items().replace(",", "^")),
        "'^' between columns",
        {"separator": "^"},
    ),
    Input(
        "Goodreads' times",
        shop(events("user_id,item_id,date_added", dated("%a %b %d %H:%M:%S -0700 %Y"))),
        "times: 2017-07-14 to 2017-09-03 (%a %b %d %H:%M:%S %z %Y)",
    ),
    Input(
        "times that end in UTC",
        shop(events(time=dated("%Y-%m-%d %H:%M:%S UTC"))),
        "times: 2017-07-14 to 2017-09-03 (ISO dates)",
    ),
    Input(
        "Amazon's `reviewTime`",
        shop(events("user_id,item_id,reviewTime", dated("%m %d, %Y"))),
        "times: 2017-07-14 to 2017-09-03 (%m %d, %Y)",
    ),
    Input(
        "dates whose day comes first",
        shop(events(time=dated("%d/%m/%Y %H:%M"))),
        "times: 2017-07-14 to 2017-09-03 (%d/%m/%Y %H:%M)",
    ),
    Input(
        "dates that do not tell day from month",
        shop(_DAY_AND_MONTH),
        "none tells whether the day or the month comes first; set data.timestamp_format",
        refused=True,
    ),
    Input(
        "times of another form, named",
        shop(events(time=dated("%Hh%M of %d.%m.%y"))),
        "(%Hh%M of %d.%m.%y)",
        {"timestamp_format": "%Hh%M of %d.%m.%y"},
    ),
    Input(
        "HTML in titles",
        shop(events(), items(t0="Tin &amp; Kettle", t1="<i>Tin</i> Bridge")),
        "titles with HTML, which is unescaped or left out: 2",
        first=["Tin & Kettle", *TITLES[1:6]],
    ),
    Input("UTF-16", shop(events().encode("utf-16")), "interactions.csv (utf-16-le)"),
    Input(
        "UTF-16 without a mark",
        shop(events().encode("utf-16-le")),
        "set data.encoding to utf-16-le or utf-16-be",
        refused=True,
    ),
    Input(
        "cp1252",
        shop(events(), items(t0="Tin Kéttle").encode("cp1252")),
        "is 0xe9; set data.encoding (often cp1252 or latin-1)",
        refused=True,
    ),
    Input(
        "cp1252, named",
        shop(events(), items(t0="Tin Kéttle").encode("cp1252")),
        "items.csv (cp1252)",
        {"encoding": "cp1252"},
        first=["Tin Kéttle", *TITLES[1:6]],
    ),
    Input(
        "a user who has met everything",
        shop(events(after="".join(f"all,{item},{item}\n" for item in range(12)))),
        "users who have met too many items to draw candidates for: 1",
    ),
    Input(
        "ratings below four",
        shop(events("user_id,item_id,timestamp,rating", extra=rated(4))),
        "interactions rated below data.min_rating: 12",
        {"min_rating": 4},
        kept=24,
        first=[TITLES[place] for place in (1, 2, 4, 5)],
    ),
    Input(
        "ratings that are not there",
        shop(events()),
        "data.min_rating is 4, but",
        {"min_rating": 4},
        refused=True,
    ),
    Input(
        "a log of several events",
        {"events.csv": _WITH_KIND, "items.csv": items()},
        "interactions that data.keep does not name: 12",
        {"keep": {"event_type": ["buy"]}},
        kept=24,
        first=[TITLES[place] for place in (1, 2, 4, 5)],
    ),
    Input(
        "a log without the event that is named",
        {"events.csv": _WITH_KIND, "items.csv": items()},
        "names `bye` of `event_type`, which no row of",
        {"keep": {"event_type": ["bye"]}},
        refused=True,
    ),
    Input(
        "users with few items",
        shop(events(after="new,1,1\nnew,2,2\nnew,3,3\n")),
        "users with too few interactions: 1",
        {"min_user_interactions": 5, "min_item_interactions": 2},
    ),
    Input(
        "ids above 2^64",
        _LONG,
        "interactions: 36 rows of shop/interactions.jsonl",
    ),
    Input(
        "32-bit times",
        {
            "interactions.parquet": parquet(
                {
                    "user_id": pa.array([one[0] for one in EVENTS]).dictionary_encode(),
                    "item_id": [float(one[1]) for one in EVENTS],
                    "timestamp": pa.array(
                        [1_500_000_000.0 + one[2] % 7 for one in EVENTS], pa.float32()
                    ),
                }
            ),
            "items.csv": items(),
        },
        "100.0% of steps within a user tied; the column holds 32-bit floats",
    ),
    Input(
        "spaces before quoted values",
        shop(events(), "item_id, title\n" + "".join(f'{n}, "{t}"\n' for n, t in enumerate(TITLES))),
        "spaces before quoted values are left out",
    ),
    Input(
        "columns `date` and `time`",
        shop(events("user_id,item_id,date,time", in_two_columns)),
        "time from `date` and `time`",
    ),
    Input(
        "times of day alone",
        shop(events("user_id,item_id,time", dated("%H:%M"))),
        "holds times of day without a date",
        refused=True,
    ),
    Input(
        "columns `u`, `i`, `t`",
        shop(events("u,i,t")),
        "user from `u`, item from `i`, time from `t`",
    ),
    Input(
        "H&M",
        {
            "transactions_train.csv": events("customer_id,article_id,t_dat", dated("%Y-%m-%d")),
            "articles.csv": items("article_id,prod_name"),
            "customers.csv": "customer_id\nu0\n",
        },
        "items: 12 rows of shop/articles.csv: item from `article_id`, title from `prod_name`",
    ),
    Input(
        "Yelp",
        {
            "yelp_academic_dataset_review.json": lines(
                reviews(user="user_id", item="business_id", time="date")
            ),
            "yelp_academic_dataset_business.json": lines(meta("business_id", "name")),
            "yelp_academic_dataset_user.json": "{}\n",
        },
        "items: 12 rows of shop/yelp_academic_dataset_business.json: item from `business_id`",
    ),
    Input(
        "Last.fm",
        {
            "interactions.tsv": "".join(
                f"{user}\t{pd.Timestamp(moment, unit='s').isoformat()}Z\tx\tBand\tB{item}\t"
                f"{TITLES[item]}\n"
                for user, item, moment in EVENTS
            )
        },
        "item from `traid`, time from `timestamp`, title from `traname`",
        {
            "column_names": {
                "interactions": ["userid", "timestamp", "artid", "artname", "traid", "traname"]
            },
            "item_column": "traid",
            "title_column": "traname",
        },
    ),
    Input(
        "RecBole's sequences",
        {
            "shop.inter": lists(),
            "shop.item": items("item_id:token,title:token_seq").replace(",", "\t"),
        },
        "one row per item of `item_id_list`, each user's longest of 30 rows; times are places",
    ),
    Input(
        "lines of another length",
        shop(events(after="u1,2\nu1,2,3,4\n")),
        "lines with another number of values than columns: 2, first",
        refused=True,
    ),
    Input(
        "five faults at once",
        shop(events(after=_FAULTS)),
        "4 problems, the worst first: (1) interactions with items that",
        refused=True,
    ),
    Input(
        "five faults at once, left out",
        shop(events(after=_FAULTS)),
        "interactions without a user, an item or a time: 2",
        {"drop_unusable": True},
    ),
    Input(
        "nothing that is known",
        {"interactions.csv": "a,b,c\n1,2,3\n", "items.csv": "x,y\n1,2\n"},
        "5 problems, the worst first: (1)",
        refused=True,
    ),
]
