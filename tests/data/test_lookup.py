"""Items are found by what people type; what can mean several is refused."""

# ruff: noqa: RUF001 - characters that look like others are what this is about

import difflib
import logging
import time
import unicodedata
from collections.abc import Sequence

import pytest

from delrec_hf.data.lookup import ItemIndex
from delrec_hf.data.titles import readable_titles
from delrec_hf.errors import InputError

LONG = "Reviving Night Serum with Rosehip, Squalane and a Very Long List of Further Oils, 30 ml"


def index_of(items: dict[str, str]) -> ItemIndex:
    return ItemIndex(list(items), list(items.values()))


def refusal(index: ItemIndex, text: str) -> str:
    with pytest.raises(InputError) as refused:
        index.find(text)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def written_otherwise(title: str) -> list[str]:
    """Forms in which a user's file or keyboard may have a title."""
    return [
        title,
        f"  {title}\n",
        title.upper(),
        title.lower(),
        unicodedata.normalize("NFD", title),
        title.replace(" ", "\n", 1),
        title.replace(" ", " \u200b ", 1),
        "\ufeff" + title,
        title.replace("&", "&amp;").replace("'", "&#39;").replace('"', "&quot;"),
        f"<i>{title}</i>",
        f'<span class="title">{title}</span>',
        f"\u202b{title}\u202c",
    ]


CATALOGUE = [
    "Amélie et l'Été (2001)",
    "Shawshank Redemption, The (1994)",
    "Bread &amp; Circus",
    "Tinker&#39;s &quot;Workshop&quot;",
    "\u202bقصر الشوق\u202c (1957)",
    "עיר לבנה\u200e 2",
    "Straße nach Süden",
    "I <3 Monsters",
    "千の風",
    "Ελλάδα, Η (1990)",
    "ΐ and others",
]


def test_titles_are_found_as_the_users_file_or_keyboard_has_them() -> None:
    titles = readable_titles(CATALOGUE, 100)
    index = ItemIndex([f"i{row}" for row in range(len(titles))], titles)
    for row, (raw, title) in enumerate(zip(CATALOGUE, titles, strict=True)):
        for text in [*written_otherwise(raw), *written_otherwise(title)]:
            assert index.find(text) == row, text


def test_a_trailing_article_is_turned_whatever_its_case() -> None:
    index = index_of({"a": "The Shawshank Redemption (1994)", "b": "L'Avventura (1960)"})
    assert index.find("shawshank redemption, the (1994)") == 0
    assert index.find("AVVENTURA, L' (1960)") == 1


@pytest.mark.parametrize("room", [20, 21, 33, 40, 59, 60, 61, 80])
def test_a_title_longer_than_the_catalogue_keeps_is_found_by_its_beginning(
    room: int, caplog: pytest.LogCaptureFixture
) -> None:
    raw = [
        LONG,
        "Heat (1995)",
        "Postman, The (Postino, Il), as Told by Those Who Were There (1994)",
    ]
    raw += ["Uninterrupted" * 9, "長" * 120]
    titles = readable_titles(raw, room)
    assert titles[0].endswith("…")
    index = ItemIndex(list("abcde"), titles)
    for row, title in enumerate(raw):
        with caplog.at_level(logging.INFO, "delrec_hf"):
            for text in written_otherwise(title):
                assert index.find(text) == row, text
    assert f'is taken for the cut title "{titles[0]}"' in caplog.text


def test_no_short_beginning_is_taken_for_a_cut_title() -> None:
    # The second word was too long for the catalogue, and the others show how long that is.
    titles = readable_titles(
        ["Alien " + "x" * 90, "Aliens and Monsters of the Deep Sea", "Wait…"], 60
    )
    assert titles[0] == "Alien…"
    index = ItemIndex(list("abc"), titles)
    for text in ("Alien Resurrection (1997)", "Alien", "Aliens " + "x" * 90, "Wait until Dark"):
        assert "is not among the 3 known items" in refusal(index, text)
    assert index.find("Alien " + "x" * 90) == 0


def test_a_title_that_is_another_items_id_is_refused_with_both_named() -> None:
    index = index_of({"7": "21", "21": "Amber Piano", "8": "Amber Harp"})
    told = refusal(index, "21")
    assert told == '"21" can mean "Amber Piano" (id 21) or "21" (id 7); write `id:21` or `title:21`'
    assert index.find("id:21") == 1
    assert index.find("title:21") == 0
    assert index.find("id:7") == 0
    assert index.find("title: amber harp") == 2
    # Neither case nor what nobody sees decides between them.
    assert refusal(index, " 21\u200b") == told
    index = index_of({"heat": "Alien", "x": "Heat"})
    assert "`id:heat` or `id:x`" in refusal(index, "heat")
    assert index.find("Heat") == 1


def test_every_cure_that_a_refusal_names_works() -> None:
    index = index_of({"7": "21", "21": "id:7", "a": "Emma", "b": "Emma [2]", "c": "title:emma"})
    for text, rows in {
        "21": [1, 0],
        "id:7": [0, 1],
        "emma": [2, 3],
        "title:emma": [2, 3, 4],
    }.items():
        cures = refusal(index, text).partition("; write ")[2].strip("`").split("` or `")
        assert [index.find(cure) for cure in cures] == rows


def test_an_item_called_by_its_own_id_is_one_item() -> None:
    index = index_of(
        {"Emma": "Emma", "Emma (1932)": "Emma [2]", LONG: "Reviving Night Serum with…"}
    )
    assert index.find("Emma") == 0
    assert index.find("Emma (1932)") == 1
    assert index.find(LONG) == 2


def test_a_title_as_the_catalogue_has_it_means_its_item() -> None:
    titles = readable_titles(
        ["Heat", "HEAT", "Heat", "Mask, The", "The Mask", LONG, LONG + "!"], 50
    )
    index = ItemIndex([f"i{row}" for row in range(len(titles))], titles)
    assert [index.find(title) for title in titles] == list(range(len(titles)))
    assert index.find(" HEAT [2] ") == 1


def test_names_that_fit_several_items_are_refused_with_up_to_three_named() -> None:
    titles = readable_titles(["Heat", "HEAT", "Heat", "heat", "Mask, The", "The Mask"], 50)
    index = ItemIndex([f"i{row}" for row in range(len(titles))], titles)
    assert refusal(index, "hEAt") == (
        '"hEAt" can mean "Heat" (id i0), "HEAT [2]" (id i1), "Heat [3]" (id i2) or 1 more; '
        "write `id:i0` or `id:i1` or `id:i2`"
    )
    assert '"The Mask" (id i4) or "The Mask [2]" (id i5)' in refusal(index, "mask, the")
    assert index.find("heat [3]") == 2
    # What looks the same may be the other one, as a file has it.
    twins = index_of(dict(zip("ab", readable_titles(["Caf\u00e9", "Cafe\u0301"], 50), strict=True)))
    assert '"Café" (id a) or "Café [2]" (id b)' in refusal(twins, "Cafe\u0301")


def test_cut_titles_with_one_beginning_are_refused_and_named() -> None:
    titles = readable_titles([f"{LONG}, size {size}" for size in range(3)], 50)
    index = ItemIndex(list("abc"), titles)
    told = refusal(index, f"{LONG}, size 2")
    for title, item_id in zip(titles, "abc", strict=True):
        assert f'"{title}" (id {item_id})' in told
        assert index.find(f"id:{item_id}") == "abc".index(item_id)
    # The first has room for the whole title; its twin was cut for the number.
    titles = readable_titles(["Emma and the Green Door"] * 2 + ["Heat"], 24)
    assert titles[1].endswith("… [2]")
    assert "(id a) or " in refusal(ItemIndex(list("abc"), titles), "EMMA and the green door")


def test_a_name_that_begins_with_the_word_id_or_title_needs_no_other_form() -> None:
    index = index_of({"a": "id: Forgotten", "b": "Title: A Play", "c": "title"})
    assert index.find("id: forgotten") == 0
    assert index.find("title: a play") == 1
    assert index.find("title") == 2


def test_unknown_names_bring_the_nearest_titles_in_one_line() -> None:
    index = index_of({"a": "Alien", "b": "Aliens", "c": "Heat"})
    assert refusal(index, "Alienz\n") == (
        '"Alienz" is not among the 3 known items; did you mean "Alien", "Aliens"?'
    )
    assert 'did you mean "Heat"?' in refusal(index, "title:hea")
    for text in ("", "\u200b", "zzzzzzzz", "id:Alien", "\ud800", "z" * 100_000):
        told = refusal(index, text)
        assert told.endswith("is not among the 3 known items; give a title or id of the catalogue")
        assert len(told) < 400


def _made_up(number: int) -> Sequence[str]:
    words = ["amber", "brisk", "copper", "dusty", "eager", "fabled", "gentle", "hollow", "ivory"]
    parts = [[words[number // 9**place % 9] for place in range(6)] for number in range(number)]
    return [f"{' '.join(six)} ({1900 + row % 100})" for row, six in enumerate(parts)]


def test_the_nearest_titles_are_those_of_difflib() -> None:
    titles = _made_up(3000)
    index = ItemIndex([str(row) for row in range(3000)], titles)
    for row in range(0, 3000, 300):
        text = titles[row].replace("e", "", 1) + "x"
        nearest = difflib.get_close_matches(text, titles, n=1)[0]
        assert f'did you mean "{nearest}"' in refusal(index, text)


def test_a_large_catalogue_is_searched_in_seconds() -> None:
    titles = _made_up(100_000)
    index = ItemIndex([str(row) for row in range(100_000)], titles)
    index.find(titles[7].upper())
    start = time.process_time()
    assert "did you mean" in refusal(index, "bamber brisk copper dosty ivory fabled (1957), uncut")
    assert time.process_time() - start < 2  # difflib over all of them takes many
