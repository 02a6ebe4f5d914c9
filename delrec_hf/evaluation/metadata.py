"""Columns of the catalogue beside the titles: genres, brands, years."""

from typing import Any

from datasets import Dataset

from delrec_hf.errors import InputError, suggest


def metadata(items: Dataset, column: str, key: str) -> list[str]:
    """Return what a column says of each item: its values parted by `|`, nothing where it has none.

    Args:
        items: The catalogue.
        column: One of its columns, of texts, numbers or lists of them.
        key: What names it in the recipe, for the error.

    Raises:
        InputError: If the items have no such column.
    """
    known = items.column_names
    if column not in known:
        raise InputError(
            f"`{key}` is `{column}`; the items have {', '.join(known)}{suggest(column, known)}"
        )
    return ["|".join(_values(one)) for one in items[column][:]]


def _values(of: Any) -> list[str]:
    """Return single values as texts; lists may hold lists, as paths of categories do.

    >>> _values([["Beauty", "Make-up"], None]), _values("Comedy| Drama"), _values(float("nan"))
    (['Beauty', 'Make-up'], ['Comedy', 'Drama'], [])
    """
    if isinstance(of, list):
        return [value for one in of for value in _values(one)]
    if of is None or of != of:  # a number that is none
        return []
    return [value.strip() for value in str(of).split("|") if value.strip()]
