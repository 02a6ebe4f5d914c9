"""What to read and how to cut it: the recipe's section `data`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from delrec_hf.errors import InputError

TABLES = ("interactions", "items")


@dataclass
class DataConfig:
    """What to read and how to cut it: the recipe's section `data`.

    Raises:
        InputError: If a value is out of its range.
    """

    path: str = field(
        metadata={
            "help": "`toy` or `toy-hidden` (made-up worlds), a folder, a file of interactions, a "
            "known dataset such as `movielens-1m`, or the Hub id of a dataset"
        }
    )
    interactions: str | None = field(
        default=None,
        metadata={
            "help": "file of the folder, or configuration, split or file of the Hub dataset, that "
            "holds the interactions, when it is not found by name"
        },
    )
    items: str | None = field(
        default=None, metadata={"help": "the same for the items and their titles"}
    )
    user_column: str | None = field(
        default=None, metadata={"help": "column of the user ids, when it is not found by name"}
    )
    item_column: str | None = field(
        default=None, metadata={"help": "column of the item ids, when it is not found by name"}
    )
    timestamp_column: str | None = field(
        default=None, metadata={"help": "column of the times, when it is not found by name"}
    )
    title_column: str | None = field(
        default=None, metadata={"help": "column of the titles, when it is not found by name"}
    )
    rating_column: str | None = field(
        default=None, metadata={"help": "column of the ratings, when it is not found by name"}
    )
    column_names: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": "names of the columns of files without a header: `{interactions: [user_id, "
            "item_id, timestamp], items: [item_id, title]}`"
        },
    )
    separator: str | None = field(
        default=None,
        metadata={"help": "what stands between columns of text files, when it is not found"},
    )
    encoding: str | None = field(
        default=None,
        metadata={"help": "encoding of text files that are neither UTF-8 nor say what they are"},
    )
    timestamp_format: str | None = field(
        default=None,
        metadata={"help": "how times are written, as strptime has it: `%d/%m/%Y %H:%M`"},
    )
    min_rating: float | None = field(
        default=None, metadata={"help": "leave out interactions rated lower, or not at all"}
    )
    keep: dict[str, Any] | None = field(
        default=None,
        metadata={"help": "keep rows with these values alone: `{event_type: [purchase]}`"},
    )
    repeats: Literal["first", "last"] = field(
        default="first",
        metadata={"help": "which interaction counts where a user meets an item again"},
    )
    min_user_interactions: int = field(
        default=0, metadata={"help": "leave out users with fewer items, until all have as many"}
    )
    min_item_interactions: int = field(
        default=0, metadata={"help": "leave out items with fewer users, until all have as many"}
    )
    drop_unusable: bool = field(
        default=False,
        metadata={
            "help": "leave out what cannot be used (lines of other lengths, rows without an id or "
            "time, items without a title, interactions with unknown items) instead of refusing it"
        },
    )
    name: str | None = field(
        default=None, metadata={"help": "the dataset's name in reports (default: the folder's)"}
    )
    terms: str | None = field(
        default=None, metadata={"help": "licence or terms of the data, for the card"}
    )
    domain: str = field(
        default="movie",
        metadata={"help": "how prompts speak of items: movie, game, book, music, product, or YAML"},
    )
    split: Literal["leave-one-out", "time"] = field(
        default="leave-one-out",
        metadata={"help": "hold out each user's last two items, or what came last in time"},
    )
    validation_share: float = field(
        default=0.1, metadata={"help": "split by time: share of interactions for validation"}
    )
    test_share: float = field(
        default=0.1, metadata={"help": "split by time: share of interactions for the test"}
    )
    history_length: int = field(default=10, metadata={"help": "items that a prompt shows at most"})
    num_candidates: int = field(
        default=20, metadata={"help": "items to choose from, the right one included"}
    )
    train_prefixes: int = field(
        default=5, metadata={"help": "training examples per user: the last so many training items"}
    )
    max_title_characters: int = field(
        default=100, metadata={"help": "longer titles are cut after a word"}
    )
    seed: int = field(default=42, metadata={"help": "decides the candidates"})

    def __post_init__(self) -> None:
        least = {
            "history_length": 1,
            "num_candidates": 2,
            "train_prefixes": 1,
            "max_title_characters": 20,
            "min_user_interactions": 0,
            "min_item_interactions": 0,
        }
        for key, smallest in least.items():
            if getattr(self, key) < smallest:
                raise InputError(
                    f"recipe key `data.{key}` is {getattr(self, key)}; expected {smallest} or more"
                )
        shares = (self.validation_share, self.test_share)
        if not (min(shares) > 0 and sum(shares) < 1):
            raise InputError(
                f"recipe keys `data.validation_share` and `data.test_share` are {shares[0]} and "
                f"{shares[1]}; expected two numbers above 0 that leave something for training"
            )
        separator = "," if self.separator is None else self.separator
        if len(separator) != 1 or not separator.isascii() or separator in '"\x00\r\n':
            raise InputError(
                f"recipe key `data.separator` is {separator!r}; expected one ASCII character, no "
                "quote and no line break"
            )
        self.names_of("interactions")
        self.kept_values()

    @property
    def dataset_name(self) -> str:
        """The dataset's name in reports."""
        path = Path(self.path).expanduser()
        if self.name or not path.exists():
            return self.name or self.path
        return (path if path.is_dir() else path.parent).resolve().name

    def names_of(self, table: str) -> list[str] | None:
        """Return the names that `column_names` gives to the columns of `interactions` or `items`.

        Raises:
            InputError: If `column_names` is of another form.
        """
        given = self.column_names
        is_well = given is None or (
            isinstance(given, dict)
            and set(given) <= set(TABLES)
            and all(
                isinstance(names, list) and names and all(isinstance(one, str) for one in names)
                for names in given.values()
            )
        )
        if not is_well:
            raise InputError(
                f"recipe key `data.column_names` is {given!r}; expected lists of names, as in "
                "`{interactions: [user_id, item_id, timestamp], items: [item_id, title]}`"
            )
        return None if given is None else given.get(table)

    def kept_values(self) -> dict[str, list[str]]:
        """Return the values that `keep` names, as texts, by column.

        Raises:
            InputError: If `keep` is of another form.
        """
        found = {}
        for column, values in ({} if self.keep is None else _mapping(self.keep)).items():
            listed = values if isinstance(values, list) else [values]
            if not listed or any(isinstance(one, (dict, list)) or one is None for one in listed):
                raise _bad_keep(self.keep)
            found[str(column)] = [_text(one) for one in listed]
        return found


def _mapping(keep: Any) -> dict[Any, Any]:
    if not isinstance(keep, dict) or not keep:
        raise _bad_keep(keep)
    return keep


def _bad_keep(keep: Any) -> InputError:
    return InputError(
        f"recipe key `data.keep` is {keep!r}; expected a column and the values to keep, as in "
        "`{event_type: [purchase]}`"
    )


def _text(value: Any) -> str:
    """Return a value as arrow writes it: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
