"""What moved a score: history, adapters and teacher, each measured by leaving it out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.modeling.adapters import without_lora
from delrec_hf.modeling.artefact import ArtefactConfig
from delrec_hf.ranking.asking import next_item_prompts
from delrec_hf.ranking.explanation import Explanation
from delrec_hf.ranking.fused_teacher import FloatArray, FusedTeacher, best_unseen
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.standing import (
    Adapters,
    Advice,
    Candidate,
    Change,
    HistoryItem,
    Standing,
)


class _Ranks(Protocol):
    """What is explained: a `Recommender`, which stands above this module."""

    @property
    def encoder(self) -> ChatEncoder: ...
    @property
    def config(self) -> ArtefactConfig: ...
    @property
    def item_ids(self) -> list[str]: ...
    @property
    def titles(self) -> list[str]: ...
    @property
    def teacher(self) -> FusedTeacher | None: ...
    @property
    def scorer(self) -> CandidateScorer: ...
    @property
    def safe_titles(self) -> list[str]: ...
    @property
    def answers(self) -> list[list[int]]: ...
    def find(self, text: str) -> int: ...
    def fuses(self, wanted: bool | None) -> bool: ...
    def advise(
        self, histories: Sequence[Sequence[int]]
    ) -> "Sequence[FloatArray] | Sequence[None]": ...


def explain(
    recommender: _Ranks,
    history: Sequence[str],
    candidate: str,
    candidates: Sequence[str] | None = None,
    *,
    with_teacher: bool | None = None,
) -> Explanation:
    """Measure what moves a candidate's score, and its lead over other candidates.

    Each item of the history is left out in turn, and the same candidates are scored as
    `Recommender.recommend` scores them after that shorter history, all histories in one call. Soft
    prompt and LoRA are left out one by one and together. Nothing is estimated.

    Args:
        recommender: A `Recommender`.
        history: Titles or ids, oldest first.
        candidate: Title or id of what is explained.
        candidates: Titles or ids that it is compared with, itself among them or not; by default
            as many as one prompt of training showed (`config.num_candidates`): the teacher's best
            unseen items, or without a teacher a draw from the catalogue, always the same one.
        with_teacher: See `Recommender.recommend`.

    Raises:
        InputError: If the history is empty, a title is unknown, there is nothing to compare with,
            more candidates than a prompt lists, or the teacher is wanted and not there.
    """
    if not history:
        raise InputError("the history is empty; give one title or id at least")
    seen, item = [recommender.find(text) for text in history], recommender.find(candidate)
    fuses, teacher = recommender.fuses(with_teacher), recommender.teacher
    histories = [seen, *(seen[:place] + seen[place + 1 :] for place in range(len(seen)))]
    advices = recommender.advise(histories)
    is_new = advices[0] is not None and np.isnan(advices[0][item])
    if is_new and fuses:
        raise InputError(
            f"`{recommender.titles[item]}` was added after training, and the teacher does not know "
            "it; explain it with_teacher=False"
        )
    offered = _offered(recommender, seen, item, candidates, advices[0])
    compared = _Comparison(offered, item, teacher if fuses else None)
    prompts = [
        _prompt(recommender, one, offered, advice)
        for one, advice in zip(histories, advices, strict=True)
    ]
    answers = [recommender.answers[one] for one in offered]
    scored = recommender.scorer.score(prompts, [answers] * len(prompts))
    now, *shorter = [
        compared.standing(scores, advice) for scores, advice in zip(scored, advices, strict=True)
    ]
    return Explanation(
        item_id=recommender.item_ids[item],
        title=recommender.titles[item],
        scoring=recommender.config.scoring,
        weights=teacher.fusion.to_dict() if fuses and teacher and teacher.fusion else None,
        standing=now,
        history=_history(recommender, seen, now, shorter),
        adapters=_adapters(recommender.scorer, prompts[0], answers, scored[0], compared),
        teacher=_advice(teacher, None if is_new else advices[0], seen, item),
        candidates=_ranked(recommender, offered, compared.totals(scored[0], advices[0])),
    )


@dataclass(frozen=True)
class _Comparison:
    """The same candidates, scored again and again, with a teacher or by the model alone."""

    offered: list[int]
    item: int
    teacher: FusedTeacher | None

    def totals(self, scores: FloatArray, advice: FloatArray | None) -> FloatArray:
        """Return what each candidate is ranked by, as `Recommender.recommend` does."""
        total: FloatArray = np.sum(list(self._weighted(scores, advice).values()), axis=0)
        return total

    def standing(self, scores: FloatArray, advice: FloatArray | None) -> Standing:
        """Return where the item stands by the language model's scores and the teacher's advice."""
        place = self.offered.index(self.item)
        totals = self.totals(scores, advice)
        parts = {
            name: float(values[place] - np.delete(values, place).mean())
            for name, values in self._weighted(scores, advice).items()
        }
        return Standing(
            score=float(totals[place]),
            language_model=float(scores[place]),
            teacher=None if advice is None else float(advice[self.item]),
            lead=sum(parts.values()),
            parts=parts,
            rank=1 + int((totals > totals[place]).sum()),
        )

    def _weighted(self, scores: FloatArray, advice: FloatArray | None) -> dict[str, FloatArray]:
        if self.teacher is None or self.teacher.fusion is None or advice is None:
            return {"language_model": scores}
        name = self.teacher.name
        found = self.teacher.fusion.weighted({"delrec": scores, name: advice[self.offered]})
        return {"language_model": found["delrec"], name: found[name]}


def _offered(
    recommender: _Ranks,
    seen: list[int],
    item: int,
    candidates: Sequence[str] | None,
    advice: FloatArray | None,
) -> list[int]:
    """Return what is compared, in the order in which prompts list it."""
    count = max(2, recommender.config.num_candidates)
    if candidates is not None:
        offered = list(dict.fromkeys([*map(recommender.find, candidates), item]))
    elif advice is not None:
        offered = best_unseen(advice, seen, count)
        if offered and item not in offered:
            offered[int(np.argmin(advice[offered]))] = item
    else:
        others = np.setdiff1d(np.arange(len(recommender.titles)), [*seen, item])
        generator = np.random.default_rng(0)
        drawn = generator.permutation(others)[: count - 1]
        offered = generator.permutation([item, *drawn]).tolist()
    if len(offered) < 2:
        raise InputError("there is nothing to compare the candidate with; give other candidates")
    if recommender.config.candidates == "listed" and len(offered) > count:
        raise InputError(
            f"{len(offered)} candidates are compared, and this model's prompts list {count}; give "
            f"{count - 1} others at most"
        )
    return offered


def _prompt(
    recommender: _Ranks, seen: list[int], offered: list[int], advice: FloatArray | None
) -> list[int]:
    config, encoder = recommender.config, recommender.encoder
    titles = recommender.safe_titles
    return next_item_prompts(config, encoder, titles, seen, [offered], advice)[0]


def _history(
    recommender: _Ranks, seen: list[int], now: Standing, shorter: list[Standing]
) -> list[HistoryItem]:
    first_read = len(seen) - recommender.config.history_length
    return [
        HistoryItem(
            item_id=recommender.item_ids[row],
            title=recommender.titles[row],
            is_read=place >= first_read,
            without=without,
            change=Change.between(now, without),
        )
        for place, (row, without) in enumerate(zip(seen, shorter, strict=True))
    ]


def _adapters(
    scorer: CandidateScorer,
    prompt: list[int],
    answers: list[list[int]],
    with_both: FloatArray,
    compared: _Comparison,
) -> Adapters:
    """Score the candidates with one adapter or none, by the language model alone."""
    bare = scorer.without_prompt()
    alone = replace(compared, teacher=None)
    found = [with_both, bare.score([prompt], [answers])[0]]
    with without_lora(scorer.backbone):
        found += [one.score([prompt], [answers])[0] for one in (scorer, bare)]
    both, lora, prompted, neither = [alone.standing(scores, None) for scores in found]
    return Adapters(
        both=both,
        without_prompt=lora,
        without_lora=prompted,
        neither=neither,
        soft_prompt=Change.between(both, lora),
        lora=Change.between(both, prompted),
        together=Change.between(both, neither),
    )


def _advice(
    teacher: FusedTeacher | None, advice: FloatArray | None, seen: list[int], item: int
) -> Advice | None:
    if teacher is None or advice is None:
        return None
    unseen = np.setdiff1d(np.arange(len(advice)), seen)
    rank = 1 + int((advice[unseen] > advice[item]).sum())
    return Advice(teacher.name, float(advice[item]), rank, len(unseen))


def _ranked(recommender: _Ranks, offered: list[int], totals: FloatArray) -> list[Candidate]:
    ids, titles = recommender.item_ids, recommender.titles
    return [
        Candidate(ids[offered[place]], titles[offered[place]], float(totals[place]))
        for place in np.argsort(-totals, kind="stable")
    ]
