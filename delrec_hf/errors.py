"""The one exception that stands for a user's mistake."""

import difflib
import re
from collections.abc import Iterable

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters and what else ends a line: what a terminal acts on instead of showing it."""


class InputError(ValueError):
    r"""Something the user gave cannot be used.

    The message is one line: what was given, where, what was expected, and the cure. The command
    line prints it without a traceback and exits with code 2. A line break in a value that it shows
    is written as in Python.

    >>> str(InputError("no item `a\nb`"))
    'no item `a\\nb`'
    """

    def __init__(self, message: str) -> None:
        super().__init__(_UNSEEN.sub(lambda found: repr(found[0])[1:-1], message))


def suggest(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` for the known name nearest to a misspelt one, if any is near.

    >>> suggest("learning_rat", ["learning_rate", "seed"])
    '; did you mean `learning_rate`?'
    >>> suggest("zzz", ["learning_rate"])
    ''
    """
    nearest = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean `{nearest[0]}`?" if nearest else ""
