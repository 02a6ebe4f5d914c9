"""Where a candidate stands among others, and what moves it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """Where a candidate stands among the candidates.

    Attributes:
        score: What it is ranked by.
        language_model: The language model's score (`Explanation.scoring`).
        teacher: The teacher's score, or co-occurrence's where that stands in, if there is either.
        lead: How far `score` lies above the mean of the other candidates: what counts in a ranking.
        parts: What `language_model` and, in a fusion, the teacher give to the lead, weighted; they
            add up to it.
        rank: 1 and one more for each candidate with a higher score.
    """

    score: float
    language_model: float
    teacher: float | None
    lead: float
    parts: dict[str, float]
    rank: int


@dataclass(frozen=True)
class Change:
    """How far something moves a standing: with it, less without it.

    Attributes:
        score: Change of the score.
        lead: Change of the lead.
        parts: Changes of what makes the lead; they add up to it.
    """

    score: float
    lead: float
    parts: dict[str, float]

    @classmethod
    def between(cls, there: Standing, left_out: Standing) -> "Change":
        """Return the first standing less the second."""
        return cls(
            there.score - left_out.score,
            there.lead - left_out.lead,
            {name: value - left_out.parts[name] for name, value in there.parts.items()},
        )


@dataclass(frozen=True)
class HistoryItem:
    """An item of the history.

    Attributes:
        item_id: Its id.
        title: Its title.
        is_read: Whether the language model reads it: a prompt shows the last items alone.
        without: Where the candidate stands after the same history without it.
        change: What it moves.
    """

    item_id: str
    title: str
    is_read: bool
    without: Standing
    change: Change


@dataclass(frozen=True)
class Adapters:
    """What the adapters do to the language model's own score; the teacher has no part in it.

    Attributes:
        both: Where the candidate stands by the language model as it is.
        without_prompt: The same with LoRA alone.
        without_lora: The same with the soft prompt alone.
        neither: The same by the bare backbone.
        soft_prompt: What the soft prompt moves, LoRA being there.
        lora: What LoRA moves, the soft prompt being there.
        together: What both move.
    """

    both: Standing
    without_prompt: Standing
    without_lora: Standing
    neither: Standing
    soft_prompt: Change
    lora: Change
    together: Change


@dataclass(frozen=True)
class Advice:
    """What the teacher says of a candidate.

    Attributes:
        by: `teacher`, or `co-occurrence` where that stands in for it.
        score: Its score.
        rank: Its rank among the items that are not in the history.
        unseen: How many these are.
    """

    by: str
    score: float
    rank: int
    unseen: int


@dataclass(frozen=True)
class Candidate:
    """One of those that are compared.

    Attributes:
        item_id: Its id.
        title: Its title.
        score: What it is ranked by.
    """

    item_id: str
    title: str
    score: float
