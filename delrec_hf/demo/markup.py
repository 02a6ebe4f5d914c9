"""Rankings and explanations as HTML; whatever titles hold is text."""

import base64
from collections.abc import Sequence
from html import escape

from delrec_hf.demo.desk import Ranked
from delrec_hf.ranking.bars import Bar, Panel, with_minus
from delrec_hf.ranking.explanation import Explanation
from delrec_hf.ranking.standing import Candidate

_BY = {
    "both": "the language model and the teacher",
    "language_model": "the language model alone",
    "teacher": "the teacher alone",
}
NOTHING = (
    '<div class="delrec-nothing"><p>The ranking will stand here: every title with its score, '
    "and why it stands where it does.</p></div>"
)


def error(line: str) -> str:
    """Return a message in place of an answer."""
    return f'<p class="delrec-error" role="alert">{escape(line)}</p>'


def rankings(found: Ranked, titles: Sequence[str]) -> str:
    """Return the ranked items, and the teacher's list beside them.

    Args:
        found: What is shown.
        titles: Titles of the catalogue.
    """
    count = len(found.items or found.advised)
    after = escape(titles[found.history[-1]])
    more = f" and {len(found.history) - 1} before it" if len(found.history) > 1 else ""
    head = (
        f'<h2>Ranking</h2><p role="status">{count} titles after <em>{after}</em>{more}, '
        f"ranked by {_BY[found.parts]}. Choose one to see why it stands there.</p>"
    )
    if found.parts == "teacher":
        lists = _advised("The teacher's list", found.advised)
    else:
        lists = _ranked(found)
        if found.advised:
            lists += _advised("The teacher's own list", found.advised)
    return f'{head}<div class="delrec-lists">{lists}</div>'


def _ranked(found: Ranked) -> str:
    both = found.parts == "both"
    rows = []
    for rank, one in enumerate(found.items, start=1):
        cells = [_cell(_number(one.score))]
        if both:
            cells.append(_part("Language model", one.language_model, one.language_model_rank))
            cells.append(_part("Teacher", one.teacher, one.teacher_rank))
        rows.append(_item(rank, one.item_id, one.title, *cells))
    if both:
        return _list("Language model and teacher", ["Score", "Language model", "Teacher"], rows)
    return _list("Language model", ["Score"], rows)


def _part(name: str, value: float | None, rank: int | None) -> str:
    shown = "&ndash;" if value is None else f"{_number(value)} <small>#{rank}</small>"
    return _cell(shown, "delrec-number delrec-part", name)


def _advised(caption: str, advised: Sequence[Candidate]) -> str:
    rows = [
        _item(rank, one.item_id, one.title, _cell(_number(one.score)))
        for rank, one in enumerate(advised, start=1)
    ]
    return _list(caption, ["Score"], rows)


def _item(rank: int, item_id: str, title: str, *cells: str) -> str:
    button = f'<button type="button" data-item="{escape(item_id)}">{escape(title)}</button>'
    return _row(button, *cells, before=_cell(str(rank), "delrec-rank"))


def _list(caption: str, columns: Sequence[str], rows: Sequence[str]) -> str:
    heads = [_head(_unseen("Rank")), _head("Title")]
    heads += [_head(one, ' class="delrec-number"') for one in columns]
    return f'<section class="delrec-list">{_table(caption, heads, rows)}</section>'


def explanation(found: Explanation, is_of_teacher: bool) -> str:
    """Return an explanation as charts, with its text and picture below.

    Args:
        found: The explanation.
        is_of_teacher: Whether it was asked of the teacher's own ranking.
    """
    facts = [with_minus(escape(one)) for one in found.facts()]
    if is_of_teacher:
        facts.append("This is the ranking by all parts; the teacher's own has none to leave out.")
    series = found.series()
    picture = "data:image/svg+xml;base64," + base64.b64encode(found.figure().encode()).decode()
    return (
        f'<h2 tabindex="-1">Why “{escape(found.title)}”?</h2>'
        f'<ul class="delrec-facts">{"".join(f"<li>{one}</li>" for one in facts)}</ul>'
        f"{_legend(series)}"
        f'<div class="delrec-panels">{"".join(_panel(one, series) for one in found.panels())}</div>'
        f"<details><summary>The same as text</summary><pre>{escape(found.text())}</pre></details>"
        f'<p><a download="why.svg" href="{picture}">Save as picture</a></p>'
    )


def _legend(series: Sequence[str]) -> str:
    if len(series) < 2:
        return ""
    keys = [f'<li><i class="delrec-bar-{n}"></i>{one}</li>' for n, one in enumerate(series)]
    return f'<ul class="delrec-legend" aria-hidden="true">{"".join(keys)}</ul>'


def _panel(panel: Panel, series: Sequence[str]) -> str:
    values = [0.0, *(value for bar in panel.bars for value in bar.values)]
    low, width = min(values), (max(values) - min(values)) or 1.0
    names = series if len(panel.bars[0].values) > 1 else [panel.columns[0]]
    rows = [_bar(bar, panel.columns, names, low, width) for bar in panel.bars]
    notes = "".join(f'<p class="delrec-note">{with_minus(escape(one))}</p>' for one in panel.notes)
    heads = [_head(_unseen("What")), _head(_unseen("Bars"))]
    heads += [_head(one, ' class="delrec-number"') for one in panel.columns]
    return f"<section><h3>{escape(panel.heading)}</h3>{notes}{_table('', heads, rows)}</section>"


def _bar(bar: Bar, columns: Sequence[str], names: Sequence[str], low: float, width: float) -> str:
    zero = -low / width * 100
    drawn = "".join(
        f'<i class="delrec-bar-{number}" style="left:{min(zero, zero + 100 * value / width):.2f}%;'
        f'width:{100 * abs(value) / width:.2f}%"></i>'
        for number, value in enumerate(bar.values)
    )
    values = zip(names, bar.values, strict=True)
    spoken = with_minus("; ".join(f"{name} {value:+.2f}" for name, value in values))
    bars = f'<div role="img" aria-label="{spoken}" title="{spoken}">{drawn}</div>'
    numbers = zip(columns, (with_minus(f"{bar.total:+.2f}"), escape(bar.note)), strict=True)
    return _row(
        escape(bar.label),
        f'<td role="cell" class="delrec-bars" style="--zero:{zero:.2f}%">{bars}</td>',
        *(_cell(text, name=name) for name, text in numbers),
    )


def _table(caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    # Roles are given since rows become blocks on narrow screens, which takes theirs away.
    named = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<table role="table">{named}<thead role="rowgroup"><tr role="row">{"".join(heads)}</tr>'
        f'</thead><tbody role="rowgroup">{"".join(rows)}</tbody></table>'
    )


def _head(text: str, more: str = "") -> str:
    return f'<th role="columnheader" scope="col"{more}>{text}</th>'


def _row(name: str, *cells: str, before: str = "") -> str:
    header = f'<th role="rowheader" scope="row">{name}</th>'
    return f'<tr role="row">{before}{header}{"".join(cells)}</tr>'


def _cell(text: str, kind: str = "delrec-number", name: str = "") -> str:
    # Narrow screens have no heads, and show the name beside the number.
    named = f' data-part="{name}"' if name else ""
    return f'<td role="cell" class="{kind}"{named}>{text}</td>'


def _unseen(text: str) -> str:
    return f'<span class="delrec-unseen">{text}</span>'


def _number(value: float) -> str:
    return with_minus(f"{value:.3f}")
