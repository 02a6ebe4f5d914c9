"""What the systems' top lists are like: the facts `lists` of results.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from delrec_hf.data.prepared import PreparedData
from delrec_hf.evaluation.evaluator import Scores
from delrec_hf.evaluation.lists import LENGTH, FloatArray, list_properties, top_lists
from delrec_hf.evaluation.metadata import metadata
from delrec_hf.teachers.baselines import Popularity
from delrec_hf.teachers.histories import flatten

CATEGORY_COLUMNS = ("genres", "genre", "categories", "category")
"""Columns of metadata that diversity goes by where a recipe names none."""


@dataclass(frozen=True)
class Describer:
    """Says what systems' top lists are like.

    Attributes:
        counts: `(items,)` training interactions of each item.
        num_users: Users with training interactions.
        column: The column that diversity goes by; None: there is none.
        categories: Its values, `(items,)`.
    """

    counts: FloatArray
    num_users: int
    column: str | None
    categories: Sequence[str] | None

    @classmethod
    def of(cls, prepared: PreparedData, column: str | None) -> "Describer":
        """Read what is needed of prepared data.

        Args:
            prepared: The data.
            column: Metadata that diversity goes by; None: one of `CATEGORY_COLUMNS`, if there is.

        Raises:
            InputError: If the items have no such column.
        """
        if column is None:
            known = prepared.items.column_names
            column = next((name for name in CATEGORY_COLUMNS if name in known), None)
        return cls(
            Popularity.fit(prepared).counts,
            int((np.array(prepared.sequences["train_end"][:]) > 0).sum()),
            column,
            None
            if column is None
            else metadata(prepared.items, column, "evaluate.diversity_column"),
        )

    def facts(self, scores: Scores, names: Mapping[str, str]) -> dict[str, Any]:
        """Return the block `lists` of results.json.

        Args:
            scores: What each system gave to each candidate.
            names: System name to what the report calls it.
        """
        number = len(scores.examples)
        items = flatten(scores.examples, "candidates")[0].reshape(number, -1) if number else None
        return {
            "length": LENGTH,
            "users": number,
            "diversity_column": self.column,
            "systems": {
                names[system]: list_properties(
                    top_lists(found, items), self.counts, self.num_users, self.categories
                )
                for system, found in scores.by_system.items()
                if items is not None
            },
        }
