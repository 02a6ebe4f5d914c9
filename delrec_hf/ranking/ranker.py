"""Ranking what is offered after histories, in prompts as training showed them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.logging import progress
from delrec_hf.modeling.artefact import ArtefactConfig
from delrec_hf.ranking import budget
from delrec_hf.ranking.asking import next_item_prompts
from delrec_hf.ranking.catalogue import FloatArray, Group, tournaments
from delrec_hf.ranking.fused_teacher import FusedTeacher
from delrec_hf.ranking.recommendation import Ranked, Request
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.whole_catalogue import CatalogueScorer

_PROMPTS_AT_ONCE = 64
_SEARCHED = 2 * budget.TOKENS
"""Tokens of titles from which the best ten are looked for, and not all scored.

A search gives up after `budget.TOKENS` and everything is scored then: half as much for nothing at
worst. Small catalogues are scored in a few forwards, faster than a search goes from token to token,
and the more are wanted, the more it reads.
"""


@dataclass(frozen=True)
class Ranker:
    """Ranks with the language model alone, or with the teacher's scores joined in.

    Attributes:
        scorer: Scores candidates behind the soft prompt.
        encoder: Writes prompts as token ids.
        config: How training asked.
        titles: Titles of the catalogue, safe in prompts.
        answers: Their token ids as answers.
        teacher: The teacher, if there is one.
    """

    scorer: CandidateScorer
    encoder: ChatEncoder
    config: ArtefactConfig
    titles: Sequence[str]
    answers: Sequence[list[int]]
    teacher: FusedTeacher | None

    def rank(
        self,
        requests: Sequence[Request],
        top_k: int,
        *,
        fuses: bool,
        disable_tqdm: bool = False,
    ) -> list[Ranked]:
        """Rank what each request offers; no request changes what another one comes to.

        Args:
            requests: What to rank.
            top_k: How many of each are wanted; more may come.
            fuses: Whether the teacher's scores join in.
            disable_tqdm: Show no progress bar.
        """
        if self.config.candidates == "listed":
            return self._by_tournaments(requests, fuses, disable_tqdm)
        if all(request.is_whole for request in requests):  # which the teacher never ranks
            return [self._from_catalogue(request, top_k) for request in requests]
        found = self._score([(request, request.offered) for request in requests])
        ranked = []
        for request, own in zip(requests, found, strict=True):
            scores = self._joined(request, request.offered, own, fuses)
            order = np.argsort(-scores, kind="stable")
            items = [request.offered[place] for place in order]
            ranked.append(self._ranked(request, items, scores[order], own[order], fuses))
        return ranked

    def _from_catalogue(self, request: Request, top_k: int) -> Ranked:
        """Rank the unseen items through the trie of all titles."""
        prompt = self._prompt(request, request.offered)
        if sum(map(len, self.answers)) < _SEARCHED * max(1, top_k / 10):
            scores = self._catalogue.score(prompt)[request.offered]
            order = np.argsort(-scores, kind="stable")
            items = [request.offered[place] for place in order]
            return Ranked(items, scores[order], scores[order], None)
        best = self._catalogue.top(prompt, top_k, set(request.seen))
        scores = np.array([score for _, score in best])
        return Ranked([item for item, _ in best], scores, scores, None)

    def _by_tournaments(
        self, requests: Sequence[Request], fuses: bool, disable_tqdm: bool
    ) -> list[Ranked]:
        """Rank with prompts that list as many candidates as those of training did."""
        own: list[dict[int, float]] = [{} for _ in requests]  # scores in each item's last round

        def score(asked: list[tuple[int, Group]]) -> list[FloatArray]:
            groups = [(requests[place], group) for place, group in asked]
            starts = range(0, len(groups), _PROMPTS_AT_ONCE)
            found: list[FloatArray] = []
            for start in progress(starts, desc="Ranking", disable_tqdm=disable_tqdm):
                found += self._score(groups[start : start + _PROMPTS_AT_ONCE])
            for (place, group), scores in zip(asked, found, strict=True):
                own[place].update(zip(group, scores.tolist(), strict=True))
            return [
                self._joined(request, group, scores, fuses)
                for (request, group), scores in zip(groups, found, strict=True)
            ]

        at_once = max(2, self.config.num_candidates)
        ranked = []
        offers = [request.offered for request in requests]
        for place, best in enumerate(tournaments(offers, at_once, score)):
            items = [item for item, _ in best]
            scores = np.array([score for _, score in best])
            last = np.array([own[place][item] for item in items])
            ranked.append(self._ranked(requests[place], items, scores, last, fuses))
        return ranked

    def _ranked(
        self,
        request: Request,
        items: list[int],
        scores: FloatArray,
        own: FloatArray,
        fuses: bool,
    ) -> Ranked:
        advice = request.advice[items] if fuses and request.advice is not None else None
        return Ranked(items, scores, own, advice)

    def _joined(
        self, request: Request, group: list[int], own: FloatArray, fuses: bool
    ) -> FloatArray:
        """Return the language model's scores of some items, joined by the teacher's if wanted."""
        if not fuses or request.advice is None or self.teacher is None:
            return own
        advice = request.advice[group]
        mean = np.nanmean(advice) if np.isfinite(advice).any() else 0.0
        return self.teacher.fuse(own, np.where(np.isnan(advice), mean, advice))

    def _score(self, groups: Sequence[tuple[Request, Group]]) -> list[FloatArray]:
        """Score groups of candidates, each in a prompt as training showed it."""
        prompts = [self._prompt(request, group) for request, group in groups]
        answers = [[self.answers[item] for item in group] for _, group in groups]
        return self._reader.score(prompts, answers)

    def _prompt(self, request: Request, group: Group) -> list[int]:
        return next_item_prompts(
            self.config, self.encoder, self.titles, request.seen, [group], request.advice
        )[0]

    @cached_property
    def _catalogue(self) -> CatalogueScorer:
        return CatalogueScorer(self._reader, self.answers)

    @cached_property
    def _reader(self) -> CandidateScorer:
        """The scorer, with what all prompts begin with read once."""
        some = [Request([item], [item], None) for item in (0, len(self.titles) - 1)]
        return self.scorer.with_prefix([self._prompt(one, one.offered) for one in some])
