"""What the page shows is what the Python API returns."""

from collections.abc import Callable
from pathlib import Path

import pytest

from delrec_hf import Recommender
from delrec_hf.demo import markup
from delrec_hf.demo.desk import Desk
from delrec_hf.demo.search import TitleSearch
from delrec_hf.errors import InputError
from tests.film_rows import TITLES

HISTORY = [0, 2]


def test_rankings_are_those_of_the_python_api(with_teacher: Callable[..., Recommender]) -> None:
    recommender = with_teacher()
    desk = Desk(recommender)
    assert list(desk.parts) == ["both", "language_model", "teacher"]
    assert desk.missing == ""
    titles = [TITLES[row] for row in HISTORY]
    both = desk.rank(HISTORY, "both", 4)
    assert both.items == recommender.recommend(titles, top_k=4)
    alone = desk.rank(HISTORY, "language_model", 4)
    assert alone.items == recommender.recommend(titles, top_k=4, with_teacher=False)
    (advice,) = recommender.advise([HISTORY])
    best = sorted(set(range(len(TITLES))) - set(HISTORY), key=lambda row: -advice[row])[:4]
    taught = desk.rank(HISTORY, "teacher", 4)
    assert taught.items == []
    for found in (both, alone, taught):
        assert [one.title for one in found.advised] == [TITLES[row] for row in best]
        assert [one.score for one in found.advised] == pytest.approx(advice[best])


def test_an_explanation_is_of_the_parts_that_rank(
    with_teacher: Callable[..., Recommender],
) -> None:
    desk = Desk(with_teacher())
    assert desk.explain(HISTORY, "language_model", "i7").series() == ["language model"]
    both = desk.explain(HISTORY, "both", "i7")
    assert both == desk.recommender.explain([TITLES[row] for row in HISTORY], TITLES[7])
    assert desk.explain(HISTORY, "teacher", "i7") == both
    page = markup.explanation(both, is_of_teacher=False)
    for one in both.history:
        assert f">{one.title}</th>" in page
        assert f"{one.change.lead:+.2f}".replace("-", "\u2212") in page


def test_what_a_model_lacks_is_no_choice(
    with_teacher: Callable[..., Recommender], make_artefact: Callable[..., Path]
) -> None:
    alone = Desk(Recommender.from_pretrained(make_artefact(candidates="unlisted", shape="llama")))
    assert list(alone.parts) == ["language_model"]
    assert "holds no teacher" in alone.missing
    assert alone.rank(HISTORY, "language_model", 3).advised == []
    unweighed = Desk(with_teacher(fusion=None, candidates="listed", prompt_teacher="list"))
    assert list(unweighed.parts) == ["language_model", "teacher"]
    assert "`delrec evaluate`" in unweighed.missing
    with pytest.raises(InputError, match="cannot rank with `both`"):
        unweighed.rank(HISTORY, "both", 3)


def test_examples_are_histories_without_repetition(
    with_teacher: Callable[..., Recommender],
) -> None:
    desk = Desk(with_teacher())
    some = [desk.example(number) for number in range(6)]
    assert all(len(set(one)) == len(one) == 5 for one in some)
    assert desk.example(0) == some[0] != some[1]


def test_what_a_page_cannot_have_sent_is_refused(
    with_teacher: Callable[..., Recommender],
) -> None:
    desk = Desk(with_teacher())
    for given in (None, "i1", ["i1"], [{}], [{"id": ["i1"]}], [{"id": "i99"}], [{"id": 1}]):
        with pytest.raises(InputError, match="load the page again"):
            desk.rows(given)
    assert desk.rows([{"id": "i2", "title": "forged"}]) == [2]
    with pytest.raises(InputError, match="takes at most 100"):
        desk.rows([{"id": "i2"}] * 101)
    with pytest.raises(InputError, match="expected 1 to 50"):
        desk.rank(HISTORY, "both", 51)


def test_titles_are_found_in_large_catalogues_as_one_types() -> None:
    titles = [f"Volume {number} of the Annals" for number in range(60_000)]
    titles += ["Æon Flux", "L'Été meurtrier", "12", "Emma", "Emma [2]", "!!!"]
    search = TitleSearch([str(number) for number in range(len(titles))], titles)

    def found(text: str) -> list[str]:
        return [titles[row] for row in search.search(text)[:3]]

    assert len(search.search("volume")) == 60_000
    assert found("annals 59999") == ["Volume 59999 of the Annals"]
    assert found("ete MEURT") == ["L'Été meurtrier"]
    assert found("12")[:2] == ["Volume 12 of the Annals", "12"]  # its id, and its title
    assert found("!!!") == ["!!!"]
    assert found("no such title") == found("  ") == []
    assert search.is_ambiguous("emma")
    assert not search.is_ambiguous("volume")
