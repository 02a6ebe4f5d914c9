"""What the page asks of a recommender, and what it shows of the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from delrec_hf.demo.search import TitleSearch
from delrec_hf.errors import InputError
from delrec_hf.ranking.explanation import Explanation
from delrec_hf.ranking.fused_teacher import top_unseen
from delrec_hf.ranking.recommendation import Recommendation
from delrec_hf.ranking.standing import Candidate
from delrec_hf.recommender import Recommender

Parts = Literal["both", "language_model", "teacher"]

LONGEST_HISTORY = 100
MOST = 50
_EXAMPLE = 5  # titles
_LIKED = 5  # of which the next title of an example is drawn

_LABELS: dict[Parts, str] = {
    "both": "Both",
    "language_model": "Language model",
    "teacher": "Teacher",
}


@dataclass(frozen=True)
class Ranked:
    """What is shown for a history.

    Attributes:
        history: Rows of its items, oldest first.
        parts: What ranks.
        items: What the language model ranks, alone or with the teacher, best first; of the
            teacher's own ranking none.
        advised: The teacher's own list, best first; empty without a teacher.
    """

    history: list[int]
    parts: Parts
    items: list[Recommendation]
    advised: list[Candidate]


class Desk:
    """A recommender, asked by people.

    Args:
        recommender: The model.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.titles = TitleSearch(recommender.item_ids, recommender.titles)

    @property
    def parts(self) -> dict[Parts, str]:
        """What can rank, the default first, with the name of each."""
        there: list[Parts] = ["language_model"]
        if self.recommender.teacher is not None:
            there.append("teacher")
        if self.recommender.fuses(None):
            there.insert(0, "both")
        return {one: _LABELS[one] for one in there}

    @property
    def missing(self) -> str:
        """Why some parts cannot rank; empty if all can."""
        if self.recommender.teacher is None:
            return "This model holds no teacher: the language model ranks alone."
        if "both" not in self.parts:
            return "No weights for both together: `delrec evaluate` has not measured them."
        return ""

    def rows(self, history: Any) -> list[int]:
        """Return the rows of items that the page names.

        Args:
            history: A list of objects with an `id`, oldest first.

        Raises:
            InputError: If it is no such list, too long, or an id is unknown.
        """
        try:
            ids = [one["id"] for one in history]
            rows = [self._row_by_id[one] for one in ids]
        except (KeyError, TypeError) as error:
            raise InputError(
                "the page's history is not of items of this model; load the page again"
            ) from error
        if len(rows) > LONGEST_HISTORY:
            raise InputError(
                f"The history has {len(rows)} titles. This page takes at most {LONGEST_HISTORY}."
            )
        return rows

    def rank(self, history: Sequence[int], parts: Parts, top_k: int) -> Ranked:
        """Rank the catalogue after a history.

        Args:
            history: Rows, oldest first.
            parts: What ranks, one of `self.parts`.
            top_k: How many items to return.

        Raises:
            InputError: If the history is empty, a part is not there, or a number is out of range.
        """
        seen = list(history)
        if not seen:
            raise InputError("The history is empty. Pick at least one title first.")
        if parts not in get_args(Parts) or parts not in self.parts:
            raise InputError(f"this model cannot rank with `{parts}`; load the page again")
        if not 1 <= top_k <= MOST:
            raise InputError(f"{top_k} items are wanted; expected 1 to {MOST}")
        items: list[Recommendation] = []
        if parts != "teacher":
            (items,) = self.recommender.rank_rows(
                [seen], top_k=top_k, with_teacher=parts == "both", disable_tqdm=True
            )
        return Ranked(seen, parts, items, self._advised(seen, top_k))

    def explain(self, history: Sequence[int], parts: Parts, item_id: str) -> Explanation:
        """Say why an item stands where it does; of the teacher's own ranking, why by all parts."""
        ids = [f"id:{self.recommender.item_ids[row]}" for row in history]
        with_teacher = False if parts == "language_model" else None
        return self.recommender.explain(ids, f"id:{item_id}", with_teacher=with_teacher)

    def example(self, number: int) -> list[int]:
        """Return a history to start from: one item drawn, each next one liked by the teacher.

        Args:
            number: Which one; the same number is the same history.
        """
        generator = np.random.default_rng(number)
        some = list(range(len(self.recommender.titles)))
        history: list[int] = []
        while len(history) < min(_EXAMPLE, len(some) - 1):
            (advice,) = self.recommender.advise([history]) if history else (None,)
            liked = some if advice is None else top_unseen(advice, history, _LIKED)
            history.append(int(generator.choice([one for one in liked if one not in history])))
        return history

    def _advised(self, seen: list[int], top_k: int) -> list[Candidate]:
        (advice,) = self.recommender.advise([seen])
        if advice is None:
            return []
        known = advice[~np.isnan(advice)]  # what was added after training comes last
        ids, titles = self.recommender.item_ids, self.recommender.titles
        return [
            Candidate(ids[row], titles[row], float(known[row]))
            for row in top_unseen(known, [one for one in seen if one < len(known)], top_k)
        ]

    @cached_property
    def _row_by_id(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.recommender.item_ids)}
