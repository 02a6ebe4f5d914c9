"""Titles of a catalogue."""

import pytest

from delrec_hf.data.titles import (
    clean_title,
    distinct_titles,
    readable_titles,
    shorten,
    turn_article,
)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Shawshank Redemption, The (1994)", "The Shawshank Redemption (1994)"),
        ("Lord of the Rings: The Two Towers, The", "The Lord of the Rings: The Two Towers"),
        ("Misérables, Les (1995)", "Les Misérables (1995)"),
        ("Femme Nikita, La (1990)", "La Femme Nikita (1990)"),
        ("Bonheur, Le (1965)", "Le Bonheur (1965)"),
        ("Avventura, L' (1960)", "L'Avventura (1960)"),
        ("Boot, Das (1981)", "Das Boot (1981)"),
        ("Himmel über Berlin, Der (1987)", "Der Himmel über Berlin (1987)"),
        ("Blechtrommel, Die (1979)", "Die Blechtrommel (1979)"),
        ("Mariachi, El (1992)", "El Mariachi (1992)"),
        ("Vitelloni, I (1953)", "I Vitelloni (1953)"),
        ("Postman, The (Postino, Il) (1994)", "The Postman (Il Postino) (1994)"),
        ("Great Day in Harlem, A (1994)", "A Great Day in Harlem (1994)"),
        ("City of X, The (1992)", "The City of X (1992)"),
    ],
)
def test_trailing_articles_are_turned(written, read):
    assert turn_article(written) == read


@pytest.mark.parametrize(
    "title",
    [
        "The Matrix (1999)",
        "Crouching Tiger, Hidden Dragon (2000)",
        "Tigrero: A Film, That Was Never Made (1994)",
        "Vitamins C, A",
        "Adventures of Priscilla, Queen of the Desert (1994)",
        "",
    ],
)
def test_titles_without_a_trailing_article_stay(title):
    assert turn_article(title) == title


def test_control_characters_and_line_breaks_become_spaces():
    dirty = "Toy\tStory\r\n\x00(1995)\u2028\x85 \u200bII\ufeff\ud800"
    assert clean_title(dirty) == "Toy Story (1995) II"


def test_characters_that_nobody_sees_go_and_joiners_stay():
    assert clean_title("A\u061cli\u180een\u200b\ufff9") == "Alien"
    family = "👨\u200d👩\u200d👧 a\u200cb"
    assert clean_title(family) == family


def test_composed_and_decomposed_letters_become_one_title():
    assert clean_title("Ame\u0301lie") == clean_title("Am\u00e9lie")


def test_titles_are_cut_after_a_word():
    assert shorten("one two three", 13) == "one two three"
    assert shorten("one two three", 12) == "one two…"
    assert shorten("one two three", 8) == "one two…"
    assert shorten("one two three", 7) == "one…"


def test_shared_titles_become_distinct_even_against_titles_that_look_numbered():
    titles = ["Heat", "Heat [2]", "Heat", "HEAT", "Heat"]
    distinct = distinct_titles(titles)
    assert distinct[:2] == ["Heat", "Heat [2]"]
    assert len({title.casefold() for title in distinct}) == len(titles)


def test_titles_that_meet_only_when_cut_are_distinct_and_within_the_limit():
    titles = [f"A very long name of a product that never ends, {n} ounces" for n in range(12)]
    read = readable_titles(titles, 30)
    assert len(set(read)) == 12
    assert max(map(len, read)) <= 30


def test_titles_that_meet_only_when_turned_are_distinct():
    assert readable_titles(["The Mask", "Mask, The"], 100) == ["The Mask", "The Mask [2]"]
