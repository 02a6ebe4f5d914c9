"""A finished model as one object: histories in, ranked items out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq
import torch

from delrec_hf.data.lookup import ItemIndex
from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.templates import lsr_messages
from delrec_hf.instructions.titles import safe_titles
from delrec_hf.logging import progress
from delrec_hf.modeling.artefact import CATALOGUE_FILE, ArtefactConfig, artefact_folder
from delrec_hf.modeling.backbone import Dtype, load_tokenizer
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.ranking.catalogue import FloatArray, tournament
from delrec_hf.ranking.fused_teacher import FusedTeacher, best_unseen, top_unseen
from delrec_hf.ranking.scoring import CandidateScorer, Scoring

_GROUPS_AT_ONCE = 16


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
        teacher: The teacher's score; None where the language model ranked alone.
    """

    item_id: str
    title: str
    score: float
    language_model: float
    teacher: float | None = None


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
    """

    model: DelRecModel
    encoder: ChatEncoder
    config: ArtefactConfig
    item_ids: list[str]
    titles: list[str]
    log_priors: list[float]
    teacher: FusedTeacher | None = None

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
        """Rank items as the next one after a history.

        With the teacher, the language model does not read the whole catalogue: the teacher
        retrieves its best unseen items, and these are ranked by both.

        Args:
            history: Titles or ids, oldest first (`id:21` and `title:21` where one is also the
                other); the language model reads the last `config.history_length`, the teacher as
                many as it can.
            candidates: Titles or ids to rank; by default the catalogue without the history.
            top_k: How many to return.
            with_teacher: Fuse the language model's scores with the teacher's; False: the language
                model alone; by default fused where the artefact holds teacher and weights.
            retrieve: How many items of the catalogue the teacher retrieves; by default what one
                prompt of training showed (`config.num_candidates`), or `top_k` if that is more.
                More than one prompt's worth goes through a tournament of prompts.
            disable_tqdm: Show no progress bar.

        Returns:
            At most `top_k` recommendations, best first.

        Raises:
            InputError: If the history is empty, a title is unknown or means several items, a number
                is below 1, or the teacher or its weights are wanted and not there.
        """
        if not history:
            raise InputError("the history is empty; give one title or id at least")
        if top_k < 1:
            raise InputError(f"top_k is {top_k}; expected 1 or more")
        seen = [self.find(text) for text in history]
        fuses = self._fuses(with_teacher)
        advice = None if self.teacher is None else self.teacher.score(seen)
        if candidates is None:
            offered = self._of_catalogue(seen, advice if fuses else None, top_k, retrieve)
        elif retrieve is not None:
            raise InputError("retrieve is for the whole catalogue; give it or candidates")
        else:
            offered = list(dict.fromkeys(self.find(text) for text in candidates))
        if not offered:
            raise InputError("there is no candidate to rank; give one title or id at least")
        return self._ranked(seen, offered, top_k, advice, fuses, disable_tqdm)

    def find(self, text: str) -> int:
        """Return the row of an item in the catalogue by its id or title, as `ItemIndex.find`.

        Raises:
            InputError: If there is none, with the nearest titles, or the text means several items.
        """
        return self._index.find(text)

    def _fuses(self, wanted: bool | None) -> bool:
        """Say whether the teacher's scores join in."""
        there = self.teacher is not None and self.teacher.fusion is not None
        if wanted and not there:
            raise InputError(
                f"this model holds no teacher (type `{self.config.teacher.get('type')}`; it must "
                "have weights) or no fusion with it, which `delrec evaluate` measures as "
                "delrec+teacher; leave with_teacher out"
            )
        return there and wanted is not False

    def _of_catalogue(
        self, seen: list[int], advice: FloatArray | None, top_k: int, count: int | None
    ) -> list[int]:
        """Return the unseen items of the catalogue, with the teacher's scores its best ones."""
        if advice is not None:
            count = max(self.config.num_candidates, top_k) if count is None else count
            if count < 1:
                raise InputError(f"retrieve is {count}; expected 1 or more")
            return best_unseen(advice, seen, count)
        if count is not None:
            raise InputError("retrieve needs the teacher, which does not rank here; leave it out")
        return [item for item in range(len(self.titles)) if item not in set(seen)]

    def _ranked(
        self,
        seen: list[int],
        offered: list[int],
        top_k: int,
        advice: FloatArray | None,
        fuses: bool,
        disable_tqdm: bool,
    ) -> list[Recommendation]:
        """Rank items by the language model's scores, fused with the teacher's if that is wanted."""
        own: dict[int, float] = {}  # the language model's score in the last round of each item

        def score(groups: list[list[int]]) -> list[FloatArray]:
            starts = range(0, len(groups), _GROUPS_AT_ONCE)
            scores: list[FloatArray] = []
            for start in progress(starts, desc="Ranking", disable_tqdm=disable_tqdm):
                scores += self._score(seen, groups[start : start + _GROUPS_AT_ONCE], advice)
            for group, found in zip(groups, scores, strict=True):
                own.update(zip(group, found.tolist(), strict=True))
            if not fuses or advice is None or self.teacher is None:
                return scores
            return [
                self.teacher.fuse(found, advice[group])
                for group, found in zip(groups, scores, strict=True)
            ]

        # Candidates that no prompt lists are compared all at once, whatever their number.
        is_listed = self.config.candidates == "listed"
        at_once = max(2, self.config.num_candidates) if is_listed else len(offered)
        best = tournament(offered, at_once, top_k, score)
        return [
            Recommendation(
                self.item_ids[item],
                self.titles[item],
                score,
                own[item],
                float(advice[item]) if fuses and advice is not None else None,
            )
            for item, score in best
        ]

    def _score(
        self, seen: list[int], groups: list[list[int]], advice: FloatArray | None
    ) -> list[FloatArray]:
        """Score groups of candidates, each in a prompt as training showed it."""
        is_listed = self.config.candidates == "listed"
        says = self.config.prompt_teacher
        suggested = None
        if says == "list" and advice is not None:
            suggested = self._named(top_unseen(advice, seen, self.config.teacher["top_h"]))
        if says == "order" and advice is not None:
            listings = [sorted(group, key=lambda item: -advice[item]) for group in groups]
        else:
            listings = groups
        history = self._named(seen[-self.config.history_length :])
        messages = [
            lsr_messages(
                self.config.domain,
                history,
                self._named(one) if is_listed else None,
                suggested,
                turns=self.config.turns,
            )
            for one in listings
        ]
        return self._scorer.score(
            self.encoder.encode_prompts(messages),
            [[self._answers[item] for item in group] for group in groups],
        )

    def _named(self, items: list[int]) -> list[str]:
        return [self._safe_titles[item] for item in items]

    @cached_property
    def _scorer(self) -> CandidateScorer:
        priors = dict(zip(map(tuple, self._answers), self.log_priors, strict=False))
        scoring = Scoring(self.config.scoring, self.config.calibration_weight, priors)
        return CandidateScorer(self.model.backbone, self.model.soft_prompt.detach(), scoring)

    @cached_property
    def _safe_titles(self) -> list[str]:
        return safe_titles(self.titles, self.encoder.tokenizer)

    @cached_property
    def _answers(self) -> list[list[int]]:
        return self.encoder.encode_answers(self._safe_titles)

    @cached_property
    def _index(self) -> ItemIndex:
        return ItemIndex(self.item_ids, self.titles)
