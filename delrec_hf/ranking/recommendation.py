"""What is asked of a recommender, and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recommendation:
    """One ranked item.

    Attributes:
        item_id: Its id.
        title: Its title.
        score: What it is ranked by: the weighted sum of the two scores below, whose differences are
            log-odds, or the language model's alone.
        language_model: Score of the title as the answer (`config.scoring`), in the prompt that it
            stood in last.
        language_model_rank: Its place by that score among all that were ranked, from 1 on.
        teacher: The teacher's score, or co-occurrence's where that stands in for it; None where the
            language model ranked alone.
        teacher_rank: Its place by that score among all that were ranked, from 1 on.
        is_new: Whether it was added after training: no teacher knows it.
    """

    item_id: str
    title: str
    score: float
    language_model: float
    language_model_rank: int
    teacher: float | None = None
    teacher_rank: int | None = None
    is_new: bool = False


@dataclass(frozen=True)
class Request:
    """What is to be ranked for one history.

    Attributes:
        seen: Rows of the history's items, oldest first.
        offered: Rows of the items to rank.
        advice: `(items,)` the teacher's scores, if there is a teacher.
        is_whole: Whether all unseen items of the catalogue are offered, in its order.
    """

    seen: list[int]
    offered: list[int]
    advice: FloatArray | None
    is_whole: bool = False


@dataclass(frozen=True)
class Ranked:
    """What was ranked for one history, best first.

    Attributes:
        items: Rows.
        scores: `(items,)` what they are ranked by.
        own: `(items,)` the language model's scores.
        advice: `(items,)` the teacher's scores, NaN of new items; None where it did not join in.
    """

    items: list[int]
    scores: FloatArray
    own: FloatArray
    advice: FloatArray | None

    def recommendations(
        self, top_k: int, item_ids: Sequence[str], titles: Sequence[str], known: int
    ) -> list[Recommendation]:
        """Return the first items with what each part says of them.

        Args:
            top_k: How many.
            item_ids: Ids of the catalogue.
            titles: Titles of the catalogue.
            known: How many items training knew; the later ones are new.
        """
        own_ranks = _ranks(self.own)
        advice = np.full(len(self.items), np.nan) if self.advice is None else self.advice
        advice_ranks = _ranks(advice)
        found = []
        for place, item in enumerate(self.items[:top_k]):
            is_advised = not np.isnan(advice[place])
            found.append(
                Recommendation(
                    item_ids[item],
                    titles[item],
                    float(self.scores[place]),
                    float(self.own[place]),
                    int(own_ranks[place]),
                    float(advice[place]) if is_advised else None,
                    int(advice_ranks[place]) if is_advised else None,
                    is_new=item >= known,
                )
            )
        return found


def _ranks(scores: FloatArray) -> IntArray:
    """Return each score's place from 1 on, the highest first."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[order] = np.arange(1, len(scores) + 1)
    return ranks
