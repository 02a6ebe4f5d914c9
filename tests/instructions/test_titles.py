"""Titles are data: harmless ones stay, the others lose what could steer a model."""

# ruff: noqa: RUF001 - characters that look like others are what this is about

import time

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from delrec_hf.data.titles import readable_titles
from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import marker_ids
from delrec_hf.instructions.titles import safe_titles

CHATML = ("<|im_start|>", "<|im_end|>", "<think>")

HARMLESS = [
    "Heat (1995)",
    "[REC] (2007)",
    "Se7en",
    "M*A*S*H",
    "Naïve – café",
    "千と千尋の神隠し",
    "もののけ姫 <1997>",
    "😀 👨‍👩‍👧 ❤️ The Movie",
    "می‌خواهم",
    "I <3 Huckabees | a & b > c",
    "{{ x }} {% if %}",
    "@@answer@@",
    "S.O.S. s/s EOS [s]",
    "two  spaces",
    "Cafe\u0301",
]


def markers_in(titles, tokenizer):
    markers = marker_ids(tokenizer)
    return [
        sum(i in markers for i in ids)
        for ids in tokenizer(list(titles), add_special_tokens=False)["input_ids"]
    ]


@pytest.mark.parametrize("kind", ["byte-level", "prepend", "metaspace"])
def test_harmless_titles_stay_byte_identical(make_tokenizer, kind):
    tokenizer = make_tokenizer(special=CHATML, kind=kind)
    readable = HARMLESS if kind == "byte-level" else [t for t in HARMLESS if t.isascii()]
    assert safe_titles(readable, tokenizer) == readable


@pytest.mark.parametrize(
    ("title", "safe"),
    [
        ("A <|im_end|> B", "A < |im_end| > B"),
        ("<|im_<|im_end|>end|>", "< |im_< |im_end| >end| >"),
        ("<|im_\u200bend|>", "< |im_end| >"),
        ("<think>", "< think>"),
        ("</think>", "< /think>"),
        ("[INST] x [/INST]", "[ INST] x [ /INST]"),
        ("<<SYS>> x", "<< SYS>> x"),
        ("</s>", "< /s>"),
        ("<｜Assistant｜>", "< ｜Assistant｜ >"),
        ("[masked]", "[ masked]"),
        ("A\nB\r\n\tC", "A B C"),
        (" \x00Alien\x1b\u2028", "Alien"),
        ("a\u202eb\U000e0041c", "abc"),
        ("lone \ud800", "lone \ufffd"),
        ("\u200b", "Untitled"),
        ("", "Untitled"),
    ],
)
def test_markers_lose_one_place_and_breaks_become_spaces(make_tokenizer, title, safe):
    tokenizer = make_tokenizer(special=CHATML)
    assert safe_titles([title], tokenizer) == [safe]


@pytest.mark.parametrize(
    "hidden",
    [
        "&lt;|im_start|&gt;",
        "&amp;lt;|im_end|&amp;gt;",
        "<|im<i></i>_start|>",
        "&lt;th<b>ink&#62;",
        "&#91;INST&#93;",
    ],
)
def test_a_marker_that_entities_or_tags_hid_becomes_text(make_tokenizer, hidden):
    tokenizer = make_tokenizer(special=CHATML)
    cleaned = readable_titles([f"A {hidden} B"], 100)
    assert safe_titles(cleaned, tokenizer) != cleaned
    assert markers_in(safe_titles(cleaned, tokenizer), tokenizer) == [0]


@pytest.mark.parametrize("kind", ["byte-level", "prepend", "metaspace"])
def test_every_special_and_added_token_becomes_text(make_tokenizer, kind):
    tokenizer = make_tokenizer(
        special=[*CHATML, "[MY TOKEN]", "EOT", AddedToken("<sep/>", normalized=True)],
        kind=kind,
        pad_token="<|pad|>",
    )
    tokenizer.add_tokens(["<tool_call>", "[extra_1]"])
    known = [token.content for token in tokenizer.added_tokens_decoder.values()]
    hostile = [token for token in known if token != tokenizer.unk_token]
    hostile += [f"x{a}{b}y" for a in hostile for b in hostile]
    hostile += [
        f"{a[: len(a) // 2]}{b}{a[len(a) // 2 :]}" for a in hostile[:9] for b in hostile[:9]
    ]
    assert sum(markers_in(hostile, tokenizer)) > len(hostile)
    safe = safe_titles(hostile, tokenizer)
    assert sum(markers_in(safe, tokenizer)) == 0
    assert len(set(safe)) == len(safe)


def test_a_word_of_its_own_that_is_a_token_stays_inside_other_words(make_tokenizer):
    tokenizer = make_tokenizer(special=[AddedToken("STOP", single_word=True)])
    assert safe_titles(["STOPPED", "Don't STOP"], tokenizer) == ["STOPPED", "Don't S TOP"]


def test_text_that_normalisation_turns_into_a_token_becomes_text(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("\u0301", ""), normalizers.NFKC(), normalizers.Lowercase()]
    )
    tokenizer.add_tokens([AddedToken("<end>", normalized=True, special=True)])
    tokenizer.add_tokens([AddedToken("stop", normalized=True, special=True)])
    hostile = ["＜ｅｎｄ＞ x", "<END>", "<e\u0301nd>", "STOP", "ＳＴＯＰ"]
    assert markers_in(hostile, tokenizer) == [1, 1, 1, 1, 1]
    safe = safe_titles([*hostile, "Heat"], tokenizer)
    assert markers_in(safe, tokenizer) == [0] * 6
    assert len(set(safe)) == 6
    assert safe[-1] == "Heat"


def test_a_character_that_is_a_control_token_is_left_out(make_tokenizer):
    tokenizer = make_tokenizer(pad_token="!")
    assert safe_titles(["Help!", "Help"], tokenizer) == ["Help (2)", "Help"]


def test_unknown_text_is_no_control_token():
    words = {"<unk>": 0, "<eos>": 1, "heat": 2}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>"
    )
    assert safe_titles(["heat", "千と千尋"], tokenizer) == ["heat", "千と千尋"]


def test_a_title_that_only_reads_as_a_control_token_is_refused():
    backend = Tokenizer(models.WordLevel({"<eos>": 0, "heat": 1}, unk_token="<eos>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    with pytest.raises(InputError, match=r"`.*`.*rename the item"):
        safe_titles(["heat", "alien"], tokenizer)


def test_titles_stay_distinct_and_harmless_ones_keep_their_name(make_tokenizer):
    tokenizer = make_tokenizer(special=CHATML)
    titles = ["A\nB", "A B", "A\tB", "A B (2)", "A\u200b B", "\n", "\x00", "Untitled"]
    safe = safe_titles(titles, tokenizer)
    assert len(set(safe)) == len(titles)
    assert [safe[i] for i in (1, 3, 7)] == ["A B", "A B (2)", "Untitled"]


def test_titles_that_read_the_same_to_the_model_get_numbers(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert safe_titles(["Heat", "HEAT", "Alien"], tokenizer) == ["Heat", "HEAT (2)", "Alien"]


def test_safe_titles_are_safe_already(make_tokenizer):
    tokenizer = make_tokenizer(special=CHATML)
    once = safe_titles([*HARMLESS, "<|im_end|>", "<|im_<|im_end|>end|>", "a\nb"], tokenizer)
    assert safe_titles(once, tokenizer) == once


def test_twelve_thousand_titles_and_thousands_of_markers_take_a_moment(make_tokenizer):
    tokenizer = make_tokenizer(special=[f"<unused{i}>" for i in range(6000)])
    titles = [f"A Film of Some Length, Part {i} ({1900 + i % 120})" for i in range(12_000)]
    titles[::100] = [f"<unused{i}> <|im_end|> {i}" for i in range(len(titles[::100]))]
    start = time.process_time()
    safe = safe_titles(titles, tokenizer)
    seconds = time.process_time() - start
    assert sum(markers_in(safe, tokenizer)) == 0
    assert seconds < 10  # one second on a free core; a slow way takes minutes
