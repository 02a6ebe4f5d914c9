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
        teacher: The teacher's score; None where the language model ranked alone.
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
    """

    seen: list[int]
    offered: list[int]
    advice: FloatArray | None


def recommendations(
    request: Request,
    order: IntArray,
    scores: FloatArray,
    own: FloatArray,
    fuses: bool,
    item_ids: Sequence[str],
    titles: Sequence[str],
) -> list[Recommendation]:
    """Return the items at some places of a request with what each part says of them.

    Args:
        request: What was ranked.
        order: Places in `request.offered` to return, best first.
        scores: `(offered,)` what is ranked by.
        own: `(offered,)` the language model's scores.
        fuses: Whether the teacher's scores have joined in.
        item_ids: Ids of the catalogue.
        titles: Titles of the catalogue.
    """
    items = np.array(request.offered)
    own_ranks = _ranks(own)
    advice = np.full(len(items), np.nan)
    if fuses and request.advice is not None:
        advice = request.advice[items]
    advice_ranks = _ranks(advice)
    found = []
    for place in order:
        is_advised = not np.isnan(advice[place])
        found.append(
            Recommendation(
                item_ids[items[place]],
                titles[items[place]],
                float(scores[place]),
                float(own[place]),
                int(own_ranks[place]),
                float(advice[place]) if is_advised else None,
                int(advice_ranks[place]) if is_advised else None,
            )
        )
    return found


def _ranks(scores: FloatArray) -> IntArray:
    """Return each score's place from 1 on, the highest first."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[order] = np.arange(1, len(scores) + 1)
    return ranks
