"""Sequences of tokens as a trie: what several of them begin with is there once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TokenIds = list[int]
IntArray = npt.NDArray[np.int64]

ROOT = 0


@dataclass(frozen=True)
class Trie:
    """The beginnings of token sequences, each a node, in the order of a depth-first walk.

    So the nodes below node `n` are those of `n + 1` up to, not including, `ends[n]`. A sequence may
    be the beginning of another one, and several may be the same.

    Attributes:
        tokens: `(nodes,)` last token of each beginning; -1 for the root, which is the empty one.
        parents: `(nodes,)` the beginning without that token; the root's own is the root.
        depths: `(nodes,)` tokens of each beginning.
        ends: `(nodes,)` the first node that is not below it any more.
        leaves: `(sequences,)` the node that is the whole sequence.
    """

    tokens: IntArray
    parents: IntArray
    depths: IntArray
    ends: IntArray
    leaves: IntArray

    @classmethod
    def grow(cls, sequences: Sequence[TokenIds]) -> "Trie":
        """Make the trie of sequences that have one token at least."""
        tokens, parents, depths = [-1], [ROOT], [0]
        leaves = np.zeros(len(sequences), dtype=np.int64)
        path, before = [ROOT], TokenIds()  # the nodes of the sequence before, its own included
        for place in sorted(range(len(sequences)), key=lambda place: sequences[place]):
            one = sequences[place]
            shared = _shared(before, one)
            del path[shared + 1 :]
            for depth, token in enumerate(one[shared:], start=shared + 1):
                parents.append(path[-1])
                path.append(len(tokens))
                tokens.append(token)
                depths.append(depth)
            leaves[place], before = path[-1], one
        ends = list(range(1, len(tokens) + 1))
        for node in range(len(tokens) - 1, ROOT, -1):
            ends[parents[node]] = max(ends[parents[node]], ends[node])
        nodes = [np.array(one, dtype=np.int64) for one in (tokens, parents, depths, ends)]
        return cls(nodes[0], nodes[1], nodes[2], nodes[3], leaves)

    @property
    def inner(self) -> IntArray:
        """The nodes that others stand below, in their order: what a language model has to read."""
        return np.flatnonzero(self.ends > np.arange(len(self.ends)) + 1)

    def path(self, node: int) -> list[int]:
        """Return the nodes above a node, from below the root down to its parent."""
        found = []
        while (node := int(self.parents[node])) != ROOT:
            found.append(node)
        return found[::-1]

    def steps(self) -> tuple[IntArray, IntArray]:
        """Return the nodes that each sequence is made of, as pairs of a sequence and a node."""
        sequences, nodes = [], []
        owners, at = np.arange(len(self.leaves)), self.leaves
        while len(at):
            sequences.append(owners)
            nodes.append(at)
            owners, at = owners[self.parents[at] != ROOT], self.parents[at]
            at = at[at != ROOT]
        return np.concatenate(sequences), np.concatenate(nodes)


def _shared(one: TokenIds, other: TokenIds) -> int:
    """Return how many tokens both begin with."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))
