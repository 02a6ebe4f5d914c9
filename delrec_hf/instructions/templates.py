"""The wording of the three tasks, per domain."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from delrec_hf.errors import InputError, suggest

TEMPLATE_VERSION = 1
"""Goes up whenever a word of the prompts changes: an adapter knows only its own wording."""

MASK = "[masked]"

_ANSWER = "Answer with its title only."


@dataclass(frozen=True)
class Domain:
    """How one kind of item is spoken about.

    Attributes:
        item: Singular noun ("movie").
        items: Plural noun ("movies").
        chosen: Past tense of what users do with an item ("watched").
        choose: Its infinitive ("watch").
    """

    item: str
    items: str
    chosen: str
    choose: str


DOMAINS: dict[str, Domain] = {
    "movie": Domain("movie", "movies", "watched", "watch"),
    "game": Domain("game", "games", "played", "play"),
    "book": Domain("book", "books", "read", "read"),
    "music": Domain("song", "songs", "heard", "hear"),
    "product": Domain("product", "products", "bought", "buy"),
}


@dataclass(frozen=True)
class WorkedExample:
    """A solved Temporal Analysis question from the start of the same user's sequence.

    Attributes:
        history: Titles before the masked item, oldest first.
        masked: Title of the masked item, which is the answer.
        following: Title of the item after it.
    """

    history: Sequence[str]
    masked: str
    following: str


def load_domain(name: str) -> Domain:
    """Return a built-in domain by name, or one's own from a YAML file.

    Args:
        name: One of `DOMAINS`, or the path of a YAML file with the keys of `Domain`.

    Raises:
        InputError: If it is neither, or the file's keys are not exactly those of `Domain`.
    """
    if name in DOMAINS:
        return DOMAINS[name]
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        raise InputError(
            f"domain `{name}` is unknown; expected one of {', '.join(DOMAINS)} or the path of a "
            f"YAML file{suggest(name, DOMAINS)}"
        )
    if not path.is_file():
        raise InputError(f"domain file {name} does not exist; give the path of a YAML file")
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    expected = [field.name for field in fields(Domain)]
    given = content if isinstance(content, dict) else {}
    if sorted(given) != sorted(expected) or not all(isinstance(v, str) for v in given.values()):
        raise InputError(
            f"domain file {name} holds the keys {sorted(given)}; expected exactly {expected}, each "
            "a word such as `item: movie`"
        )
    return Domain(**given)


def lsr_prompt(
    domain: Domain,
    history: Sequence[str],
    candidates: Sequence[str] | None = None,
    suggested: Sequence[str] | None = None,
) -> str:
    """Word LLM-based Sequential Recommendation: what comes next (paper section IV-C).

    Here as in the other tasks, without `candidates` the question is an open one.

    Args:
        domain: How the items are spoken about.
        history: Titles, oldest first.
        candidates: Titles to choose from.
        suggested: Titles that the teacher ranks first, its best first, if they are shown.
    """
    return (
        f"{_lists(domain, history, candidates, suggested)}\n"
        f"Which {_asked(domain, candidates)} will the user {domain.choose} next? {_ANSWER}"
    )


def lsr_messages(
    domain: Domain,
    history: Sequence[str],
    candidates: Sequence[str] | None = None,
    suggested: Sequence[str] | None = None,
    *,
    turns: bool = False,
) -> list[dict[str, str]]:
    """Return the chat that asks for the next item, up to the user's last turn.

    Args:
        domain: How the items are spoken about.
        history: Titles, oldest first.
        candidates: Titles to choose from.
        suggested: Titles that the teacher ranks first.
        turns: Tell the history as answers to one question after the other, instead of in a list;
            then neither candidates nor suggestions are shown.
    """
    if not turns:
        return [user_turn(lsr_prompt(domain, history, candidates, suggested))]
    items = domain.items[:1].upper() + domain.items[1:]
    chat = [user_turn(f"{items} this user {domain.chosen}, one at a time, title only.\nFirst?")]
    for title in history:
        chat += [{"role": "assistant", "content": title}, user_turn("Next?")]
    return chat


def user_turn(text: str) -> dict[str, str]:
    """Return what a user says as a chat message."""
    return {"role": "user", "content": text}


def rps_prompt(
    domain: Domain, history: Sequence[str], candidates: Sequence[str] | None = None
) -> str:
    """Word Recommendation Pattern Simulating: what the teacher ranks first (paper section IV-B)."""
    return (
        f"{_lists(domain, history, candidates)}\n"
        f"Which {_asked(domain, candidates)} does the recommendation model rank first? {_ANSWER}"
    )


def ta_prompt(
    domain: Domain,
    history: Sequence[str],
    following: str,
    candidates: Sequence[str] | None = None,
    example: WorkedExample | None = None,
) -> str:
    """Word Temporal Analysis: which item stood before the last one (paper section IV-B).

    Args:
        domain: How the items are spoken about.
        history: Titles before the masked item, oldest first.
        following: Title of the item after the masked one.
        candidates: Titles to choose from, the masked item among them.
        example: A solved question from the start of the same user's sequence.
    """
    solved = ""
    if example is not None:
        shown = "\n".join(f"- {title}" for title in [*example.history, MASK, example.following])
        solved = (
            f"Solved example, {domain.items} this user {domain.chosen} at first:\n{shown}\n"
            f"The masked {domain.item} was: {example.masked}\n"
        )
    masked = "masked" if candidates is None else f"the masked {domain.item}"
    return (
        f"{solved}{_lists(domain, [*history, MASK, following], candidates)}\n"
        f"Which {_asked(domain, candidates)} is {masked}? {_ANSWER}"
    )


def _asked(domain: Domain, candidates: Sequence[str] | None) -> str:
    return domain.item if candidates is None else "candidate"


def _lists(
    domain: Domain,
    history: Sequence[str],
    candidates: Sequence[str] | None,
    suggested: Sequence[str] | None = None,
) -> str:
    items = domain.items[:1].upper() + domain.items[1:]
    text = f"{items} this user {domain.chosen}, oldest first:\n{_lines(history)}"
    if suggested is not None:
        text += f"\nA recommender suggests, best first:\n{_lines(suggested)}"
    return text if candidates is None else f"{text}\nCandidates:\n{_lines(candidates)}"


def _lines(titles: Sequence[str]) -> str:
    return "\n".join(f"- {title}" for title in titles) or "(none)"
