"""A real browser for tests of pages: headless Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # What a page asks of other machines fails at once.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
_HERE = ("127.0.0.1", "localhost", "[::1]")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the machine's Chromium with a profile of its own; skip the test where there is none.

    The browser is Playwright's own object; `watched` opens pages.
    """
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:  # no package of Python brings one; `.ci/run` installs it or fails
        pytest.skip(f"needs a browser: none of {', '.join(_NAMES)} is installed")
    reason = "needs Playwright, which the extra `dev` brings"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        try:
            yield found
        finally:
            found.close()


@contextmanager
def watched(browser: Any, width: int, height: int, **given: Any) -> Iterator[Any]:
    """Open an empty page without cookies or cache, and look at what it did when it closes.

    Args:
        browser: What `chromium` started.
        width: Of what is seen of the page, in CSS pixels.
        height: Of what is seen of the page, in CSS pixels.
        **given: Other arguments of Playwright's `new_context`, as `color_scheme="dark"`.

    Raises:
        AssertionError: If the page failed or complained in the console, or asked another machine.
    """
    faults: list[str] = []
    asked: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": height}, **given)
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda fault: faults.append(f"uncaught: {fault.error}"))
    context.on(
        "console",
        lambda line: faults.append(f"console: {line.text}") if line.type == "error" else None,
    )
    try:
        page = context.new_page()
        page.on("websocket", lambda socket: asked.append(socket.url))
        yield page
    finally:
        context.close()
    faults += [f"asked {url}" for url in asked if not _stays_here(url)]
    if faults:
        raise AssertionError("; ".join(faults))


def _stays_here(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob", "about") or (
        parts.netloc.rsplit(":", 1)[0] in _HERE
    )


def keep_picture(page: Any, name: str, folder: Path, **given: Any) -> Path:
    """Take a picture of a page; where `DELREC_SCREENSHOTS` names a folder, it goes there instead.

    Args:
        page: The page.
        name: Name of the file, without its ending.
        folder: Where it goes.
        **given: Arguments of Playwright's `screenshot`, as `full_page=True`.
    """
    path = Path(os.environ.get("DELREC_SCREENSHOTS", folder)) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, animations="disabled", **given)
    return path
