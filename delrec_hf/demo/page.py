"""The page: a history on one side, rankings and explanations on the other."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from delrec_hf.demo import markup
from delrec_hf.demo.desk import MOST, Desk, Parts
from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger

_HISTORY = """
<label for="delrec-search">Add a title</label>
<div class="delrec-box">
  <input id="delrec-search" type="text" role="combobox" autocomplete="off" spellcheck="false"
    aria-autocomplete="list" aria-expanded="false" aria-controls="delrec-found"
    aria-describedby="delrec-hint">
  <ul id="delrec-found" role="listbox" aria-label="Titles found" hidden></ul>
</div>
<p id="delrec-hint" class="delrec-note"></p>
<p class="delrec-error" role="alert" hidden></p>
<h2 id="delrec-history-name">History <small></small></h2>
<ol class="delrec-history" aria-labelledby="delrec-history-name"></ol>
<p class="delrec-empty">Nothing yet. Add what somebody chose, oldest first, or start from an
example.</p>
<div class="delrec-tools">
  <button type="button" data-do="example">Example</button>
  <button type="button" data-do="clear">Clear</button>
</div>
<p class="delrec-unseen" role="status"></p>
"""
_TEACHERS = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser"}
_FOUND = 20  # titles that are offered while somebody types
_TITLE = 200  # characters that are looked up
_WAITING = 32

_Asked = tuple[list[int], Parts]

logger = get_logger(__name__)


def page_of(desk: Desk, model: str) -> gr.Blocks:
    """Return the page of a model.

    Args:
        desk: Answers.
        model: How the page calls it.
    """
    with gr.Blocks(title=f"DELRec · {model}", analytics_enabled=False) as page:
        gr.HTML(_header(desk, model), apply_default_css=False, js_on_load=None)
        with gr.Row():
            with gr.Column(scale=4, min_width=280):
                history = gr.HTML(
                    [],
                    html_template=_HISTORY,
                    js_on_load=_script("history.js"),
                    server_functions=_look_ups(desk),
                    apply_default_css=False,
                    container=True,
                    elem_id="delrec-asked",
                    item=desk.recommender.config.domain.item,
                )
                parts = gr.Radio(
                    [(name, one) for one, name in desk.parts.items()],
                    value=next(iter(desk.parts)),
                    label="Ranked by",
                    info=desk.missing or None,
                )
                top_k = gr.Slider(1, MOST, value=10, step=1, label="How many")
                button = gr.Button("Rank", variant="primary", elem_id="delrec-rank")
            with gr.Column(scale=9, min_width=280):
                ranking = _answer("ranking", markup.NOTHING)
                why = _answer("explanation")
        _connect(_Answers(desk), history, parts, top_k, button, ranking, why)
    page.queue(max_size=_WAITING)
    return page


def _answer(name: str, value: str = "") -> gr.HTML:
    script = _script(f"{name}.js")
    elem_id = f"delrec-{name}"
    return gr.HTML(value, js_on_load=script, apply_default_css=False, elem_id=elem_id)


def _connect(
    answers: "_Answers",
    history: gr.HTML,
    parts: gr.Radio,
    top_k: gr.Slider,
    button: gr.Button,
    ranking: gr.HTML,
    why: gr.HTML,
) -> None:
    """Let what people do on the page be answered."""
    # One at a time asks the model, in the order they came.
    line: dict[str, Any] = {
        "concurrency_id": "model",
        "concurrency_limit": 1,
        "api_visibility": "private",
    }
    asked = gr.State()
    history.example(answers.example, None, history, **line)
    given, shown = [history, parts, top_k], [ranking, why, asked]
    for event in (button.click, history.rank):
        event(answers.rank, given, shown, show_progress_on=ranking, **line)
    ranking.explain(answers.explain, asked, why, trigger_mode="always_last", **line)


def _look_ups(desk: Desk) -> list[Callable[[str], dict[str, Any]]]:
    """Return what the box for titles calls; the model has no part in it."""

    def search(text: str) -> dict[str, Any]:
        text = str(text)[:_TITLE]
        rows = desk.titles.search(text)
        return {
            "options": [_option(desk, row) for row in rows[:_FOUND]],
            "count": len(rows),
            "is_ambiguous": desk.titles.is_ambiguous(text),
        }

    def find(text: str) -> dict[str, Any]:
        try:
            return _option(desk, desk.titles.find(str(text)[:_TITLE]))
        except InputError as error:
            return {"error": str(error)}

    return [search, find]


def _option(desk: Desk, row: int) -> dict[str, str]:
    return {"id": desk.recommender.item_ids[row], "title": desk.recommender.titles[row]}


class _Answers:
    """What the page's events are answered."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def example(self) -> list[dict[str, str]]:
        """Return another history to start from."""
        return [_option(self._desk, row) for row in self._desk.example(random.randrange(1 << 32))]

    def rank(self, history: Any, parts: Any, top_k: Any) -> tuple[str, str, _Asked | None]:
        """Return rankings, no explanation yet, and what they are rankings of."""
        with _told() as line:
            rows = self._desk.rows(history)
            found = self._desk.rank(rows, parts, int(top_k))
            titles = self._desk.recommender.titles
            return markup.rankings(found, titles), "", (rows, parts)
        return markup.error(line[0]), "", None

    def explain(self, asked: _Asked | None, event: gr.EventData) -> str:
        """Return why an item stands where it does in the last ranking."""
        with _told() as line:
            if asked is None:
                raise InputError("There is no ranking here any more. Rank again first.")
            found = self._desk.explain(*asked, str(event.item))
            return markup.explanation(found, is_of_teacher=asked[1] == "teacher")
        return markup.error(line[0])


@contextmanager
def _told() -> Iterator[list[str]]:
    """Keep what goes wrong as a line for the page; a fault's traceback goes to the log."""
    line: list[str] = []
    try:
        yield line
    except InputError as error:
        line.append(str(error))
    except Exception:  # a fault of ours, of which Gradio would show "Error" over an old ranking
        logger.exception("the page could not answer")
        line.append("Something failed here; the log of this page's server says what.")


def _header(desk: Desk, model: str) -> str:
    config, count = desk.recommender.config, len(desk.recommender.titles)
    facts = [
        f"{count:,} {config.domain.items}",
        f"reads the last {config.history_length} of a history",
    ]
    teacher = desk.recommender.teacher
    if teacher is not None and teacher.name == "co-occurrence":
        facts.append("co-occurrence in the teacher's place")
    elif teacher is not None:
        kind = str(config.teacher.get("type"))
        facts.append(f"teacher {_TEACHERS.get(kind, kind)}")
    return (
        f'<header class="delrec-header"><h1>What comes next?</h1><p><code>{escape(model)}</code> '
        f"{escape(' · '.join(facts))}</p></header>"
    )


def _script(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
