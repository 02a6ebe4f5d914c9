"""The best items of a trie, without reading all of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, PreTrainedModel

from delrec_hf.ranking import budget
from delrec_hf.ranking.forward import embed, log_probabilities
from delrec_hf.ranking.masks import masks
from delrec_hf.ranking.prefix import Prefix, cache_of, states_of
from delrec_hf.ranking.scoring import check_finite
from delrec_hf.ranking.trie import ROOT, Trie

FloatArray = npt.NDArray[np.float64]

_AT_ONCE = 64  # beginnings that one forward of an exact search reads
_MARGIN = 2.0  # how far, in nats, what a beam gives up must fall behind


@dataclass(frozen=True)
class Bounds:
    """What an item's log-probability becomes as a score, and the most that lies below each node.

    An item's score is its log-probability divided by one number plus another. Log-probabilities
    only fall along a title, so that no item below a node scores higher than what the node's own
    log-probability gives with the largest of both numbers below it.

    Attributes:
        divisors: `(items,)` positive.
        offsets: `(items,)`.
        largest_divisors: `(nodes,)` the largest below each node, itself included.
        largest_offsets: `(nodes,)` the same of the offsets.
    """

    divisors: FloatArray
    offsets: FloatArray
    largest_divisors: FloatArray
    largest_offsets: FloatArray

    @classmethod
    def of(cls, trie: Trie, divisors: FloatArray, offsets: FloatArray) -> "Bounds":
        """Find the largest numbers below each node."""
        return cls(divisors, offsets, _largest(trie, divisors), _largest(trie, offsets))

    def above(self, node: int, total: float) -> float:
        """Return what no item below a node of this log-probability scores higher than."""
        return float(total / self.largest_divisors[node] + self.largest_offsets[node])


@dataclass(frozen=True)
class Outlook:
    """The likeliest item below each node behind one prompt, as a guess for other prompts.

    Attributes:
        rests: `(nodes,)` log-probability of what leads from the node to that item.
        items: `(nodes,)` the item.
    """

    rests: FloatArray
    items: npt.NDArray[np.int64]

    @classmethod
    def of(cls, trie: Trie, bounds: Bounds, gained: FloatArray) -> "Outlook":
        """Find the items.

        Args:
            trie: The items' titles.
            bounds: What log-probabilities become as scores.
            gained: `(nodes - 1,)` what each node adds behind the prompt.
        """
        totals = np.zeros(len(trie.tokens))
        for node in range(1, len(totals)):
            totals[node] = totals[trie.parents[node]] + gained[node - 1]
        own = totals[trie.leaves]
        scores = own / bounds.divisors + bounds.offsets
        items = np.full(len(totals), -1, dtype=np.int64)
        for item in np.argsort(scores, kind="stable"):  # the best one comes last
            node = int(trie.leaves[item])
            items[[ROOT, *trie.path(node), node]] = item
        return cls(own[items] - totals, items)


def _largest(trie: Trie, values: FloatArray) -> FloatArray:
    found = np.full(len(trie.tokens), -np.inf)
    np.maximum.at(found, trie.leaves, values)
    for node in range(len(found) - 1, ROOT, -1):
        parent = trie.parents[node]
        found[parent] = max(found[parent], found[node])
    return found


class Search:
    """A walk through a trie behind one prompt, each node being read after its parent."""

    def __init__(
        self,
        backbone: PreTrainedModel,
        trie: Trie,
        bounds: Bounds,
        prefix: Prefix,
        last: int,
    ) -> None:
        """Stand before the root.

        Args:
            backbone: A causal language model that goes on from a prefix.
            trie: The items' titles.
            bounds: What log-probabilities become as scores.
            prefix: The prompt up to its last token.
            last: That token.
        """
        self._backbone = backbone
        self._trie = trie
        self._bounds = bounds
        self._last = last
        self._prefix = prefix
        # And behind the prefix those of the nodes that are read.
        self._states: Sequence[tuple[torch.Tensor, ...] | None] = prefix.states
        self._columns: dict[int, int] = {}  # where in them each node stands
        self._totals: dict[int, float] = {ROOT: 0.0}
        self._children = _children(trie)
        self._items: dict[int, list[int]] = {}
        for item, leaf in enumerate(trie.leaves.tolist()):
            self._items.setdefault(leaf, []).append(item)

    def best(
        self, k: int, seen: Collection[int], width: int | None, outlook: Outlook | None
    ) -> list[tuple[int, float]] | None:
        """Return the best unseen items and their scores, best first.

        Args:
            k: How many.
            seen: Items to leave out.
            width: How many beginnings a beam reads at once, those of the most promising items; what
                falls behind the best `k` is given up. None: only what cannot belong to them is.
            outlook: What a beam expects below each beginning.

        Returns:
            At most `k`; None if the search grows beyond the budget, so that it is cheaper to read
            the whole trie.
        """
        outlook = None if width is None else outlook
        at_once = width or _AT_ONCE
        open_below = self._open_below(seen)
        found: list[tuple[float, int]] = []  # minus the score, and the item
        level, left = [ROOT], list[int]()
        while level and len(self._columns) + len(level) <= budget.TOKENS:
            children = self._read(level)
            for node in children:
                for item in self._items.get(node, []):
                    if item not in seen:
                        found.append((-self._score(item), item))
            found = sorted(found)[:k]
            least = -found[-1][0] if len(found) == k else -np.inf
            left += [node for node in children if open_below[node] and self._inner(node)]
            left = [node for node in left if self._most(node, outlook) >= least]
            left.sort(key=lambda node: (-self._promise(node, outlook), node))
            level, left = left[:at_once], left[at_once:]
        if level:
            return None
        return [(item, -score) for score, item in found]

    def _most(self, node: int, outlook: Outlook | None) -> float:
        """Return what no item below a node scores higher than, or hardly any."""
        bound = self._bounds.above(node, self._totals[node])
        if outlook is None:
            return bound
        total = self._totals[node] + float(outlook.rests[node]) + _MARGIN
        return min(bound, self._as_score(int(outlook.items[node]), total))

    def _promise(self, node: int, outlook: Outlook | None) -> float:
        if outlook is None:
            return self._bounds.above(node, self._totals[node])
        total = self._totals[node] + float(outlook.rests[node])
        return self._as_score(int(outlook.items[node]), total)

    def _score(self, item: int) -> float:
        return self._as_score(item, self._totals[int(self._trie.leaves[item])])

    def _as_score(self, item: int, total: float) -> float:
        return float(total / self._bounds.divisors[item] + self._bounds.offsets[item])

    def _inner(self, node: int) -> bool:
        return bool(self._trie.ends[node] > node + 1)

    def _open_below(self, seen: Collection[int]) -> npt.NDArray[np.bool_]:
        """Return whether an unseen item lies at or below each node."""
        unseen = np.ones(len(self._trie.leaves), dtype=np.int64)
        unseen[list(seen)] = 0
        counts = np.zeros(len(self._trie.tokens) + 1, dtype=np.int64)
        np.add.at(counts, self._trie.leaves + 1, unseen)
        counts = counts.cumsum()
        return counts[self._trie.ends] > counts[:-1]

    def _read(self, nodes: list[int]) -> list[int]:
        """Read nodes and return their children, whose log-probabilities are then known."""
        trie = self._trie
        inputs, past = self._inputs(nodes)
        children = [self._children[node] for node in nodes]
        owners = torch.tensor([row for row, below in enumerate(children) for _ in below])
        below = [child for one in children for child in one]
        tokens = torch.from_numpy(trie.tokens[below])
        scored = torch.ones(1, len(nodes), dtype=torch.bool)
        gained = log_probabilities(self._backbone, inputs, scored, owners, tokens)
        check_finite([gained.double().cpu().numpy()])
        self._keep(nodes, inputs["past_key_values"], past)
        for child, one in zip(below, gained.tolist(), strict=True):
            self._totals[child] = self._totals[int(trie.parents[child])] + one
        return below

    def _inputs(self, nodes: list[int]) -> tuple[dict[str, Any], int]:
        """Return what a forward takes, and how many tokens its cache holds before it."""
        trie, start = self._trie, self._prefix.length
        ways = [[] if node == ROOT else [ROOT, *trie.path(node)] for node in nodes]
        behind = sorted({one for way in ways for one in way})
        places = {node: start + row for row, node in enumerate(behind)}
        past = start + len(behind)
        seen = torch.zeros(1, len(nodes), past + len(nodes), dtype=torch.bool)
        seen[..., :start] = True
        for row, way in enumerate(ways):
            seen[0, row, [*(places[one] for one in way), past + row]] = True
        depths = torch.from_numpy(start + trie.depths[[*behind, *nodes]])[None]
        keys = torch.cat([torch.arange(start)[None], depths], dim=1)
        queries = depths[:, len(behind) :]
        ids = [self._last if node == ROOT else int(trie.tokens[node]) for node in nodes]
        embeds = embed(self._backbone, None, torch.tensor([ids]))
        config = self._backbone.config.get_text_config()
        inputs = {
            "inputs_embeds": embeds,
            "attention_mask": masks(config, seen.to(embeds.device), queries, keys, embeds),
            "position_ids": queries.to(embeds.device),
            "past_key_values": self._behind(behind),
            "use_cache": True,
        }
        return inputs, past

    def _behind(self, nodes: list[int]) -> DynamicCache:
        """Return a cache of the prompt and of nodes that are read, without all others."""
        columns = [*range(self._prefix.length), *(self._columns[node] for node in nodes)]
        index = torch.tensor(columns, dtype=torch.long)
        return cache_of(
            [
                state and tuple(one.index_select(2, index.to(one.device)) for one in state)
                for state in self._states
            ]
        )

    def _keep(self, nodes: list[int], cache: DynamicCache, past: int) -> None:
        """Keep the keys and values of nodes, which a cache holds behind so many others."""
        stored = self._prefix.length + len(self._columns)
        self._columns.update({node: stored + row for row, node in enumerate(nodes)})
        new: Sequence[tuple[torch.Tensor, ...] | None] = states_of(cache)
        if self._states:  # a prompt of one token has left none
            new = [
                before and after and tuple(map(partial(_joined, past), before, after))
                for before, after in zip(self._states, new, strict=True)
            ]
        self._states = new


def _children(trie: Trie) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in trie.tokens]
    for node, parent in enumerate(trie.parents.tolist()):
        if node != ROOT:
            found[parent].append(node)
    return found


def _joined(past: int, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return torch.cat([before, after[:, :, past:]], dim=2)
