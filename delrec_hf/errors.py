"""The one exception that stands for a user's mistake."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what was given, where, what was expected, and the cure. The command
    line prints it without a traceback and exits with code 2.
    """


def suggest(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` for the known name nearest to a misspelt one, if any is near.

    >>> suggest("learning_rat", ["learning_rate", "seed"])
    '; did you mean `learning_rate`?'
    >>> suggest("zzz", ["learning_rate"])
    ''
    """
    nearest = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean `{nearest[0]}`?" if nearest else ""
