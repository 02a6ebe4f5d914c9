"""All that is wrong with a dataset, found before anything is said."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from delrec_hf.errors import InputError

_SHOWN_CHARACTERS, _SHOWN_NAMES = 80, 20


def shown(value: object) -> str:
    """Return a value as a message shows it: its beginning, where it is long."""
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def listed(names: Sequence[str]) -> str:
    """Return names as a message lists them: the first ones, where there are many.

    >>> listed(["user", "item"]), listed([str(number) for number in range(99)])[-19:]
    ('user, item', '19, ... (99 in all)')
    """
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(map(shown, names[:_SHOWN_NAMES])) + more


@dataclass(frozen=True)
class Problem:
    """One kind of fault.

    Attributes:
        message: What and where, with one example.
        rows: How many rows or items have it; 0 where the whole table has.
        can_drop: Whether these rows can be left out.
    """

    message: str
    rows: int = 0
    can_drop: bool = False


@dataclass
class Problems:
    """Faults in the order they were found."""

    found: list[Problem] = field(default_factory=list)

    def add(self, message: str, rows: int = 0, *, can_drop: bool = False) -> None:
        """Note a fault."""
        self.found.append(Problem(message, rows, can_drop))

    def refuse(self, *, all_but_droppable: bool = False) -> None:
        """Raise with every fault found, the worst first.

        What makes a whole table unreadable is worst, then what hits the most rows.

        Args:
            all_but_droppable: Let pass what is left out instead.

        Raises:
            InputError: If there is a fault.
        """
        counted = [one for one in self.found if not (one.can_drop and all_but_droppable)]
        if not counted:
            return
        counted = list({one.message: one for one in counted}.values())
        counted.sort(key=lambda one: (one.can_drop, -one.rows))
        text = counted[0].message
        if len(counted) > 1:
            listed = "; ".join(f"({number}) {one.message}" for number, one in enumerate(counted, 1))
            text = f"{len(counted)} problems, the worst first: {listed}"
        if any(one.can_drop for one in counted):
            text += "; mend these rows, or leave them out with data.drop_unusable: true"
        raise InputError(text)
