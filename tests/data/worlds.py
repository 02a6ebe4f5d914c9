"""Made-up datasets with awkward values, for hypothesis to draw from."""

import random
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.data.layouts import FORMS, PARQUET_IDS, PARQUET_TIMES, TIMES, Style, World
from tests.data.reference import Event
from tests.data.writers import COMPRESSIONS

_AWKWARD_IDS = (
    *("007", "7", "1", "1.0", "01", "-3", "+3", "1e5", "0x10", "NA", "nan", "null", "None", "true"),
    *(
        "a b",
        " 7",
        "7 ",
        "\u00a07",
        "\t7",
        "a  b",
        "ünï",
        "é",
        "e\u0301",
        "日本",
        "😀",
        "👨\u200d👩",
    ),
    *(
        'a"b',
        '"a"',
        '"',
        "'a'",
        "a,b",
        "a;b",
        "a|b",
        "a\tb",
        "a::b",
        "a\nb",
        "\\",
        "\\n",
        "#1",
        "=1",
    ),
    *(
        "[1]",
        "{a}",
        "%s",
        "{}",
        "x" * 300,
        "שלום",
        "\u200fa",
        "-",
        "user_id",
        "sep=,",
        "\ufeffa",
        "a\x00b",
    ),
)
_AWKWARD_TITLES = (
    *("Heat (1995)", "Shawshank Redemption, The", 'Say "Cheese"', '"Quoted"', '"', "It's", "A\tB"),
    *(
        "Two\nlines",
        "Two\r\nlines",
        "Three\n\nlines",
        "Old\rMac",
        "<b>bold</b>",
        "&amp;",
        "a,b;c|d",
    ),
    *(
        "a::b",
        "\x1b[31mred",
        "\x0bx",
        "x\x1cy",
        "x\x85y",
        "x\u2028y",
        "\u202eRTL",
        "😀",
        "x\u200by",
    ),
    *("null", "NA", "0", "1.0", "  padded  ", ' "spaced', "y" * 300, "Amélie", "heat (1995)", "\\"),
    *(
        "{title}",
        "<|im_end|>",
        "- list",
        "🏳\ufe0f\u200d🌈",
        "ﬁ",
        "İ",
        "ß",
        "SS",
        "#",
        "sep=;",
        "nul\x00",
    ),
)
_INVISIBLE_TITLES = ("", "  ", "\t", "\u200b", "\u200e\u200f", "\u00a0", "<br>", "&nbsp;")
_KINDS = ("buy", "view", "cart")

_MILD = {
    **{"min_rating": None, "keep": None, "min_user_interactions": 0, "min_item_interactions": 0},
    **{"num_candidates": 2, "split": "leave-one-out"},
}
"""Keys under which most datasets have something left."""

_any_text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn", "Co"]))
_ids = st.sampled_from(_AWKWARD_IDS) | _any_text.filter(str.strip).map(lambda text: text[:20])
_plain_ids = st.integers(-9, 40).map(str)
_titles = st.sampled_from(_AWKWARD_TITLES) | _any_text.map(lambda text: f"{text[:30]}T")

_keys = st.fixed_dictionaries(
    {
        "min_rating": st.sampled_from([None, None, None, 1.5, 2.5]),
        "keep": st.sampled_from(
            [None, None, None, {"event_type": ["buy"]}, {"event_type": ["buy", "view"]}]
        ),
        "repeats": st.sampled_from(["first", "last"]),
        "min_user_interactions": st.sampled_from([0, 0, 3, 4]),
        "min_item_interactions": st.sampled_from([0, 0, 0, 2]),
        "drop_unusable": st.sampled_from([True, True, False]),
        "split": st.sampled_from(["leave-one-out", "leave-one-out", "time"]),
        "validation_share": st.sampled_from([0.1, 0.3]),
        "test_share": st.sampled_from([0.1, 0.3]),
        "num_candidates": st.sampled_from([2, 2, 3, 5]),
        "history_length": st.integers(1, 4),
        "train_prefixes": st.integers(1, 3),
        "max_title_characters": st.sampled_from([20, 100]),
        "seed": st.integers(0, 3),
    }
)


@st.composite
def worlds(draw: Any, *, is_clean: bool = False) -> World:
    """Draw a dataset: users with at least three items each, and whatever else may happen.

    Args:
        draw: Hypothesis's.
        is_clean: Whether nothing has to be left out as unusable, and little else is.
    """
    ids = draw(st.sampled_from([_ids, _ids, _plain_ids]))
    users = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    names = draw(st.lists(ids, min_size=8, max_size=12, unique=True))
    titles = [draw(_titles) for _ in names]
    place = st.integers(0, 40)
    steps = [(0, 3)] + [
        (user, 3 * user + step)
        for user in range(len(users))
        for step in range(draw(st.integers(3, 5)))
    ]
    more = st.lists(st.tuples(place, place), max_size=8)
    events = []
    for user, item in [*steps, *draw(more)]:
        item %= len(names)
        time, rating, kind = draw(st.tuples(st.integers(-12, 30), *[st.integers(0, 9)] * 2))
        events.append(
            Event(
                user=users[user % len(users)],
                item=names[item],
                time=time,
                rating=None if rating == 9 else 5 - rating / 2,
                kind=_KINDS[kind % 3 if kind > 6 else 0],
                title=titles[item],
            )
        )
    events += [events[draw(place) % len(events)] for _ in range(draw(st.integers(0, 2)))]
    items = list(zip(names, titles, strict=True))
    world = World(events, items, draw(_keys))
    if is_clean or draw(st.booleans()):
        world = replace(world, keys=world.keys | _MILD)
    if not is_clean:
        world = draw(_flawed(world))
    random.Random(draw(st.integers(0, 9))).shuffle(world.events)
    return replace(world, items=None) if draw(st.booleans()) else world


@st.composite
def _flawed(draw: Any, world: World) -> World:
    """Draw what is wrong: mostly nothing, else values that are missing, unknown or at odds."""
    events, items = list(world.events), list(world.items or [])
    rows = st.integers(0, len(events) // 3)
    for name, values in (
        ("user", ["", "  "]),
        ("item", ["", " ", "unknown"]),
        ("time", [None]),
        ("title", [*_INVISIBLE_TITLES, "Another"]),
    ):
        if draw(st.integers(0, 7)) == 7:
            for row in range(draw(rows)):
                events[row] = replace(events[row], **{name: draw(st.sampled_from(values))})
    if draw(st.integers(0, 5)) == 5:
        flaw = draw(st.sampled_from(["", " ", *_INVISIBLE_TITLES, "twin", "Another"]))
        item, title = items[draw(st.integers(0, len(items) - 1))]
        row = {"": ("", title), " ": (" ", title), "twin": (item, title)}.get(flaw, (item, flaw))
        place = draw(st.integers(0, len(items)))
        items.insert(place, row)
        if draw(st.booleans()):
            items = [one for one in items if one[0] != item or one == row]
    broken, broken_items = (draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2])) for _ in range(2))
    return replace(
        world, events=events, items=items, broken_lines=broken, broken_item_lines=broken_items
    )


@st.composite
def styles(draw: Any) -> Style:
    """Draw how a dataset is written."""
    form = draw(st.sampled_from([*FORMS, "csv", "csv", "tsv", "parquet"]))
    is_text = form != "parquet"
    is_movielens = form.startswith("movielens")
    encodings = ["utf-8", "latin-1"] if is_movielens else ["utf-8"]
    if form not in ("parquet", "recbole") and not is_movielens:
        encodings += [
            "utf-8",
            "utf-8",
            "utf-8-sig",
            "utf-16",
            "utf-16-le",
            "utf-32",
            "cp1252",
            "shift-jis",
        ]
    times = [one for one in TIMES if not is_movielens or "|" not in TIMES[one](0)]
    line_ends = ["\n", "\n", "\r\n"] + (["\r"] if form != "json" else [])
    return Style(
        form=form,
        separator=draw(st.sampled_from(",,;|\t")) if form == "csv" else "\t",
        always_quoted=draw(st.booleans()),
        line_end=draw(st.sampled_from(line_ends)),
        ends_with_line=draw(st.booleans()),
        encoding=draw(st.sampled_from(encodings)),
        compression=draw(st.sampled_from(["", *COMPRESSIONS])) if is_text else "",
        times=draw(st.sampled_from(["seconds", "seconds", *times])),
        has_header=form not in ("csv", "tsv") or draw(st.integers(0, 4)) > 0,
        seed=draw(st.integers(0, 999)),
        types=(draw(st.sampled_from(PARQUET_IDS)), draw(st.sampled_from(PARQUET_TIMES))),
    )
