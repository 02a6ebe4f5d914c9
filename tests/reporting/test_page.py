import html
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from delrec_hf.errors import InputError
from delrec_hf.reporting.page import write_report
from tests.browser import keep_picture
from tests.reporting.finished import SYSTEMS, results, write, write_run

PARTS = {
    "claims",
    "results",
    "comparisons",
    "ablations",
    "study",
    "training",
    "slices",
    "elsewhere",
    "audit",
    "protocol",
    "environment",
    "commands",
    "not-measured",
}

CONTRAST = """() => {
  const part = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.map((v) => part(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (element) => { for (let one = element; one; one = one.parentElement) {
    const c = parse(getComputedStyle(one).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c.slice(0, 3); } return [255, 255, 255]; };
  const worst = [];
  let seen = 0;
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own) continue;
    seen += 1;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color).slice(0, 3);
    const [a, b] = [light(ink), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) worst.push(`${ratio.toFixed(2)}: ${element.textContent.slice(0, 40)}`);
  }
  return [seen, worst];
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one run, which has a model and a picture of an earlier report."""
    run = write_run(tmp_path_factory.mktemp("one") / "films <i>&$x$")
    (run / "model").mkdir()
    (run / "report").mkdir()
    (run / "report" / "old.png").write_bytes(b"of an earlier report")
    return write_report([run])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs without logs that differ in the length of the prompt."""
    folder = tmp_path_factory.mktemp("two")
    runs = [
        write_run(folder / f"run-{length}", length / 1000, num_virtual_tokens=length)
        for length in (8, 80)
    ]
    for run in runs:
        shutil.rmtree(run / "logs")
    return write_report(runs)


def test_one_run_fills_every_part(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r'<section id="([^"]+)"', text)) == PARTS
    for shown in (*SYSTEMS, "0.680", "[0.649, 0.709]", "+0.080", "p 0.032", "4 min 18 s"):
        assert shown in text.replace("<wbr>", "")
    for shown in ("0.0456 of log delrec", "broken lines: 7", "NVIDIA H200", "sorted-by-id"):
        assert shown in text.replace("<wbr>", "")
    assert "num_virtual_tokens: 24" in text
    assert "what other users did after a test target was" in " ".join(text.split())


def test_a_study_says_what_is_shown_to_differ_and_what_it_cost(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("<wbr>", "")
    (part,) = re.findall(r'<section id="study".*?</section>', text, flags=re.DOTALL)
    said = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", part)).split())
    assert "The recipe and 3 variants of it" in said
    differing = said.split("differs from the recipe's in:")[1].split("It took")[0]
    assert "distil.num_virtual_tokens=96 (+0.123), other titles" in differing
    assert "=4" not in differing
    assert "It took 3 h 0 min in all" in said
    pictures = {one.name for one in (page.parent / "report").iterdir()}
    assert {"study-1.png", "study-curve-1.png"} <= pictures
    assert "study-curve-2.png" not in pictures
    assert ">num_virtual_tokens=96</text>" in part


def test_groups_show_the_main_pair_and_mark_those_of_few_users(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("<wbr>", "")
    (part,) = re.findall(r'<section id="slices".*?</section>', text, flags=re.DOTALL)
    heads = [html.unescape(one) for one in re.findall(r'<th scope="col">(.*?)</th>', part)]
    assert {"0 (100)", "1-4 (500)", "war * (12)"} <= set(heads)
    assert not [one for one in heads if "*" in one and not one.startswith("war")]
    row = part.split("delrec \N{MINUS SIGN} teacher/sasrec")[1].split("</tr>")[0]
    assert re.findall(r"<td>(.*?)</td>", row) == [
        "+0.078 <small>[+0.011, +0.144]</small>", "+0.078"
    ]  # fmt: skip
    assert "fewer than 30 users, too few to claim anything about" in part
    pictures = {one.name for one in (page.parent / "report").iterdir()}
    assert {"slices-1.png", "slices-2.png", "slices-3.png"} <= pictures
    assert ">war * (12)</text>" in part


def test_what_varies_between_seeds_is_shown_wherever_it_stands(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    for shown in ("0.654 ± 0.012 of the targets are there", "0.680 ± 0.046", "0.358 ± 0.013"):
        assert shown in text  # of other candidates and their lists
    assert "0.555 ± 0.025" in text  # agreement with the teacher
    assert "candidates are listed in another order: delrec 0.247 ± 0.013." in text


@pytest.mark.parametrize("broken", ['{"variants": 3}', '{"variants": [{"name": "a"}]}', "[]"])
def test_a_broken_study_is_refused(tmp_path: Path, broken: str) -> None:
    run = write_run(tmp_path / "run")
    (run / "study.json").write_text(broken)
    with pytest.raises(InputError, match=re.escape(str(run / "study.json"))):
        write_report([run])


def test_what_is_missing_is_named_at_the_end_and_has_no_section(tmp_path: Path) -> None:
    write(tmp_path / "mine.json", {**results(), "slices": []})
    text = write_report([tmp_path / "mine.json"]).read_text(encoding="utf-8")
    assert "<h1>mine</h1>" in text
    there = PARTS - {"slices", "audit", "environment", "commands", "study"}
    assert set(re.findall(r'<section id="([^"]+)"', text)) == there
    missing = text.split('id="not-measured"')[1]
    for what in ("delrec audit", "training curves", "run.json", "--seeds", "delrec/no-rps"):
        assert what in missing


def test_pictures_lie_beside_the_page_and_the_first_in_the_model(page: Path) -> None:
    run = page.parent
    pictures = {one.name: one.read_bytes() for one in (run / "report").iterdir()}
    assert {"results-1.png", "ablations-1.png", "stage-1-weights.png"} <= set(pictures)
    assert "old.png" not in pictures
    assert all(one.startswith(b"\x89PNG") for one in pictures.values())
    assert (run / "model" / "results.png").read_bytes() == pictures["results-1.png"]


def test_data_are_data_wherever_they_stand(page: Path, both: Path) -> None:
    for text in (page.read_text(encoding="utf-8"), both.read_text(encoding="utf-8")):
        assert "<script" not in text
        assert "films <i>" not in text
        assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; $a$ &amp;" in text
        assert "{{ 7*7 }}" in text
        assert "\u202e" not in text
        assert "\x07" not in text


def test_runs_stand_side_by_side_over_the_setting_that_they_differ_in(both: Path) -> None:
    assert both.name == "report.html"
    assert not (both.parent / "run-8" / "report.html").exists()
    text = both.read_text(encoding="utf-8")
    assert "The runs differ in distil.num_virtual_tokens.</p>" in text
    assert (both.parent / "report" / "curve-1.png").is_file()
    beside = text.split('id="side-by-side"')[1].split("<section")[0]
    assert "0.688" in beside  # delrec's NDCG@10 of the one
    assert "0.760" in beside  # and of the other


@pytest.mark.slow
@pytest.mark.parametrize("name", ["page", "both"])
def test_the_page_alone_is_read_in_a_browser(
    name: str, request: pytest.FixtureRequest, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    alone = tmp_path / "empty" / "report.html"
    alone.parent.mkdir()
    shutil.copy(request.getfixturevalue(name), alone)
    for width, scheme in ((1280, "light"), (390, "light"), (390, "dark")):
        shown = open_page(width, 844, color_scheme=scheme)
        shown.goto(alone.as_uri(), wait_until="networkidle")
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate("document.body.scrollWidth") <= width
        seen, pale = shown.evaluate(CONTRAST)
        assert seen > 200
        assert pale == []
        figures = shown.query_selector_all("figure")
        assert shown.get_by_role("img").count() == len(figures) > 0
        assert max(one.bounding_box()["width"] for one in figures) <= width
        names = shown.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
        assert len(names) == len(set(names))
        keep_picture(shown, f"report-{name}-{width}-{scheme}", tmp_path)
    wide = "[...document.querySelectorAll('.scroll')].some(one => one.scrollWidth > innerWidth)"
    assert shown.evaluate(wide)  # it is the table's own box that scrolls
