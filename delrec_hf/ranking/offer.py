"""What is ranked: given candidates, what is retrieved of a catalogue, or all of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from delrec_hf.errors import InputError
from delrec_hf.modeling.artefact import ArtefactConfig
from delrec_hf.ranking.fused_teacher import FloatArray, best_unseen
from delrec_hf.ranking.recommendation import Request

_RETRIEVED = 100


@dataclass(frozen=True)
class Offer:
    """What of a catalogue is ranked after any history.

    Attributes:
        known: How many items of the catalogue training knew.
        added: How many stand behind them, which no teacher knows.
        chosen: Rows to rank; None: those of the catalogue that the history does not hold.
        count: How many of these the teacher retrieves; None: all are ranked.
    """

    known: int
    added: int
    chosen: list[int] | None
    count: int | None

    @classmethod
    def of(
        cls,
        config: ArtefactConfig,
        known: int,
        added: int,
        candidates: Sequence[int] | None,
        retrieve: int | None,
        top_k: int,
        *,
        fuses: bool,
    ) -> "Offer":
        """Decide what is ranked, as `Recommender.recommend_many` says.

        Args:
            config: How training asked.
            known: How many items of the catalogue training knew.
            added: How many joined later.
            candidates: Rows to rank, if they are given.
            retrieve: How many the teacher shall retrieve, if that is given.
            top_k: How many are wanted in the end.
            fuses: Whether the teacher ranks, too.

        Raises:
            InputError: If these do not go together.
        """
        if candidates is not None:
            if retrieve is not None:
                raise InputError("retrieve is for the whole catalogue; give it or candidates")
            return cls(known, added, list(dict.fromkeys(candidates)), None)
        if retrieve is not None and not fuses:
            raise InputError("retrieve needs the teacher, which does not rank here; leave it out")
        if retrieve is not None and retrieve < 1:
            raise InputError(f"retrieve is {retrieve}; expected 1 or more")
        if retrieve is None and fuses:
            is_listed = config.candidates == "listed"
            retrieve = max(config.num_candidates if is_listed else _RETRIEVED, top_k)
        return cls(known, added, None, retrieve)

    def after(self, seen: list[int], advice: FloatArray | None) -> Request:
        """Return what is ranked after a history.

        Args:
            seen: Rows of its items, oldest first.
            advice: `(known + added,)` the teacher's scores, if there is a teacher.

        Raises:
            InputError: If the history is empty, or nothing is left to rank.
        """
        if not seen:
            raise InputError("the history is empty; give one title or id at least")
        offered = self._unseen(seen, advice) if self.chosen is None else self.chosen
        if not offered:
            raise InputError("there is no candidate to rank; give one title or id at least")
        return Request(seen, offered, advice, self.chosen is None and self.count is None)

    def _unseen(self, seen: list[int], advice: FloatArray | None) -> list[int]:
        met = set(seen)
        unseen = [item for item in range(self.known + self.added) if item not in met]
        if advice is None or self.count is None:
            return unseen
        new = [item for item in unseen if item >= self.known]
        return best_unseen(advice[: self.known], seen, self.count) + new
