"""Every item of a catalogue scored behind one prompt, or the best ones looked for in its trie."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from delrec_hf.errors import InputError
from delrec_hf.ranking.scoring import CandidateScorer, check_finite
from delrec_hf.ranking.search import Bounds, Outlook, Search
from delrec_hf.ranking.support import masked_attention
from delrec_hf.ranking.tree import gained_in_chunks, summed
from delrec_hf.ranking.trie import Trie

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
        outlook: What beams expect below each beginning; see `with_outlook`.
    """

    scorer: CandidateScorer
    answers: Sequence[TokenIds]
    outlook: Outlook | None = None

    def with_outlook(self, prompt: TokenIds, *, disable_tqdm: bool = True) -> "CatalogueScorer":
        """Return a scorer whose beams know how titles go on behind one prompt, which is read now.

        How likely a title goes on once it has begun hardly depends on the user, but a beam that
        does not know it drops what begins unlikely. Scores stay what they are.

        Args:
            prompt: Token ids of any prompt of the kind that is ranked later.
            disable_tqdm: Show no progress bar.
        """
        if not self.scorer.goes_on():
            return self
        gained = self._gained(prompt, disable_tqdm=disable_tqdm).cpu().numpy()
        return replace(self, outlook=Outlook.of(self._trie, self._bounds, gained))

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
        scorer = self.scorer
        if not scorer.goes_on():
            return scorer.score([prompt], [self.answers])[0]
        totals = summed(self._trie, self._gained(prompt, disable_tqdm=disable_tqdm))
        scores: FloatArray = scorer.scoring.of(totals, self.answers).cpu().numpy()
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
            width: Let a beam of so many beginnings, the most promising ones at a time, give up what
                the outlook expects to fall behind: fast, and may miss items. None: go on until
                nothing that is left unread can belong to the best `k`, which are then those of
                `score`.

        Returns:
            The best `k` items, or as many as there are, best first, with their score.

        Raises:
            InputError: If a score is not finite, or a beam has no outlook.
        """
        scorer = self.scorer
        if scorer.goes_on():
            if width is not None and self.outlook is None:
                raise InputError(
                    f"a beam of {width} has no outlook, without which it would find hardly any of "
                    "the best items; make one by `with_outlook`, or leave width out"
                )
            with masked_attention(scorer.backbone):
                prefix = scorer.behind(prompt)
                search = Search(scorer.backbone, self._trie, self._bounds, prefix, prompt[-1])
                found = search.best(k, seen, width, self.outlook)
            if found is not None:
                return found
        scores = self.score(prompt)
        left = [item for item in np.argsort(-scores, kind="stable").tolist() if item not in seen]
        return [(item, float(scores[item])) for item in left[:k]]

    @torch.inference_mode()
    def _gained(self, prompt: TokenIds, *, disable_tqdm: bool) -> torch.Tensor:
        scorer = self.scorer
        with masked_attention(scorer.backbone):
            prefix = scorer.behind(prompt)
            return gained_in_chunks(
                scorer.backbone, prompt, self._trie, prefix, disable_tqdm=disable_tqdm
            )

    @cached_property
    def _trie(self) -> Trie:
        return Trie.grow(self.answers)

    @cached_property
    def _bounds(self) -> Bounds:
        return Bounds.of(self._trie, *self.scorer.scoring.terms(self.answers))
