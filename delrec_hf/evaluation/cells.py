"""What stands in a cell of a table: numbers, names, and how sure they are."""

from collections.abc import Mapping
from typing import Any

from delrec_hf.evaluation.table import one_line

UNKNOWN = "-"


def heading(metric: Any) -> str:
    """Return what a metric is called.

    >>> heading("ndcg@10"), heading("log_loss")
    ('NDCG@10', 'LOG-LOSS')
    """
    return str(metric).upper().replace("_", "-")


def over_seeds(one: Mapping[str, Any], name: str) -> str:
    """Show a number, and how it varies between seeds where there are several."""
    spread = one.get("sd", {}).get(name)
    return number(one.get(name)) + ("" if spread is None else f" ± {number(spread)}")


def number(value: Any, sign: bool = False) -> str:
    """Return a number to three digits, or a dash for what is none."""
    if not isinstance(value, int | float):
        return UNKNOWN
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def interval(bounds: Any, sign: bool = False) -> str:
    """Return an interval in brackets, or nothing."""
    if bounds is None:
        return ""
    low, high = (number(bound, sign) for bound in bounds)
    return f" [{low}, {high}]"


def shortened(name: Any, longest: int = 22) -> str:
    """Return a name on one line, cut to a length.

    >>> shortened("a name  on a line of its own")
    'a name on a line of i…'
    """
    text = one_line(name)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def paired(one: Mapping[str, Any]) -> str:
    """Show an entry of `comparisons`: the difference and its interval."""
    return number(one.get("difference"), sign=True) + interval(one.get("ci95"), sign=True)
