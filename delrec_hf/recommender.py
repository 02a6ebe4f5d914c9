"""A finished model as one object: histories in, ranked items out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from delrec_hf.data.lookup import ItemIndex
from delrec_hf.errors import InputError
from delrec_hf.explain import explain
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.titles import safe_titles
from delrec_hf.logging import progress
from delrec_hf.modeling.artefact import CATALOGUE_FILE, ArtefactConfig, artefact_folder
from delrec_hf.modeling.backbone import Dtype, load_tokenizer
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.asking import next_item_prompts
from delrec_hf.ranking.catalogue import FloatArray, tournament
from delrec_hf.ranking.explanation import Explanation
from delrec_hf.ranking.fused_teacher import FusedTeacher, best_unseen
from delrec_hf.ranking.new_items import log_priors, new_titles
from delrec_hf.ranking.recommendation import Recommendation, Request, recommendations
from delrec_hf.ranking.scoring import CandidateScorer, Scoring
from delrec_hf.ranking.whole_catalogue import CatalogueScorer

_PROMPTS_AT_ONCE = 16
_RETRIEVED = 100


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
        teacher: The teacher, if prompts show what it says or there are weights of a fusion with it.
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
        if not (folder / CATALOGUE_FILE).is_file():
            raise InputError(
                f"{folder} holds no {CATALOGUE_FILE}, which names the items; load the folder or "
                "repository that `delrec finetune` wrote"
            )
        catalogue = pq.read_table(folder / CATALOGUE_FILE)
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
        item_ids = catalogue["item_id"].to_pylist()
        return cls(
            stacked,
            ChatEncoder(tokenizer),
            config,
            item_ids,
            catalogue["title"].to_pylist(),
            catalogue["log_prior"].to_pylist() if "log_prior" in catalogue.column_names else [],
            FusedTeacher.load(folder, config, item_ids, device),
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
        if candidates is not None and retrieve is not None:
            raise InputError("retrieve is for the whole catalogue; give it or candidates")
        count = self._retrieved(fuses, top_k, retrieve)
        chosen = None if candidates is None else list(dict.fromkeys(candidates))
        told: list[list[Recommendation]] = []
        starts = range(0, len(histories), _PROMPTS_AT_ONCE)
        is_listed = self.config.candidates == "listed"
        for start in progress(starts, desc="Ranking", disable_tqdm=disable_tqdm or is_listed):
            some = [list(seen) for seen in histories[start : start + _PROMPTS_AT_ONCE]]
            requests = self._requests(some, chosen, count)
            if is_listed:
                told += [self._by_tournament(one, top_k, fuses, disable_tqdm) for one in requests]
                continue
            if chosen is None and count is None:
                scores = self._score_catalogue(requests)
            else:
                scores = self._score([(one, one.offered) for one in requests])
            told += [
                self._told(one, found, self._fused(one, one.offered, found, fuses), top_k, fuses)
                for one, found in zip(requests, scores, strict=True)
            ]
        return told

    def _requests(
        self, histories: list[list[int]], chosen: list[int] | None, count: int | None
    ) -> list[Request]:
        """Return what is to be ranked for some histories.

        Args:
            histories: Rows of items, oldest first.
            chosen: Rows of the candidates; None: the catalogue's.
            count: How many of these the teacher retrieves; None: all.
        """
        requests = []
        advices = self.advise(histories)
        for seen, advice in zip(histories, advices, strict=True):
            if not seen:
                raise InputError("the history is empty; give one title or id at least")
            offered = self._of_catalogue(seen, advice, count) if chosen is None else chosen
            if not offered:
                raise InputError("there is no candidate to rank; give one title or id at least")
            requests.append(Request(seen, offered, advice))
        return requests

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
                f"this model holds no teacher (type `{self.config.teacher.get('type')}`; it must "
                "have weights) or no fusion with it, which `delrec evaluate` measures as "
                "delrec+teacher; leave with_teacher out"
            )
        return there and wanted is not False

    def _retrieved(self, fuses: bool, top_k: int, wanted: int | None) -> int | None:
        """Return how many items of the catalogue the teacher retrieves; None: it does not."""
        if wanted is not None and not fuses:
            raise InputError("retrieve needs the teacher, which does not rank here; leave it out")
        if wanted is not None and wanted < 1:
            raise InputError(f"retrieve is {wanted}; expected 1 or more")
        if wanted is not None or not fuses:
            return wanted
        is_listed = self.config.candidates == "listed"
        return max(self.config.num_candidates if is_listed else _RETRIEVED, top_k)

    def _of_catalogue(
        self, seen: list[int], advice: FloatArray | None, count: int | None
    ) -> list[int]:
        """Return the unseen items of the catalogue, or so many of them that the teacher likes."""
        met = set(seen)
        if advice is not None and count is not None:
            known = len(self.titles) - self.added
            new = [item for item in range(known, len(self.titles)) if item not in met]
            return best_unseen(advice[:known], seen, count) + new
        return [item for item in range(len(self.titles)) if item not in met]

    def _by_tournament(
        self, request: Request, top_k: int, fuses: bool, disable_tqdm: bool
    ) -> list[Recommendation]:
        """Rank with prompts that list as many candidates as those of training did."""
        own: dict[int, float] = {}  # the language model's score in the last round of each item

        def score(groups: list[list[int]]) -> list[FloatArray]:
            starts = range(0, len(groups), _PROMPTS_AT_ONCE)
            scores: list[FloatArray] = []
            for start in progress(starts, desc="Ranking", disable_tqdm=disable_tqdm):
                some = groups[start : start + _PROMPTS_AT_ONCE]
                scores += self._score([(request, group) for group in some])
            for group, found in zip(groups, scores, strict=True):
                own.update(zip(group, found.tolist(), strict=True))
            return [
                self._fused(request, group, found, fuses)
                for group, found in zip(groups, scores, strict=True)
            ]

        at_once = max(2, self.config.num_candidates)
        best = tournament(request.offered, at_once, len(request.offered), score)
        order = [item for item, _ in best]
        ranked = Request(request.seen, order, request.advice)
        found = np.array([own[item] for item in order])
        scores = np.array([score for _, score in best])
        return self._told(ranked, found, scores, top_k, fuses)

    def _told(
        self, request: Request, own: FloatArray, scores: FloatArray, top_k: int, fuses: bool
    ) -> list[Recommendation]:
        """Return the best items with what each part says of them.

        Args:
            request: What was ranked; after a tournament in its order, which then stands.
            own: `(offered,)` the language model's scores.
            scores: `(offered,)` what is ranked by.
            top_k: How many to return.
            fuses: Whether the teacher's scores have joined in.
        """
        by_place = self.config.candidates == "listed"
        order = np.arange(len(own)) if by_place else np.argsort(-scores, kind="stable")
        found = recommendations(
            request, order[:top_k], scores, own, fuses, self.item_ids, self.titles
        )
        if not self.added:
            return found
        new = set(self.item_ids[len(self.item_ids) - self.added :])
        return [replace(one, is_new=one.item_id in new) for one in found]

    def _fused(
        self, request: Request, group: list[int], found: FloatArray, fuses: bool
    ) -> FloatArray:
        """Return the language model's scores of some items, joined by the teacher's if wanted."""
        if not fuses or request.advice is None or self.teacher is None:
            return found
        advice = request.advice[group]
        mean = np.nanmean(advice) if np.isfinite(advice).any() else 0.0
        return self.teacher.fuse(found, np.where(np.isnan(advice), mean, advice))

    def _score(self, groups: Sequence[tuple[Request, list[int]]]) -> list[FloatArray]:
        """Score groups of candidates, each in a prompt as training showed it."""
        prompts: list[list[int]] = []
        for request, group in groups:
            prompts += self._prompts(request, group)
        answers = [[self.answers[item] for item in group] for _, group in groups]
        return self._reader.score(prompts, answers)

    def _score_catalogue(self, requests: Sequence[Request]) -> list[FloatArray]:
        """Score what is offered of the whole catalogue through the trie of all titles."""
        found = []
        for request in requests:
            (prompt,) = self._prompts(request, request.offered)
            found.append(self._catalogue.score(prompt)[request.offered])
        return found

    def _prompts(self, request: Request, group: list[int]) -> list[list[int]]:
        return next_item_prompts(
            self.config, self.encoder, self.safe_titles, request.seen, [group], request.advice
        )

    @cached_property
    def _catalogue(self) -> CatalogueScorer:
        return CatalogueScorer(self._reader, self.answers)

    @cached_property
    def _reader(self) -> CandidateScorer:
        """The scorer, with what all prompts begin with read once."""
        items = range(len(self.titles))
        some = [
            self._prompts(Request([item], [item], None), [item]) for item in (items[0], items[-1])
        ]
        return self.scorer.with_prefix([prompt for prompts in some for prompt in prompts])

    @cached_property
    def scorer(self) -> CandidateScorer:
        """What scores candidates behind the soft prompt."""
        priors = dict(zip(map(tuple, self.answers), self.log_priors, strict=False))
        scoring = Scoring(self.config.scoring, self.config.calibration_weight, priors)
        return CandidateScorer(self.model.backbone, self.model.soft_prompt.detach(), scoring)

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
