"""Every item of a catalogue scored behind one prompt, or the best ones looked for in its trie."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from delrec_hf.logging import progress
from delrec_hf.ranking import budget
from delrec_hf.ranking.scoring import CandidateScorer, check_finite
from delrec_hf.ranking.search import Bounds, Search
from delrec_hf.ranking.support import masked_attention
from delrec_hf.ranking.tree import Branches, read_branches
from delrec_hf.ranking.trie import ROOT, Trie

FloatArray = npt.NDArray[np.float64]
TokenIds = list[int]


@dataclass(frozen=True)
class CatalogueScorer:
    """Scores a catalogue behind prompts that list no candidates.

    The prompt is read once, and so is what several titles begin with. Backbones that do not go on
    from what is read score title by title, as they do candidates.

    Attributes:
        scorer: Scores candidates; with `with_prefix` what all prompts begin with is read once.
        answers: Each item's title as token ids, the end of the turn included.
    """

    scorer: CandidateScorer
    answers: Sequence[TokenIds]

    @torch.inference_mode()
    def score(self, prompt: TokenIds, *, disable_tqdm: bool = True) -> FloatArray:
        """Score every item.

        Args:
            prompt: Token ids up to where the answer starts.
            disable_tqdm: Show no progress bar.

        Returns:
            `(items,)` what `scorer` gives to each as a candidate, to float noise.

        Raises:
            InputError: If a score is not finite.
        """
        scorer, trie = self.scorer, self._trie
        if not scorer.goes_on():
            return scorer.score([prompt], [self.answers])[0]
        gained = np.zeros(len(trie.tokens))
        chunks = self._chunks()
        with masked_attention(scorer.backbone):
            prefix = scorer.behind(prompt)
            for chunk in progress(chunks, desc="Reading the catalogue", disable_tqdm=disable_tqdm):
                found = read_branches(scorer.backbone, None, [prompt], [chunk], prefix)
                gained[chunk.wanted[0]] = found[0].cpu().numpy()
        totals = np.zeros(len(self.answers))
        np.add.at(totals, self._steps[0], gained[self._steps[1]])
        scores: FloatArray = totals / self._bounds.divisors + self._bounds.offsets
        check_finite([scores])
        return scores

    @torch.inference_mode()
    def top(
        self, prompt: TokenIds, k: int, seen: Collection[int] = (), *, width: int | None = None
    ) -> list[tuple[int, float]]:
        """Find the best unseen items by reading the trie from its root, the likeliest ways first.

        Args:
            prompt: Token ids up to where the answer starts.
            k: How many to return.
            seen: Items to leave out.
            width: Read only the so many likeliest beginnings of each length (beam search): fast,
                and may miss items that begin unlikely. None: go on until nothing that is left
                unread can belong to the best `k`, which are then those of `score`.

        Returns:
            The best `k` items, or as many as there are, best first, with their score.

        Raises:
            InputError: If a score is not finite.
        """
        scorer = self.scorer
        if scorer.goes_on():
            with masked_attention(scorer.backbone):
                prefix = scorer.behind(prompt)
                search = Search(scorer.backbone, self._trie, self._bounds, prefix, prompt[-1])
                found = search.best(k, seen, width)
            if found is not None:
                return found
        scores = self.score(prompt)
        left = [item for item in np.argsort(-scores, kind="stable").tolist() if item not in seen]
        return [(item, float(scores[item])) for item in left[:k]]

    def _chunks(self) -> list[Branches]:
        """Return the trie in parts that fit the budget, each with the way from the root to it."""
        trie, inner = self._trie, self._trie.inner
        chunks, start = [], 0
        while start < len(inner):
            way = [ROOT, *trie.path(inner[start])] if start else []
            stop = start + max(1, budget.CHUNK - len(way))
            read = np.concatenate([np.array(way, dtype=np.int64), inner[start:stop]])
            chunks.append(Branches(trie, read, len(way)))
            start = stop
        return chunks

    @cached_property
    def _trie(self) -> Trie:
        return Trie.grow(self.answers)

    @cached_property
    def _steps(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self._trie.steps()

    @cached_property
    def _bounds(self) -> Bounds:
        return Bounds.of(self._trie, *self.scorer.scoring.terms(self.answers))
