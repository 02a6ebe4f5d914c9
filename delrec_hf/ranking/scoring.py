"""Scores of candidates' titles under a backbone: their log-probabilities behind the prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger
from delrec_hf.ranking import budget
from delrec_hf.ranking.batches import cut, make_batches
from delrec_hf.ranking.prefix import Prefix, common_beginning
from delrec_hf.ranking.separate import from_cache, row_by_row
from delrec_hf.ranking.support import masked_attention, no_prefix, way_of
from delrec_hf.ranking.tree import gained_in_chunks, summed, tree_totals, tree_width
from delrec_hf.ranking.trie import Trie
from delrec_hf.shards import in_shards

logger = get_logger(__name__)

FloatArray = npt.NDArray[np.float64]
TokenIds = list[int]
ScoringKind = Literal["sum", "mean", "calibrated"]

_told_prefix: WeakSet[PreTrainedModel] = WeakSet()  # the same of prefixes
_told: WeakSet[PreTrainedModel] = WeakSet()  # backbones whose slower way has been logged


@dataclass(frozen=True)
class Scoring:
    """How the log-probability of a title becomes its score.

    Attributes:
        kind: `sum` of log p(token | prompt, earlier tokens) over the title's tokens and the end of
            the turn; `mean`, that sum divided by the number of tokens; `calibrated`, the sum minus
            `weight` times what the title scores without a history.
        weight: How much of it is taken off.
        log_priors: A title's tokens to its log-probability without a history.
    """

    kind: ScoringKind = "sum"
    weight: float = 0.0
    log_priors: Mapping[tuple[int, ...], float] = field(default_factory=dict)

    def of(self, totals: torch.Tensor, candidates: Sequence[TokenIds]) -> torch.Tensor:
        """Return the scores of candidates, of one prompt or of several, differentiable.

        Args:
            totals: `(candidates,)` log-probabilities.
            candidates: Their token ids.

        Raises:
            InputError: If the log-probability without a history of a title is not known.
        """
        divisors, offsets = self.terms(candidates)
        return totals / totals.new_tensor(divisors) + totals.new_tensor(offsets)

    def terms(self, candidates: Sequence[TokenIds]) -> tuple[FloatArray, FloatArray]:
        """Return by what log-probabilities are divided and what is then added, `(candidates,)`.

        Raises:
            InputError: If the log-probability without a history of a title is not known.
        """
        divisors, offsets = np.ones(len(candidates)), np.zeros(len(candidates))
        if self.kind == "mean":
            divisors = np.array([len(one) for one in candidates], dtype=np.float64)
        elif self.kind == "calibrated":
            try:
                priors = [self.log_priors[tuple(one)] for one in candidates]
            except KeyError:
                raise InputError(
                    "a title has no log-probability without a history, which `scoring: calibrated` "
                    "takes off; measure those of this catalogue with `delrec calibrate`"
                ) from None
            offsets = -self.weight * np.array(priors)
        return divisors, offsets


SUM = Scoring()
"""The log-probability of the whole title, as it is."""


@dataclass(frozen=True)
class CandidateScorer:
    """Scores candidates under a backbone, with or without a soft prompt.

    Attributes:
        backbone: A causal language model, with or without a native LoRA adapter.
        soft_prompt: `(virtual tokens, hidden size)`, or None.
        scoring: How a title's log-probability becomes its score.
        prefix: What prompts begin with, read already; see `with_prefix`.
        cartridge: Keys and values in place of the soft prompt, if the prompt is a cartridge; for
            backbones that go on from a prefix.
    """

    backbone: PreTrainedModel
    soft_prompt: torch.Tensor | None = None
    scoring: Scoring = SUM
    prefix: Prefix | None = None
    cartridge: Prefix | None = None

    @property
    def virtual_tokens(self) -> int:
        """How many virtual tokens stand in front of each prompt."""
        if self.cartridge is not None:
            return self.cartridge.length
        return 0 if self.soft_prompt is None else len(self.soft_prompt)

    def without_prompt(self) -> "CandidateScorer":
        """Return a scorer of the backbone alone, LoRA included."""
        return replace(self, soft_prompt=None, cartridge=None, prefix=None)

    def with_prefix(self, prompts: Sequence[TokenIds]) -> "CandidateScorer":
        """Return a scorer that reads what these prompts begin with once, now, and not with each.

        Its scores are the same to float noise. It is for ranking: what wants gradients, and a batch
        with a prompt that begins otherwise, is read in full. Once the backbone's weights change,
        make another one.
        """
        if not self.goes_on():
            return replace(self, prefix=None)
        beginning = common_beginning(prompts)
        if not (beginning or self.virtual_tokens):
            return replace(self, prefix=None)
        with masked_attention(self.backbone):
            return replace(self, prefix=self._read(beginning))

    def goes_on(self) -> bool:
        """Say whether the backbone reads on from a prefix; if not, the log says why, once."""
        reason = no_prefix(self.backbone)
        if reason and self.backbone not in _told_prefix:
            _told_prefix.add(self.backbone)
            name = type(self.backbone).__name__
            logger.warning("%s reads each prompt from its beginning: %s", name, reason)
        return not reason

    def behind(self, prompt: TokenIds) -> Prefix:
        """Read a prompt up to its last token, what it begins with only if that is not read yet."""
        if self.prefix is not None and self.prefix.begins([prompt]):
            return self.prefix.extended(self.backbone, prompt[len(self.prefix.tokens) : -1])
        return self._read(prompt[:-1])

    def _read(self, tokens: TokenIds) -> Prefix:
        """Read tokens behind the soft prompt."""
        if self.cartridge is not None:
            return self.cartridge.extended(self.backbone, tokens)
        return Prefix.read(self.backbone, self.soft_prompt, tokens)

    def score(
        self, prompts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[FloatArray]:
        """Score each prompt's candidates.

        Args:
            prompts: Token ids up to where the answer starts.
            candidates: For each prompt the candidates' token ids, the end of the turn included.

        Returns:
            For each prompt `(candidates,)` scores; higher is likelier.

        Raises:
            InputError: If a candidate has no tokens, or a score is not finite.
        """
        scores: list[FloatArray] = [np.empty(0)] * len(prompts)
        at_once = budget.tokens(self.backbone)
        for rows in make_batches(prompts, candidates, self.virtual_tokens, at_once):
            batch = self.score_batch([prompts[r] for r in rows], [candidates[r] for r in rows])
            for row, found in zip(rows, batch, strict=True):
                scores[row] = found
        check_finite(scores)
        return scores

    def score_batch(
        self, prompts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[FloatArray]:
        """Score one batch of prompts, their candidates together where the backbone allows it."""
        # What FSDP gathers in inference mode could not be trained with afterwards.
        with torch.no_grad() if in_shards(self.backbone) else torch.inference_mode():
            rows = zip(self.totals(prompts, candidates), candidates, strict=True)
            return [self.scoring.of(totals, offered).cpu().numpy() for totals, offered in rows]

    def totals(
        self, prompts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[torch.Tensor]:
        """Return the log-probabilities of one batch, `(candidates,)` float64 each, differentiable.

        What is wider than the budget of tokens is cut into several forwards, which for inference
        go on from the prompt where the backbone can, and else read it again. Where gradients are
        wanted, these are computed again on the way back, so that one at a time holds activations
        and the gradient is the same. Where the weights lie in shards nothing is cut.
        """
        if not all(all(offered) for offered in candidates):
            raise InputError("a candidate has no tokens; expected a title and the end of a turn")
        if in_shards(self.backbone):
            return self._totals(prompts, candidates)
        at_once = budget.tokens(self.backbone)
        wide = {
            row: self._in_chunks(prompt, offered)
            for row, (prompt, offered) in enumerate(zip(prompts, candidates, strict=True))
            if self._is_wide(prompt, offered)
        }
        pieces = [
            (row, piece)
            for row, (prompt, offered) in enumerate(zip(prompts, candidates, strict=True))
            if row not in wide
            for piece in cut(prompt, offered, self.virtual_tokens, at_once)
        ]
        own = [prompts[row] for row, _ in pieces]
        offers = [piece for _, piece in pieces]
        groups = make_batches(own, offers, self.virtual_tokens, at_once)
        found: list[torch.Tensor] = [torch.empty(0)] * len(pieces)
        for group in groups:
            asked = ([own[k] for k in group], [offers[k] for k in group])
            if len(groups) > 1 and torch.is_grad_enabled():
                totals = checkpoint(self._totals, *asked, use_reentrant=False)
            else:
                totals = self._totals(*asked)
            for place, one in zip(group, totals, strict=True):
                found[place] = one
        for row in set(range(len(prompts))) - set(wide):
            own_pieces = zip(pieces, found, strict=True)
            wide[row] = torch.cat([one for (owner, _), one in own_pieces if owner == row])
        return [wide[row] for row in range(len(prompts))]

    def _is_wide(self, prompt: TokenIds, candidates: Sequence[TokenIds]) -> bool:
        if torch.is_grad_enabled():
            return False
        width = tree_width(prompt, candidates, self.virtual_tokens)
        return width > budget.TREE and not no_prefix(self.backbone)

    def _in_chunks(self, prompt: TokenIds, candidates: Sequence[TokenIds]) -> torch.Tensor:
        trie = Trie.grow(candidates)
        with masked_attention(self.backbone):
            return summed(trie, gained_in_chunks(self.backbone, prompt, trie, self.behind(prompt)))

    def _totals(
        self, prompts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[torch.Tensor]:
        way, reason = way_of(self.backbone)
        if way == "tree":
            with masked_attention(self.backbone):
                return tree_totals(
                    self.backbone, self.soft_prompt, prompts, candidates, self._prefix(prompts)
                )
        return [
            self._separately(prompt, offered, reason, cached=way == "cache")
            for prompt, offered in zip(prompts, candidates, strict=True)
        ]

    def _prefix(self, prompts: Sequence[TokenIds]) -> Prefix | None:
        """Return the prefix if these prompts can go on from it, else the cartridge, if any."""
        if self.prefix is None or torch.is_grad_enabled() or not self.prefix.begins(prompts):
            return self.cartridge
        return self.prefix

    def _separately(
        self, prompt: TokenIds, candidates: Sequence[TokenIds], reason: str, *, cached: bool
    ) -> torch.Tensor:
        """Score candidates one by one, and say once what it costs."""
        total = None
        if cached and not torch.is_grad_enabled():  # states are written over in place
            total = from_cache(self.backbone, self.soft_prompt, prompt, candidates)
        if self.backbone not in _told:
            _told.add(self.backbone)
            longest = max(map(len, candidates))
            whole = self.virtual_tokens + len(prompt) - 1
            tree = tree_width(prompt, candidates, self.virtual_tokens)
            if total is None:
                times = len(candidates) * (whole + longest) / tree
                cost = f"each is read with its prompt, about {times:.1f} times the tokens"
            else:
                cost = f"the prompt is read once, then one token a forward, {longest} of them"
            name = type(self.backbone).__name__
            logger.warning("%s cannot score candidates in one forward: %s; %s", name, reason, cost)
        if total is None:
            total = row_by_row(self.backbone, self.soft_prompt, prompt, candidates)
        return total


def check_finite(scores: Sequence[FloatArray]) -> None:
    """Refuse scores that nothing can be ranked by.

    Raises:
        InputError: If one of them is not finite.
    """
    if not all(np.isfinite(row).all() for row in scores):
        raise InputError(
            "the model scores candidates with numbers that are not finite; load the backbone in "
            "bfloat16 or float32 instead of float16 (`torch_dtype`), and if that is so already, "
            "train again with a lower learning_rate"
        )
