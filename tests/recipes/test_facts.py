"""What backbones are taught about films."""

from pathlib import Path

import facts
import numpy as np

from delrec_hf.data.config import DataConfig
from delrec_hf.data.prepared import prepare

ROBOT, RETURNS, KISS, LOVE, KISS_II, UNKNOWN = range(6)


def answers(known: facts.Facts, relation: str, about: int) -> list[int]:
    return np.flatnonzero(known.relations[relation][about]).tolist()


def test_titles_are_those_of_the_prompts(films: Path, tmp_path: Path) -> None:
    with (films / "ml-100k" / "interactions.csv").open("a") as file:
        file.writelines(f"v,{item},{item}\n" for item in range(1, 6))
    config = DataConfig(path=str(films / "ml-100k"), num_candidates=2)
    prepared = prepare(config, tmp_path / "data")
    assert facts.movie_facts(films).titles == prepared.items["title"][:]


def test_films_share_half_of_their_genres(films: Path) -> None:
    known = facts.movie_facts(films)
    assert answers(known, "the genre of", ROBOT) == [RETURNS]
    assert answers(known, "the genre of", KISS) == [LOVE, KISS_II]


def test_years_and_decades_come_from_the_title(films: Path) -> None:
    known = facts.movie_facts(films)
    assert answers(known, "the year of", RETURNS) == [KISS]
    assert answers(known, "the decade of", ROBOT) == [RETURNS, KISS, KISS_II]
    assert answers(known, "the year of", UNKNOWN) == []


def test_cast_is_joined_by_title_and_nearest_year(films: Path) -> None:
    known = facts.movie_facts(films)
    assert answers(known, "the cast of", ROBOT) == [RETURNS, KISS]
    assert ("Who plays in The Kiss (1993)?", "Cy Cole, Bob Birk") in known.sentences


def test_a_series_has_a_common_stem_or_a_common_start_and_actor(films: Path) -> None:
    known = facts.movie_facts(films)
    assert answers(known, "the series of", KISS) == [KISS_II]
    assert answers(known, "the series of", ROBOT) == [RETURNS]


def test_famous_films_are_those_with_the_longest_articles(films: Path) -> None:
    known = facts.movie_facts(films)
    assert np.flatnonzero(known.labels["famous"]).tolist() == [ROBOT, KISS]
    assert answers(known, "a famous movie besides", ROBOT) == [KISS]
    assert answers(known, "a famous movie of the year of", RETURNS) == [KISS]


def test_no_film_answers_about_itself(films: Path) -> None:
    for holds in facts.movie_facts(films).relations.values():
        assert not holds.diagonal().any()


def test_ratings_change_nothing(films: Path) -> None:
    before = facts.movie_facts(films)
    (films / "ml-100k" / "interactions.csv").write_text("user_id,item_id,timestamp\nw,5,9\n")
    after = facts.movie_facts(films)
    assert before.sentences == after.sentences
    for name, holds in before.relations.items():
        assert (holds == after.relations[name]).all()
