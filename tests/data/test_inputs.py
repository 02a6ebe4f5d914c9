"""What people bring is read as they mean it, or refused in one line that names the cure."""

import re
from pathlib import Path

import pytest

from delrec_hf.data.config import DataConfig
from delrec_hf.data.inspection import inspect
from delrec_hf.data.prepared import prepare
from delrec_hf.errors import InputError
from delrec_hf.instructions.templates import DOMAINS
from delrec_hf.runs.recipe import load_recipe
from tests.data.inputs import INPUTS, TITLES, Input

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def laid_out(one: Input, folder: Path) -> DataConfig:
    shop = folder / "shop"
    shop.mkdir()
    for name, content in one.files.items():
        (shop / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return DataConfig(path=str(shop / one.path), num_candidates=5, **one.keys)


@pytest.mark.parametrize("one", INPUTS, ids=lambda one: one.name)
def test_an_input_is_read_as_it_is_meant_or_refused_with_the_cure(one: Input, tmp_path: Path):
    config = laid_out(one, tmp_path)
    if one.refused:
        with pytest.raises(InputError) as refusal:
            prepare(config, tmp_path / "data")
        assert one.says in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert not (tmp_path / "data").exists()
        return
    account = inspect(config)
    assert one.says in "\n".join(account)
    prepared = prepare(config, tmp_path / "data")
    titles = prepared.items["title"][:]
    first = prepared.sequences[0]
    assert first["user_id"] == "u0"
    assert [titles[item] for item in first["items"]] == (one.first or TITLES[:6])
    assert prepared.info["interactions"] == one.kept


def test_each_recipe_of_the_page_on_data_is_one(tmp_path: Path):
    recipes = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(recipes) == 3
    for recipe in recipes:
        (tmp_path / "mine.yaml").write_text(recipe)
        assert load_recipe(tmp_path / "mine.yaml").settings("data").domain in DOMAINS


def test_the_page_on_data_has_each_input_with_what_it_says():
    page = PAGE.read_text()
    missing = [one.name for one in INPUTS if f"| {one.name} |" not in page or one.says not in page]
    assert not missing
