"""How many tokens the rows of a run hold, counted by wording them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from delrec_hf.labels import IGNORED
from delrec_hf.planning.cost import Batch
from delrec_hf.ranking.prefix import common_beginning
from delrec_hf.ranking.tree import tree_width

IntArray = npt.NDArray[np.int64]
TokenIds = list[int]

SAMPLED = 1000
"""So many rows are worded, and all of them where there are no more."""

_LONGEST = 50  # rows besides, whose titles have the most characters
_BATCHES = 50  # drawn by chance, to see how much padding there is
_SEED = 0


@dataclass(frozen=True)
class Reading:
    """What is read, all rows together.

    Attributes:
        tokens: Tokens, virtual ones and padding included.
        pairs: Pairs of tokens of one row, which attention compares.
        scored: Positions whose next token is wanted.
    """

    tokens: float = 0.0
    pairs: float = 0.0
    scored: float = 0.0

    def __add__(self, other: "Reading") -> "Reading":
        return Reading(
            self.tokens + other.tokens, self.pairs + other.pairs, self.scored + other.scored
        )

    def __mul__(self, times: float) -> "Reading":
        return Reading(self.tokens * times, self.pairs * times, self.scored * times)


@dataclass(frozen=True)
class Lengths:
    """Rows of a kind, by their tokens; virtual tokens are not counted.

    Attributes:
        number: How many rows there are.
        widths: `(worded,)` tokens that a forward reads of each, of all its candidates together.
        scored: `(worded,)` positions whose next token is wanted.
        longest: `(worded,)` tokens of the prompt and the longest answer.
        begin: Tokens that all of them begin with, which ranking reads once.
        typical: The first so many were drawn by chance; those behind are the longest.
    """

    number: int
    widths: IntArray
    scored: IntArray
    longest: IntArray
    begin: int
    typical: int

    @property
    def complete(self) -> bool:
        """Whether all rows were worded, so that sums are exact."""
        return self.typical == self.number

    @property
    def mean(self) -> float:
        """The mean width."""
        return float(self.widths[: self.typical].mean()) if self.typical else 0.0

    def tokens(self, virtual: int) -> float:
        """Return the tokens of all rows, each behind so many virtual tokens."""
        return self.number * (self.mean + virtual)

    def learned(self, rows: int, virtual: int) -> Reading:
        """Return what training reads of all rows, drawn by chance into batches and padded."""
        if not self.typical:
            return Reading()
        drawn = np.resize(np.arange(self.typical), _BATCHES * rows)
        order = np.random.default_rng(_SEED).permutation(drawn)
        widths = self.widths[order].reshape(_BATCHES, rows).max(axis=1) + virtual
        tokens = float(widths.mean())
        scored = float(self.scored[: self.typical].mean())
        return Reading(tokens, float((widths**2).mean()), scored) * self.number

    def ranked(self, virtual: int) -> Reading:
        """Return what ranking reads of all rows, where what they begin with is read once."""
        if not self.typical:
            return Reading()
        widths = self.widths[: self.typical]
        read = widths - self.begin
        found = Reading(
            read.mean(), (read * (widths + virtual)).mean(), self.scored[: self.typical].mean()
        )
        return found * self.number

    def fullest(self, rows: int, virtual: int) -> Batch:
        """Return the largest batch of so many rows: all are as wide as the widest."""
        return Batch(rows, int(self.widths.max()) + virtual, rows * int(self.scored.max()))

    def usual(self, rows: int, virtual: int) -> Batch:
        """Return a batch of so many rows of mean width."""
        length = max(2, round(self.mean)) + virtual
        scored = round(rows * float(self.scored[: self.typical].mean()))
        return Batch(rows, length, max(1, scored))


def sampled(examples: Dataset, titles: Sequence[str]) -> tuple[Dataset, int]:
    """Return the examples to word: all, or some by chance and then the longest.

    Args:
        examples: Rows of one of the parts.
        titles: Of the catalogue.

    Returns:
        The examples, and how many of them are by chance.
    """
    if len(examples) <= SAMPLED:
        return examples, len(examples)
    sizes = np.array([len(one) for one in titles])
    characters = np.array([sizes[one].sum() for one in examples["history"][:]])
    chosen = np.random.default_rng(_SEED).choice(len(examples), SAMPLED, replace=False)
    characters[chosen] = -1
    return examples.select(np.concatenate([chosen, characters.argsort()[-_LONGEST:]])), SAMPLED


def count_titles(encoded: Dataset, number: int, typical: int, shrink: float) -> Lengths:
    """Count the tokens of rows whose answer is learned token by token.

    Args:
        encoded: With `input_ids` and `labels`.
        number: How many such rows there are.
        typical: The first so many were drawn by chance.
        shrink: What token counts are multiplied by, where the tokenizer is a stand-in.
    """
    widths = [len(one) for one in encoded["input_ids"][:]]
    scored = [sum(k != IGNORED for k in one) for one in encoded["labels"][:]]
    return _lengths([widths, scored, widths], number, typical, 0, shrink)


def count_ranking(
    prompts: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]],
    number: int,
    typical: int,
    shrink: float,
) -> Lengths:
    """Count the tokens of rows to rank: see `count_titles`."""
    pairs = list(zip(prompts, candidates, strict=True))
    widths = [tree_width(*row, 0) for row in pairs]
    # The prompt's last token, and whatever leads to another one in the trie.
    scored = [wide - len(one) + 1 for wide, one in zip(widths, prompts, strict=True)]
    longest = [len(one) + max(map(len, offered)) for one, offered in pairs]
    begin = len(common_beginning(prompts))
    return _lengths([widths, scored, longest], number, typical, begin, shrink)


def _lengths(
    counts: Sequence[Sequence[int]], number: int, typical: int, begin: int, shrink: float
) -> Lengths:
    widths, scored, longest = (np.ceil(np.array(one) * shrink).astype(np.int64) for one in counts)
    return Lengths(number, widths, scored, longest, int(begin * shrink), typical)
