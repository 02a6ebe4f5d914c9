"""Titles among the words of a command line, also those that look like options."""

import re
from collections import deque
from collections.abc import Collection, Sequence

from delrec_hf.errors import InputError, suggest

_HELP = ("-h", "--help")
_LIKE_AN_OPTION = re.compile("--[a-z0-9_-]+(=.*)?", re.DOTALL)


def titles_as_options(
    words: Sequence[str], lists: Collection[str], options: Collection[str]
) -> list[str]:
    """Write each title behind an option of titles as `--OPTION=TITLE`, as argparse can read it.

    The words up to the next option of the command, or to `--`, are titles; so are `-h` and
    `--help` among them.

    Args:
        words: Words of a command line.
        lists: Options that titles follow.
        options: All options of the command.

    Raises:
        InputError: If a title looks like a misspelt option.

    >>> words = ["--history", "-30-", "Emma", "--help", "--top_k", "3"]
    >>> titles_as_options(words, ["--history"], ["--history", "--top_k", "--help"])
    ['--history=-30-', '--history=Emma', '--history=--help', '--top_k', '3']
    """
    written: list[str] = []
    rest = deque(words)
    while rest:
        word = rest.popleft()
        titles: list[str] = []
        while word in lists and rest and _is_title(rest[0], options):
            titles.append(rest.popleft())
        written += [f"{word}={title}" for title in titles] or [word]
    return written


def _is_title(word: str, options: Collection[str]) -> bool:
    if word in _HELP:
        return True
    name = word.partition("=")[0]
    if name in options or word == "--":
        return False
    hint = suggest(name, options) if _LIKE_AN_OPTION.fullmatch(word) else ""
    if hint:
        raise InputError(f"`{word}` is not an option{hint} As a title, write `title:{word}`")
    return True
