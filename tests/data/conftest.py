"""A tiny shop as files: twelve items, five users with six items each."""

import logging
from pathlib import Path

import pytest

EVENTS = [
    (f"u{user}", f"{(3 * user + step) % 12:02d}", step) for user in range(5) for step in range(6)
]
ITEMS = [(f"{item:02d}", f"Number {item}, The") for item in range(12)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shop = tmp_path / "shop"
    shop.mkdir()
    events = "".join(f"{user},{item},{time}\n" for user, item, time in EVENTS)
    items = "".join(f'{item},"{title}"\n' for item, title in ITEMS)
    (shop / "interactions.csv").write_text("user_id,item_id,timestamp\n" + events)
    (shop / "items.csv").write_text("item_id,title\n" + items)
    return shop


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep the log of hundreds of examples out of a failure's report."""
    caplog.set_level(logging.CRITICAL, "delrec_hf")
