"""A finished model as one object: histories in, ranked items out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from delrec_hf.data.lookup import ItemIndex
from delrec_hf.errors import InputError
from delrec_hf.explain import explain
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.titles import safe_titles
from delrec_hf.logging import progress
from delrec_hf.modeling.artefact import ArtefactConfig, artefact_folder, read_catalogue
from delrec_hf.modeling.backbone import Dtype, load_tokenizer
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.explanation import Explanation
from delrec_hf.ranking.fused_teacher import FloatArray, FusedTeacher
from delrec_hf.ranking.new_items import log_priors, new_titles
from delrec_hf.ranking.offer import Offer
from delrec_hf.ranking.ranker import Ranker
from delrec_hf.ranking.recommendation import Ranked, Recommendation
from delrec_hf.ranking.rows import scorer_of
from delrec_hf.ranking.scoring import CandidateScorer, Scoring

_HISTORIES_AT_ONCE = 16


@dataclass(frozen=True)
class Recommender:
    """Ranks items after a history with a finished model.

    Attributes:
        model: The stacked model.
        encoder: Writes prompts as token ids.
        config: What the model was trained on.
        item_ids: Ids of the catalogue.
        titles: Their titles.
        log_priors: Their titles' log-probabilities without a history, for calibrated scores.
        teacher: The teacher, or co-occurrence in its stead, if prompts show what it says or there
            are weights of a fusion with it.
        added: How many items at the end were added after training.
    """

    model: DelRecModel
    encoder: ChatEncoder
    config: ArtefactConfig
    item_ids: list[str]
    titles: list[str]
    log_priors: list[float]
    teacher: FusedTeacher | None = None
    added: int = 0

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        base_model: str | None = None,
        torch_dtype: Dtype | None = None,
        load_in_4bit: bool | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> "Recommender":
        """Load a model from a folder or the Hub.

        Args:
            model: Folder or Hub id.
            revision: Commit, tag or branch on the Hub.
            base_model: Backbone to use instead of the recorded one.
            torch_dtype: Dtype of the backbone's weights; by default the one it was trained in.
            load_in_4bit: Quantise the backbone to 4 bits, or do not; by default as it was trained.
            device: Where to run; by default the accelerator if there is one.
            trust_remote_code: Whether the backbone's repository may run its own code.

        Raises:
            InputError: If the model cannot be loaded.
        """
        folder = artefact_folder(model, revision)
        config = ArtefactConfig.load(folder)
        catalogue = read_catalogue(folder)
        if device is None:
            found = torch.accelerator.current_accelerator()
            device = "cpu" if found is None else found.type
        stacked = DelRecModel.from_pretrained(
            folder,
            base_model=base_model,
            torch_dtype=torch_dtype,
            load_in_4bit=load_in_4bit,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
        return cls(
            stacked,
            ChatEncoder(tokenizer),
            config,
            item_ids=catalogue["item_id"],
            titles=catalogue["title"],
            log_priors=catalogue.get("log_prior", []),
            teacher=FusedTeacher.load(folder, config, catalogue["item_id"], device),
        )

    def add_items(self, items: Mapping[str, str]) -> "Recommender":
        """Return a recommender that knows further items, without training.

        Their titles are cleaned and told apart as the catalogue's were. The language model ranks
        them as all others; the teacher has never met them, does not read them in a history, and has
        no score for them: beside it they are always among what is ranked, and its part of their
        score is the mean of the others'. Recommendations mark them (`is_new`).

        Args:
            items: New ids to titles.

        Raises:
            InputError: If an id is known already, or a title is empty.
        """
        titles = new_titles(self.item_ids, self.titles, items)
        more = replace(
            self,
            item_ids=[*self.item_ids, *items],
            titles=[*self.titles, *titles],
            added=self.added + len(items),
        )
        if self.config.scoring != "calibrated":
            return more
        answers = more.answers[len(self.titles) :]
        priors = log_priors(self.model.backbone, self.encoder, self.config, answers)
        return replace(more, log_priors=[*self.log_priors, *priors])

    def recommend(
        self,
        history: Sequence[str],
        candidates: Sequence[str] | None = None,
        top_k: int = 10,
        *,
        with_teacher: bool | None = None,
        retrieve: int | None = None,
        disable_tqdm: bool = False,
    ) -> list[Recommendation]:
        """Rank items as the next one after a history; see `recommend_many`.

        Args:
            history: Titles or ids, oldest first.
            candidates: Titles or ids to rank; by default the catalogue without the history.
            top_k: How many to return.
            with_teacher: Whether the teacher's scores join in.
            retrieve: How many items of the catalogue the teacher retrieves.
            disable_tqdm: Show no progress bar.

        Returns:
            At most `top_k` recommendations, best first.

        Raises:
            InputError: See `recommend_many`.
        """
        return self.recommend_many(
            [history],
            candidates,
            top_k,
            with_teacher=with_teacher,
            retrieve=retrieve,
            disable_tqdm=disable_tqdm,
        )[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        candidates: Sequence[str] | None = None,
        top_k: int = 10,
        *,
        with_teacher: bool | None = None,
        retrieve: int | None = None,
        disable_tqdm: bool = False,
    ) -> list[list[Recommendation]]:
        """Rank items as the next one after each of several histories, several at once.

        With the teacher, the language model does not read the whole catalogue: the teacher
        retrieves its best unseen items, and these are ranked by both.

        Args:
            histories: Titles or ids, oldest first (`id:21` and `title:21` where one is also the
                other); the language model reads the last `config.history_length`, the teacher as
                many as it can.
            candidates: Titles or ids to rank; by default the catalogue without the history.
            top_k: How many to return.
            with_teacher: Fuse the language model's scores with the teacher's; False: the language
                model alone; by default fused where the artefact holds teacher and weights.
            retrieve: How many items of the catalogue the teacher retrieves; by default 100, or, of
                a model whose prompts list candidates, what one prompt of training showed
                (`config.num_candidates`); `top_k` if that is more. More than one prompt lists go
                through a tournament of prompts.
            disable_tqdm: Show no progress bar.

        Returns:
            For each history at most `top_k` recommendations, best first. They do not depend on the
            other histories.

        Raises:
            InputError: If a history is empty, a title is unknown or means several items, a number
                is below 1, or the teacher or its weights are wanted and not there.
        """
        return self.rank_rows(
            [[self.find(text) for text in history] for history in histories],
            None if candidates is None else [self.find(text) for text in candidates],
            top_k,
            with_teacher=with_teacher,
            retrieve=retrieve,
            disable_tqdm=disable_tqdm,
        )

    def rank_rows(
        self,
        histories: Sequence[Sequence[int]],
        candidates: Sequence[int] | None = None,
        top_k: int = 10,
        *,
        with_teacher: bool | None = None,
        retrieve: int | None = None,
        disable_tqdm: bool = False,
    ) -> list[list[Recommendation]]:
        """Do what `recommend_many` does, for items given by their rows in the catalogue.

        Args:
            histories: Rows, oldest first, one at least each; without any, the rest is checked.
            candidates: Rows to rank; by default the catalogue without the history.
            top_k: How many to return.
            with_teacher: See `recommend_many`.
            retrieve: See `recommend_many`.
            disable_tqdm: Show no progress bar.

        Raises:
            InputError: See `recommend_many`.
        """
        if top_k < 1:
            raise InputError(f"top_k is {top_k}; expected 1 or more")
        fuses = self.fuses(with_teacher)
        known = len(self.titles) - self.added
        offer = Offer.of(self.config, known, self.added, candidates, retrieve, top_k, fuses=fuses)
        ranked: list[Ranked] = []
        starts = range(0, len(histories), _HISTORIES_AT_ONCE)
        is_listed = self.config.candidates == "listed"
        for start in progress(starts, desc="Ranking", disable_tqdm=disable_tqdm or is_listed):
            some = [list(seen) for seen in histories[start : start + _HISTORIES_AT_ONCE]]
            requests = [
                offer.after(seen, advice)
                for seen, advice in zip(some, self.advise(some), strict=True)
            ]
            ranked += self._ranker.rank(requests, top_k, fuses=fuses, disable_tqdm=disable_tqdm)
        return [one.recommendations(top_k, self.item_ids, self.titles, known) for one in ranked]

    def advise(self, histories: Sequence[Sequence[int]]) -> "list[FloatArray] | list[None]":
        """Return the teacher's score of every item after each history, `(items,)`.

        NaN for items that were added, which it does not read in a history either; None without a
        teacher.
        """
        if self.teacher is None:
            return [None] * len(histories)
        known = len(self.titles) - self.added
        read = [[item for item in history if item < known] for history in histories]
        unknown = np.full(self.added, np.nan)
        return [np.concatenate([found, unknown]) for found in self.teacher.score(read)]

    def explain(
        self,
        history: Sequence[str],
        candidate: str,
        candidates: Sequence[str] | None = None,
        *,
        with_teacher: bool | None = None,
    ) -> Explanation:
        """Say why a candidate stands where it does; see `delrec_hf.explain.explain`."""
        return explain(self, history, candidate, candidates, with_teacher=with_teacher)

    def find(self, text: str) -> int:
        """Return the row of an item in the catalogue by its id or title, as `ItemIndex.find`.

        Raises:
            InputError: If there is none, with the nearest titles, or the text means several items.
        """
        return self._index.find(text)

    def fuses(self, wanted: bool | None) -> bool:
        """Say whether the teacher's scores join in."""
        there = self.teacher is not None and self.teacher.fusion is not None
        if wanted and not there:
            raise InputError(
                f"this model holds no teacher (type `{self.config.teacher.get('type')}`), no index "
                "that stands in for one without weights, or no fusion with it, which `delrec "
                "evaluate` measures as delrec+teacher or delrec+co-occurrence; leave with_teacher "
                "out"
            )
        return there and wanted is not False

    @cached_property
    def _ranker(self) -> Ranker:
        return Ranker(
            self.scorer, self.encoder, self.config, self.safe_titles, self.answers, self.teacher
        )

    @cached_property
    def scorer(self) -> CandidateScorer:
        """What scores candidates behind the soft prompt."""
        priors = dict(zip(map(tuple, self.answers), self.log_priors, strict=False))
        scoring = Scoring(self.config.scoring, self.config.calibration_weight, priors)
        return scorer_of(self.model, scoring)

    @cached_property
    def safe_titles(self) -> list[str]:
        """Titles as prompts show them: none reads as control tokens."""
        return safe_titles(self.titles, self.encoder.tokenizer)

    @cached_property
    def answers(self) -> list[list[int]]:
        """Token ids of each title as an answer, the end of the turn included."""
        return self.encoder.encode_answers(self.safe_titles)

    @cached_property
    def _index(self) -> ItemIndex:
        return ItemIndex(self.item_ids, self.titles)
