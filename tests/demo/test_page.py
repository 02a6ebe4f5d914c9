"""The page in a real browser: what people see, by mouse and keyboard, wide and narrow."""

import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delrec_hf import Recommender
from delrec_hf.cli import main
from tests.browser import keep_picture
from tests.film_rows import ITEMS, TITLES

pytestmark = pytest.mark.slow
QUICKSTART = Path(__file__).parents[2] / "runs" / "quickstart" / "model"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "`${alert(2)}` {{constructor}} </pre></script><script>alert(3)</script>",
    '"quoted" & \'so\' on" onfocus="alert(4)',
]
FEW = {f"i{number}": title for number, title in enumerate([*TITLES[:7], *HOSTILE])}


class Page:
    """The page as somebody uses it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.keyboard = page, page.keyboard
        self.dialogs: list[str] = []
        page.on("dialog", lambda one: (self.dialogs.append(one.message), one.dismiss()))
        page.set_default_timeout(60_000)
        page.goto(address)
        self.box.wait_for()

    @property
    def box(self) -> Any:
        return self.page.get_by_role("combobox", name="Add a title")

    @property
    def history(self) -> list[str]:
        items = self.page.get_by_role("list", name="History").get_by_role("listitem")
        return [one.inner_text().splitlines()[0] for one in items.all()]

    @property
    def message(self) -> str:
        return self.page.get_by_role("alert").first.inner_text()

    def add(self, text: str, title: str | None = None) -> None:
        """Type into the box, which has the focus, and take what it offers first."""
        before = len(self.history)
        self.keyboard.type(text)
        self.keyboard.press("Enter")
        rows = self.page.locator(".delrec-history li")
        rows.nth(before).wait_for()
        if title is not None:
            assert self.history[-1] == title

    def table(self, name: str) -> Any:
        found = self.page.get_by_role("table", name=name)
        found.wait_for()
        return found

    def titles(self, name: str) -> list[str]:
        return self.table(name).get_by_role("button").all_inner_texts()

    def scrolls_sideways(self) -> bool:
        found: bool = self.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        return found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_whole_way_without_a_mouse(
    with_teacher: Callable[..., Recommender],
    show: Callable[..., str],
    open_page: Callable[..., Any],
    width: int,
    scheme: str,
) -> None:
    recommender = with_teacher(FEW)
    seen = Page(open_page(width, 844, color_scheme=scheme), show(recommender))
    assert "Fargo" not in seen.page.content()  # the catalogue stays on the server
    # From the top of the page, one key leads to the box.
    seen.keyboard.press("Tab")
    assert seen.box.evaluate("box => box === document.activeElement")
    seen.keyboard.type("matr")
    options = seen.page.get_by_role("option")
    options.nth(1).wait_for()
    assert [one.inner_text().splitlines()[0] for one in options.all()] == TITLES[4:6]
    seen.keyboard.press("ArrowDown")
    assert seen.page.get_by_role("option", selected=True).inner_text().startswith(TITLES[5])
    assert seen.box.get_attribute("aria-activedescendant") == "delrec-option-1"
    seen.keyboard.press("Enter")
    assert seen.history == [TITLES[5]]
    seen.add("onerror", HOSTILE[0])
    seen.add("constructor", HOSTILE[1])
    seen.keyboard.press("Enter")  # nothing typed: rank
    history = [TITLES[5], *HOSTILE[:2]]
    found = recommender.recommend(history)
    name = "Language model and teacher"
    assert seen.titles(name) == [one.title for one in found]
    assert set(seen.titles("The teacher's own list")) == {*TITLES[:5], TITLES[6], HOSTILE[2]}
    assert (
        f"after {HOSTILE[1]} and 2 before it"
        in seen.page.locator("#delrec-ranking [role=status]").inner_text()
    )
    cells = seen.table(name).get_by_role("cell").all_inner_texts()
    first = (found[0].score, found[0].language_model, found[0].teacher)
    for cell, value in zip(cells[1:4], first, strict=True):
        assert cell.replace("\u2212", "-").startswith(f"{value:.3f}")
    assert not seen.scrolls_sideways()
    # On to the first title, and why it stands there.
    for _ in range(40):
        seen.keyboard.press("Tab")
        if seen.page.evaluate("document.activeElement.dataset.item") == found[0].item_id:
            break
    seen.keyboard.press("Enter")
    why = seen.page.get_by_role("heading", name=f"Why “{found[0].title}”?")
    why.wait_for()
    seen.page.wait_for_function(
        "title => document.activeElement.textContent.includes(title)"
        " && document.activeElement.tagName === 'H2'"
        " && document.activeElement.getBoundingClientRect().top < innerHeight",
        arg=found[0].title,
    )
    expected = recommender.explain(history, found[0].title)
    rows = seen.page.locator("#delrec-explanation section").first.locator("tbody tr").all()
    for row, one in zip(rows, expected.history, strict=True):
        assert row.get_by_role("rowheader").inner_text() == one.title
        change = one.change.parts
        spoken = f"language model {change['language_model']:+.2f}; teacher {change['teacher']:+.2f}"
        assert row.get_by_role("img", name=spoken.replace("-", "\u2212")).count() == 1
    assert not seen.scrolls_sideways()
    assert seen.dialogs == []


def test_a_history_is_arranged_with_the_mouse(
    with_teacher: Callable[..., Recommender],
    show: Callable[..., str],
    open_page: Callable[..., Any],
) -> None:
    seen = Page(open_page(), show(with_teacher()))
    seen.box.click()
    for text in ("heat", "alien", "fargo"):
        seen.keyboard.type(text)
        seen.page.get_by_role("option").first.click()
    assert seen.history == [TITLES[0], TITLES[2], TITLES[6]]
    press = seen.page.get_by_role("button", name="Move up: Fargo (1996)")
    press.click()
    press.press("Enter")  # it has kept the focus
    assert seen.history == [TITLES[6], TITLES[0], TITLES[2]]
    seen.page.get_by_role("button", name="Remove: Heat (1995)").click()
    assert seen.history == [TITLES[6], TITLES[2]]
    assert "in the history" in seen.page.locator("#delrec-asked [role=status]").inner_text()
    seen.page.get_by_role("button", name="Clear").click()
    assert seen.history == []
    seen.page.get_by_role("button", name="Example").click()
    seen.page.locator(".delrec-history li").nth(4).wait_for()
    assert len(set(seen.history)) == 5
    seen.page.get_by_role("button", name="Rank", exact=True).click()
    assert not set(seen.titles("Language model and teacher")) & set(seen.history)


def test_the_parts_and_the_number_are_a_choice(
    with_teacher: Callable[..., Recommender],
    show: Callable[..., str],
    open_page: Callable[..., Any],
) -> None:
    recommender = with_teacher()
    seen = Page(open_page(), show(recommender))
    seen.box.focus()
    seen.add("heat (1995)")
    seen.page.get_by_role("spinbutton").fill("3")
    seen.page.get_by_role("radio", name="Language model").check()
    seen.page.get_by_role("button", name="Rank", exact=True).click()
    alone = recommender.recommend([TITLES[0]], top_k=3, with_teacher=False)
    assert seen.titles("Language model") == [one.title for one in alone]
    seen.page.get_by_role("button", name=alone[1].title).first.click()
    seen.page.get_by_text("The language model's own lead").wait_for()
    assert seen.page.get_by_role("img", name=re.compile("teacher")).count() == 0
    seen.page.get_by_role("radio", name="Teacher").check()
    seen.page.get_by_role("button", name="Rank", exact=True).click()
    assert len(seen.titles("The teacher's list")) == 3
    assert seen.page.get_by_role("table").count() == 1  # no old explanation stays
    seen.table("The teacher's list").get_by_role("button").last.click()
    seen.page.get_by_text("This is the ranking by all parts").wait_for()


def test_mistakes_are_lines_on_the_page(
    with_teacher: Callable[..., Recommender],
    show: Callable[..., str],
    open_page: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    titles = {**ITEMS, "e1": "Emma", "e2": "Emma [2]"}
    seen = Page(open_page(), show(with_teacher(titles)))
    seen.page.get_by_role("button", name="Rank", exact=True).click()
    seen.page.get_by_text("The history is empty. Pick at least one title first.").wait_for()
    seen.box.focus()
    seen.keyboard.type("Aliem (1979)")
    seen.page.get_by_text("No title has all of these words.").wait_for()
    seen.keyboard.press("Enter")
    seen.page.get_by_text(
        '"Aliem (1979)" is not among the 14 known items; did you mean "Alien'
    ).wait_for()
    seen.box.fill("emma")
    seen.page.get_by_role("option").nth(1).wait_for()
    assert seen.page.get_by_role("option", selected=True).count() == 0
    seen.keyboard.press("Enter")
    seen.page.get_by_text('"emma" can mean "Emma" (id e1) or "Emma [2]" (id e2)').wait_for()
    seen.keyboard.press("ArrowDown")
    seen.keyboard.press("Enter")
    assert seen.history == ["Emma"]
    assert seen.page.get_by_text("can mean").count() == 0

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Recommender, "rank_rows", broken)
    seen.page.get_by_role("button", name="Rank", exact=True).click()
    seen.page.get_by_text("Something failed here; the log").wait_for()
    assert "secret" not in seen.page.content()
    assert "RuntimeError: a secret" in caplog.text


def test_a_model_without_a_teacher_says_so(
    make_artefact: Callable[..., Path], show: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    recommender = Recommender.from_pretrained(make_artefact(candidates="unlisted"))
    seen = Page(open_page(), show(recommender))
    assert seen.page.get_by_role("radio").count() == 1
    assert seen.page.get_by_text("This model holds no teacher").is_visible()
    seen.box.focus()
    seen.add("alien (1979)")
    seen.keyboard.press("Enter")
    assert len(seen.titles("Language model")) == 10
    assert seen.page.get_by_role("table").count() == 1


def test_one_request_at_a_time_reaches_the_model(
    with_teacher: Callable[..., Recommender],
    show: Callable[..., str],
    open_page: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock, calls = threading.Lock(), []
    real = Recommender.rank_rows

    def watched(self: Recommender, *given: Any, **named: Any) -> Any:
        calls.append(lock.acquire(blocking=False))
        try:
            time.sleep(1)
            return real(self, *given, **named)
        finally:
            if calls[-1]:
                lock.release()

    monkeypatch.setattr(Recommender, "rank_rows", watched)
    address = show(with_teacher())
    pages = [Page(open_page(), address) for _ in range(3)]
    for one in pages:
        one.box.focus()
        one.add("fargo")
    for one in pages:
        one.keyboard.press("Enter")
    for one in pages:
        one.table("Language model and teacher")
    assert calls == [True] * 3


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_quickstart_on_the_page(
    show: Callable[..., str],
    open_page: Callable[..., Any],
    tmp_path: Path,
    width: int,
    height: int,
) -> None:
    if not QUICKSTART.is_dir():  # a training of minutes; `.ci/run` has just made it
        pytest.skip("needs runs/quickstart/model, which `make quickstart` leaves")
    recommender = Recommender.from_pretrained(QUICKSTART)
    seen = Page(open_page(width, height), show(recommender, "runs/quickstart/model"))
    seen.box.focus()
    for title in ("Merrow Phantom 1", "Alder Crypt 1", "Keswick Galaxy 1", "Keswick Galaxy 2"):
        seen.add(title.lower(), title)
    seen.keyboard.press("Enter")
    first = seen.table("Language model and teacher").get_by_role("button").first
    kind = "page" if width > 640 else "phone"
    seen.page.wait_for_timeout(1000)  # until it has scrolled
    keep_picture(seen.page, f"demo-{kind}", tmp_path)
    first.click()
    seen.page.get_by_role("heading", name="Why").wait_for()
    seen.page.wait_for_timeout(1000)
    keep_picture(seen.page, f"demo-{kind}-explanation", tmp_path)
    assert not seen.scrolls_sideways()


def test_mistakes_of_the_command_are_one_line(
    make_artefact: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("gradio", reason="needs gradio, which the extra `dev` brings")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["demo", "--model", str(make_artefact()), "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1, port {port} (" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "delrec_hf.demo.server")
    monkeypatch.delitem(sys.modules, "delrec_hf.demo.page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--model", "anything"]) == 2
    assert "needs gradio: `pip install 'delrec-hf[demo]'`" in capsys.readouterr().err
