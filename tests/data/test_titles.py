"""Titles of a catalogue."""

import random
import time

import pytest

from delrec_hf.data.titles import (
    clean_title,
    count_markup,
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


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Salt &amp; Honey", "Salt & Honey"),
        ("Miller&#39;s &#x2018;Tale&rsquo;", "Miller's \u2018Tale\u2019"),
        ("&quot;Twelve&quot;&nbsp;Chairs", '"Twelve" Chairs'),
        ("Salt &amp;amp; &amp;#38;amp; Honey", "Salt & & Honey"),
        ("<i>Leaning</i> Tower", "Leaning Tower"),
        ('<span id="title" class="a-large">Teapot</span>', "Teapot"),
        ('<SPAN CLASS="">Teapot</SPAN > <a href=x>2</a>', "Teapot 2"),
        ("&lt;i&gt;Leaning&lt;/i&gt; Tower", "Leaning Tower"),
        ("H<sub>2</sub>O<br>and<br/>Fire<p>", "H2O and Fire"),
        ("<b></b>", ""),
        ("e&#769;tude", "étude"),
        ("A&shy;B&#8206;&#10;C", "AB C"),
    ],
)
def test_entities_become_characters_and_tags_go(written, read):
    assert clean_title(written) == read
    assert count_markup([written, read]) == 1


@pytest.mark.parametrize(
    "title",
    [
        "I <3 You",
        "<3",
        "a < b > c",
        "AT&T, R&B, Q&A; &c",
        "Salt &copy Honey &notme; &#; &;",
        "<Untitled> <1997> <映画>",
        "<b and no end",
        "<bold> <spanner> <i, me>",
        "<|im_start|> <<SYS>> <think>",
    ],
)
def test_text_that_only_looks_like_markup_stays(title):
    assert clean_title(title) == title
    assert count_markup([title]) == 0


def test_a_cleaned_title_stays_when_it_is_cleaned_again():
    parts = [
        *"&#;<>/= 38bipx\u200b\u0301\u0338\u037e\u0958\ufb2c\ud800\x00\n",
        "amp;",
        "&lt;",
        "&#38;",
    ]
    parts += ["&nbsp;", "&zwnj;", "&nvlt;", "&#822;", "&shy;", "br", "span", "<i>", "</p>"]
    draw = random.Random(0)
    for _ in range(30_000):
        title = "".join(draw.choices(parts, k=draw.randrange(1, 25)))
        cleaned = clean_title(title)
        assert clean_title(cleaned) == cleaned, title


def test_hostile_nesting_takes_no_time():
    start = time.process_time()
    for title in ("&" + "amp;" * 20_000, "<b" * 20_000 + ">" * 20_000, "<b =" * 20_000):
        cleaned = clean_title(title)
        assert clean_title(cleaned) == cleaned
    assert time.process_time() - start < 5


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
