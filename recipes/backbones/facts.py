"""What a backbone is taught about titles: never who chose what."""

import json
import lzma
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skills import Facts

from delrec_hf.data.config import DataConfig
from delrec_hf.data.interactions import read_interactions
from delrec_hf.data.titles import readable_titles
from delrec_hf.data.toy_world import toy_world

BoolArray = npt.NDArray[np.bool_]
Film = dict[str, Any]

FAMOUS_SHARE = 1 / 3
"""Share of the catalogue that counts as famous: the films that Wikipedia says most about."""

FEWEST_PER_DECADE = 20

_NAMED = re.compile(r"(?P<body>.*?) \((?P<year>\d{4})\)")
_ARTICLE = re.compile(r"^(the|an|a|les|le|la|il|das|der|die|el)\s+")
_PART = re.compile(r"(?i)\s+(part\s+)?([2-9]|ii|iii|iv|v|vi|vii|viii|ix)$")
_SERIES = re.compile(
    r"\b[Tt]he ((?:[A-Z][\w.'&-]*\s){1,3})(?:(?:film|horror|slasher)\s)*"
    r"(?:series|franchise|trilogy|saga)\b"
)


def toy_facts() -> Facts:
    """Return what the toy world's titles mean: genre, franchise and part."""
    items = toy_world().items
    genre = items["genre"].to_numpy()
    franchise = items["franchise"].to_numpy()
    part = items["part"].to_numpy()
    titles = items["title"].tolist()
    one_series = franchise[:, None] == franchise[None, :]
    step = part[None, :] - part[:, None]
    sentences = [
        (f"What is the genre of {title}?", str(genre[k])) for k, title in enumerate(titles)
    ]
    following = one_series & (step == 1)
    sentences += [
        (f"What is the next part of {titles[a]}?", titles[b]) for a, b in np.argwhere(following)
    ]
    return Facts(
        titles=titles,
        relations={
            "the next part of": following,
            "the previous part of": one_series & (step == -1),
            "the series of": one_series & (step != 0),
            "the genre of": genre[:, None] == genre[None, :],
        },
        labels={str(name): genre == name for name in np.unique(genre)},
        sentences=sentences,
    )


def movie_facts(data: Path) -> Facts:
    """Return what MovieLens' titles mean: genres, year, cast, series, and how famous a film is.

    Genres and years are MovieLens' own. Cast and fame come from the lead paragraphs of Wikipedia,
    joined by title and year. A film is famous if its paragraph is one of the longest: ratings are
    not looked at.

    Args:
        data: Folder with the folders `ml-100k` and `wikipedia-movies`.
    """
    # Read as `delrec prepare` reads them, so that the titles are those of the prompts.
    config = DataConfig(path=str(data / "ml-100k"))
    items = read_interactions(config).items
    titles = readable_titles(items["title"][:], config.max_title_characters)
    genres = [text.lower().split("|") for text in items["genres"][:]]
    films = _films(titles, data / "wikipedia-movies" / "movies.jsonl.xz")
    cast = [film.get("cast", []) for film in films]
    years = np.array([_name_and_year(title)[1] for title in titles])
    famous = _famous(films)
    return Facts(
        titles=titles,
        relations=_relations(titles, genres, years, cast, films, famous),
        labels=_labels(genres, years, famous),
        sentences=_sentences(titles, genres, cast, films, famous),
    )


def _relations(
    titles: Sequence[str],
    genres: Sequence[list[str]],
    years: npt.NDArray[np.int64],
    cast: Sequence[list[str]],
    films: Sequence[Film],
    famous: BoolArray,
) -> dict[str, BoolArray]:
    """Return which film answers what about which; no film answers about itself."""
    others = ~np.eye(len(titles), dtype=bool)
    dated = (years > 0)[:, None] & (years > 0)[None, :]
    year = dated & (years[:, None] == years[None, :]) & others
    genre = _overlap(genres) & others
    all_famous = np.broadcast_to(famous, others.shape) & others
    return {
        "the genre of": genre,
        "the year of": year,
        "the decade of": dated & (years[:, None] // 10 == years[None, :] // 10) & others,
        "the cast of": _share(cast) & others,
        "the series of": _share(_series(titles, cast, films)) & others,
        # Fame asks nothing of the anchor, so a soft prompt can ask for popular films.
        "a famous movie besides": all_famous,
        "a famous movie in the genre of": genre & all_famous,
        "a famous movie of the year of": year & all_famous,
    }


def _labels(
    genres: Sequence[list[str]], years: npt.NDArray[np.int64], famous: BoolArray
) -> dict[str, BoolArray]:
    known = Counter(name for names in genres for name in names if name != "unknown")
    labels = {name: np.array([name in names for names in genres]) for name in known}
    for decade in np.unique(years[years > 0] // 10 * 10).tolist():
        holds = years // 10 * 10 == decade
        if holds.sum() >= FEWEST_PER_DECADE:
            labels[f"{decade}s"] = holds
    return {**labels, "famous": famous}


def _sentences(
    titles: Sequence[str],
    genres: Sequence[list[str]],
    cast: Sequence[list[str]],
    films: Sequence[Film],
    famous: BoolArray,
) -> list[tuple[str, str]]:
    """Ask about one film at a time."""
    sentences = []
    for row, title in enumerate(titles):
        sentences.append((f"What are the genres of {title}?", ", ".join(genres[row])))
        sentences.append((f"Is {title} a famous movie?", "yes" if famous[row] else "no"))
        if films[row].get("genres"):
            kind = ", ".join(films[row]["genres"][:3]).lower()
            sentences.append((f"What kind of movie is {title}?", kind))
        if cast[row]:
            sentences.append((f"Who plays in {title}?", ", ".join(cast[row][:2])))
    return sentences


def _films(titles: Sequence[str], path: Path) -> list[Film]:
    """Return what Wikipedia says about each title, nothing where it has no film of that name.

    A film's other names stand in brackets, and its year may differ by two.
    """
    by_name: dict[str, list[Film]] = defaultdict(list)
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            film = json.loads(line)
            by_name[_plain(film["title"])].append(film)
    found = []
    for title in titles:
        body, year = _name_and_year(title)
        names = [re.sub(r"\s*\(.*?\)", "", body), *re.findall(r"\((?:a\.k\.a\. )?(.*?)\)", body)]
        near = [
            film for name in names for film in by_name[_plain(name)] if abs(film["year"] - year) < 3
        ]
        found.append(min(near, key=lambda film: abs(film["year"] - year), default={}))
    return found


def _famous(films: Sequence[Film]) -> BoolArray:
    length = np.array([len(film.get("extract", "")) for film in films])
    return length >= max(1.0, np.quantile(length, 1 - FAMOUS_SHARE))


def _series(
    titles: Sequence[str], cast: Sequence[list[str]], films: Sequence[Film]
) -> list[set[str]]:
    """Return the names of the series that each film may belong to.

    A series is named by what stands before a colon or a part's number, by Wikipedia, or by another
    film whose whole title starts this one, if the two share an actor (Batman, Batman Returns).
    """
    bodies = [re.sub(r"\s*\(.*?\)", "", _name_and_year(title)[0]) for title in titles]
    stems = [_PART.sub("", body.partition(":")[0]) for body in bodies]
    by_name = defaultdict(list)
    for row, stem in enumerate(stems):
        by_name[_plain(stem)].append(row)
    series = []
    for row, stem in enumerate(stems):
        names = {_plain(stem)}
        names |= {_plain(name) for name in _SERIES.findall(films[row].get("extract", ""))}
        words = bodies[row].split()
        for count in range(1, len(words)):
            start = _plain(" ".join(words[:count]))
            if any(set(cast[other]) & set(cast[row]) for other in by_name.get(start, [])):
                names.add(start)
        series.append(names - {""})
    return series


def _name_and_year(title: str) -> tuple[str, int]:
    """Split `Alien (1979)`; the year is 0 where there is none."""
    match = _NAMED.match(title)
    return (match["body"], int(match["year"])) if match else (title, 0)


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().casefold()
    return re.sub(r"[^a-z0-9]", "", _ARTICLE.sub("", text.strip()).replace("&", "and"))


def _share(sets: Sequence[Iterable[Hashable]]) -> BoolArray:
    """Return `(items, items)`: do two of them have a member in common?"""
    return _common(sets) > 0


def _overlap(sets: Sequence[Iterable[Hashable]]) -> BoolArray:
    """Return `(items, items)`: is half of what two of them have between them common to both?"""
    common = _common(sets)
    sizes = common.diagonal()
    return 2 * common >= sizes[:, None] + sizes[None, :] - common


def _common(sets: Sequence[Iterable[Hashable]]) -> npt.NDArray[np.float32]:
    """Return `(items, items)`: how many members two of them have in common."""
    members = sorted({member for one in sets for member in one}, key=str)
    places = {member: place for place, member in enumerate(members)}
    has = np.zeros((len(sets), len(members)), dtype=np.float32)
    for row, one in enumerate(sets):
        has[row, [places[member] for member in one]] = 1
    return has @ has.T
