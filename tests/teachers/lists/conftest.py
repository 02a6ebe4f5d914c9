"""Ranked lists as a table and as a file."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from delrec_hf.data.prepared import PreparedData
from tests.teachers.lists.honest_lists import honest_lists

Write = Callable[[pd.DataFrame], Path]


@pytest.fixture
def lists(prepared: PreparedData) -> pd.DataFrame:
    return honest_lists(prepared)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(frame: pd.DataFrame) -> Path:
        path = tmp_path / "lists.parquet"
        frame.to_parquet(path, index=False)
        return path

    return make
