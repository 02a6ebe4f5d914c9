"""The backbone scripts as modules, and a handful of films as the folders they are read from."""

import json
import lzma
import sys
from pathlib import Path

import pytest

from delrec_hf.resources import resource

sys.path.insert(0, str(resource("recipes/backbones")))

FILMS = [
    ("1", "Robot, The (1990)", "Action|Sci-Fi"),
    ("2", "Robot Returns (1993)", "Action|Sci-Fi"),
    ("3", "Kiss, The (1993)", "Romance"),
    ("4", "Robot Love (1955)", "Romance"),
    ("5", "Kiss: Part II (1995)", "Drama|Romance"),
    ("6", "unknown", "unknown"),
]
ARTICLES = [
    ("The Robot", 1991, ["Action"], ["Ann Ash", "Bob Birk"], "A robot " * 50),
    ("Robot Returns", 1993, ["Action"], ["Ann Ash"], "Short."),
    ("The Kiss", 1993, ["Romance"], ["Cy Cole", "Bob Birk"], "They kiss " * 60),
    ("The Kiss", 1920, ["Silent"], ["Dee Dune"], "An older one " * 90),
]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder as `movie_facts` reads it."""
    movielens, wikipedia = tmp_path / "ml-100k", tmp_path / "wikipedia-movies"
    movielens.mkdir()
    wikipedia.mkdir()
    rows = "".join(f'{item},"{title}",{genres}\n' for item, title, genres in FILMS)
    (movielens / "items.csv").write_text("item_id,title,genres\n" + rows)
    (movielens / "interactions.csv").write_text("user_id,item_id,timestamp\nu,1,1\nu,2,2\n")
    keys = ("title", "year", "genres", "cast", "extract")
    with lzma.open(wikipedia / "movies.jsonl.xz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in ARTICLES)
    return tmp_path
