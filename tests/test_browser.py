"""The browser of the tests sees what pages do, and nothing that is wrong gets past it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import keep_picture, watched


def show(page: Any, folder: Path, script: str) -> None:
    path = folder / "page.html"
    path.write_text(f"<!doctype html><h1>Shown</h1><script>{script}</script>", encoding="utf-8")
    page.goto(path.as_uri(), wait_until="networkidle")


@pytest.mark.slow
def test_a_page_is_shown_at_its_size(
    open_page: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DELREC_SCREENSHOTS", raising=False)
    page = open_page(390, 700)
    show(page, tmp_path, "document.title = innerWidth + ' by ' + innerHeight")
    assert page.title() == "390 by 700"
    assert page.get_by_role("heading").inner_text() == "Shown"
    assert keep_picture(page, "shown", folder=tmp_path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("throw new Error('mine')", "uncaught: .*mine"),
        ("Promise.reject(new Error('mine'))", "uncaught: .*mine"),
        ("console.error('mine')", "console: mine"),
        ("new Image().src = 'http://192.0.2.1:9/x.png'", "http://192.0.2.1:9/x.png"),
        ("new WebSocket('ws://192.0.2.1:9/')", "ws://192.0.2.1:9/"),
    ],
)
def test_what_a_page_does_wrong_fails(
    browser: Any, tmp_path: Path, script: str, wrong: str
) -> None:
    with pytest.raises(AssertionError, match=wrong), watched(browser, 400, 300) as page:
        show(page, tmp_path, script)
