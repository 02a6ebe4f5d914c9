"""A trie holds each beginning of its sequences once, in the order of a depth-first walk."""

import numpy as np
import pytest

from delrec_hf.ranking.trie import ROOT, Trie


def _beginnings(trie: Trie) -> list[tuple[int, ...]]:
    """Spell out each node from its parents."""
    found: list[tuple[int, ...]] = [()]
    for node in range(1, len(trie.tokens)):
        found.append((*found[trie.parents[node]], int(trie.tokens[node])))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_a_trie_holds_each_beginning_once(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sequences = [
        generator.integers(0, 3, int(generator.integers(1, 7))).tolist()
        for _ in range(int(generator.integers(1, 40)))
    ]  # many of which are the beginning of another one, or the same
    trie = Trie.grow(sequences)
    expected = {tuple(one[:size]) for one in sequences for size in range(len(one) + 1)}
    spelled = _beginnings(trie)
    assert len(spelled) == len(expected)
    assert set(spelled) == expected
    assert [spelled[leaf] for leaf in trie.leaves] == [tuple(one) for one in sequences]
    assert trie.depths.tolist() == [len(one) for one in spelled]
    for node, one in enumerate(spelled):
        below = [k for k, other in enumerate(spelled) if other[: len(one)] == one]
        assert below == list(range(node, trie.ends[node]))
    parents = {one[:-1] for one in spelled if one}
    assert trie.inner.tolist() == [k for k, one in enumerate(spelled) if one in parents]


def test_steps_lead_from_the_root_to_each_sequence() -> None:
    sequences = [[5, 6, 7], [5, 6], [5], [8]]
    trie = Trie.grow(sequences)
    owners, nodes = trie.steps()
    for place, one in enumerate(sequences):
        own = sorted(nodes[owners == place].tolist())
        assert trie.tokens[own].tolist() == one
        assert own[:-1] == trie.path(int(trie.leaves[place]))
    assert ROOT not in nodes
