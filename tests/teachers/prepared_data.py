"""Prepared data made from the items that each user met, in memory: no file is read."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value

from delrec_hf.data.prepared import PreparedData

LISTS = List(Value("int32"))

SEQUENCES = Features(
    {
        "user_id": Value("string"),
        "items": LISTS,
        "moments": LISTS,
        "train_end": Value("int32"),
    }
)

EXAMPLES = Features(
    {
        "user_id": Value("string"),
        "position": Value("int32"),
        "history": LISTS,
        "target": Value("int32"),
        "candidates": LISTS,
    }
)


def prepared_from(
    sequences: dict[str, Sequence[int]], num_items: int, at_once: int = 1
) -> PreparedData:
    """Split leave-one-out; candidates are the target and the two lowest items never met.

    Of each user's items, `at_once` have the same time.
    """
    rows = [
        {
            "user_id": user,
            "items": list(items),
            "moments": [place // at_once for place in range(len(items))],
            "train_end": len(items) - 2,
        }
        for user, items in sequences.items()
    ]
    examples = {"train": -3, "validation": -2, "test": -1}
    return PreparedData(
        items=Dataset.from_dict(
            {
                "item_id": [f"i{row}" for row in range(num_items)],
                "title": [f"Film {row}" for row in range(num_items)],
            }
        ),
        sequences=Dataset.from_list(rows, features=SEQUENCES),
        examples=DatasetDict(
            {
                part: Dataset.from_list(
                    [_example(user, items, place, num_items) for user, items in sequences.items()],
                    features=EXAMPLES,
                )
                for part, place in examples.items()
            }
        ),
        info={},
    )


def _example(user: str, items: Sequence[int], place: int, num_items: int) -> dict[str, Any]:
    position = len(items) + place
    unmet = [row for row in range(num_items) if row not in items]
    return {
        "user_id": user,
        "position": position,
        "history": list(items[:position]),
        "target": items[position],
        "candidates": [unmet[0], items[position], unmet[1]],
    }
