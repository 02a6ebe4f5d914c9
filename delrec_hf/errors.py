"""What a user can cure: the one exception that stands for a mistake, and faults of the machine."""

import difflib
import errno
import re
from collections.abc import Iterable

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters and what else ends a line: what a terminal acts on instead of showing it."""


_CURES = {
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room in your share of its disk",
    errno.EFBIG: "raise the limit on the size of a file",
    errno.EACCES: "give this user the right to it",
    errno.EPERM: "give this user the right to it",
    errno.EROFS: "make its disk writable",
    errno.EIO: "see to its disk",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.ENFILE: "raise the limit on open files",
}
"""What ends a command without a mistake of its code, and the cure."""


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


def fault_of_machine(fault: BaseException) -> str | None:
    """Return the line for a full disk, a lost permission and the like; None for any other fault.

    >>> fault_of_machine(OSError(errno.ENOSPC, "No space left on device", "run/model"))
    'run/model: No space left on device; make room on its disk and run the same command again'
    >>> fault_of_machine(OSError("no errno"))
    """
    if not isinstance(fault, OSError) or fault.errno not in _CURES:
        return None
    place, cure = fault.filename or "a file", _CURES[fault.errno]
    return f"{place}: {fault.strerror}; {cure} and run the same command again"
