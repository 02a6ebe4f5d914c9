"""All candidates of a prompt at once: the prompt is the trunk, their trie the branches.

An attention mask lets a token see the trunk and what leads to it in the trie, never a sibling, and
each token's position counts from the root. So the prompt is read once, whatever the number of
candidates, and so is what several of them begin with; the log-probabilities are those of separate
forwards.

Where gradients are wanted, trunk and branches go through one forward, a cartridge's keys and values
standing in front of both. Else through one each, the
branches going on from the trunk's keys and values: attention to what stands before, by the
backbone's own causal mask, costs half of what it does under a mask that is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from delrec_hf.logging import progress
from delrec_hf.ranking import budget
from delrec_hf.ranking.forward import embed, log_probabilities
from delrec_hf.ranking.masks import masks
from delrec_hf.ranking.prefix import Prefix, read_on
from delrec_hf.ranking.support import no_prefix
from delrec_hf.ranking.trie import ROOT, IntArray, Trie
from delrec_hf.shards import in_shards

TokenIds = list[int]

_ALIGNED = 8  # tokens: accelerators' attention copies masks of other lengths, in every layer


@dataclass(frozen=True)
class Branches:
    """What is read of a trie behind one prompt.

    Attributes:
        trie: The trie; its root is read as the last token of the prompt.
        read: The inner nodes that are read, in their order, all that lead to them included.
        first: Which of them is the first whose next tokens are wanted.
    """

    trie: Trie
    read: IntArray
    first: int = 0

    @property
    def wanted(self) -> tuple[IntArray, IntArray]:
        """The nodes whose probability is wanted, and the place of their parent in `read`."""
        scored = np.zeros(len(self.trie.tokens), dtype=bool)
        scored[self.read[self.first :]] = True
        scored = scored[self.trie.parents]
        scored[0] = False  # the root is its own parent
        nodes = np.flatnonzero(scored)
        return nodes, np.searchsorted(self.read, self.trie.parents[nodes])


def tree_width(prompt: TokenIds, candidates: Sequence[TokenIds], virtual_tokens: int) -> int:
    """Return how many tokens are read of a prompt and its candidates: each beginning once."""
    beginnings = {tuple(one[:size]) for one in candidates for size in range(1, len(one))}
    return virtual_tokens + len(prompt) + len(beginnings)


def tree_totals(
    backbone: PreTrainedModel,
    soft_prompt: torch.Tensor | None,
    prompts: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]],
    prefix: Prefix | None = None,
) -> list[torch.Tensor]:
    """Return each candidate's log-probability behind its prompt, summed over its tokens.

    Differentiable with respect to the soft prompt and the backbone's weights.

    Args:
        backbone: A causal language model that takes the mask: see `support.way_of`.
        soft_prompt: `(virtual tokens, hidden size)`, or None.
        prompts: Token ids up to where the answer starts.
        candidates: For each prompt the candidates' token ids.
        prefix: What the soft prompt and all prompts begin with, read already; where gradients are
            wanted, a cartridge, which they reach.

    Returns:
        For each prompt `(candidates,)` float64.
    """
    tries = [Trie.grow(offered) for offered in candidates]
    branches = [Branches(trie, trie.inner) for trie in tries]
    if torch.is_grad_enabled() and prefix is not None:
        trunks = [prompt[len(prefix.tokens) :] for prompt in prompts]
        lengths = [prefix.length] * len(prompts)
        gained = _read(backbone, None, trunks, branches, prefix.cache(len(prompts)), lengths)
    elif torch.is_grad_enabled() or no_prefix(backbone) or in_shards(backbone):
        virtual = [] if soft_prompt is None else [0] * len(soft_prompt)
        trunks = [[*virtual, *prompt] for prompt in prompts]
        gained = _read(backbone, soft_prompt, trunks, branches)
    else:
        gained = read_branches(backbone, soft_prompt, prompts, branches, prefix)
    return _summed_rows(tries, gained)


def gained_in_chunks(
    backbone: PreTrainedModel,
    prompt: TokenIds,
    trie: Trie,
    prefix: Prefix,
    *,
    disable_tqdm: bool = True,
) -> torch.Tensor:
    """Return what each node of a trie adds, of more candidates than one forward holds.

    The prompt is read once for all chunks. What leads from the root into a chunk, a beginning of a
    title, is read with it. For inference.

    Args:
        backbone: A causal language model that goes on from a prefix: see `support.no_prefix`.
        prompt: Token ids up to where the answer starts.
        trie: The candidates.
        prefix: The prompt but for its last token, read already.
        disable_tqdm: Show no progress bar.

    Returns:
        `(nodes - 1,)` float64 log-probabilities, the root's left out: see `summed`.
    """
    found: list[torch.Tensor] = []
    nodes: list[torch.Tensor] = []
    for chunk in progress(_chunks(trie), desc="Reading titles", disable_tqdm=disable_tqdm):
        found += read_branches(backbone, None, [prompt], [chunk], prefix)
        nodes.append(torch.from_numpy(chunk.wanted[0]))
    gained = torch.cat(found)
    places = torch.cat(nodes).to(gained.device) - 1
    return torch.empty_like(gained).index_copy(0, places, gained)


def summed(trie: Trie, gained: torch.Tensor) -> torch.Tensor:
    """Return what the nodes of each sequence sum up to, `(sequences,)`, differentiable.

    Args:
        trie: The trie.
        gained: `(nodes - 1,)` what each node adds, the root's left out.
    """
    return _summed_rows([trie], [gained])[0]


def _summed_rows(tries: Sequence[Trie], gained: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return what `summed` does of each trie, in as few operations as of one."""
    everything = torch.cat(list(gained))
    sequences, nodes = [], []
    leaves = before = 0
    for trie in tries:
        owners, own = trie.steps()
        sequences.append(owners + leaves)
        nodes.append(own + (before - 1))  # the root has no place in `gained`
        leaves, before = leaves + len(trie.leaves), before + len(trie.tokens) - 1
    owned, steps = (
        torch.from_numpy(np.concatenate(parts)).to(everything.device)
        for parts in (sequences, nodes)
    )
    totals = everything.new_zeros(leaves).index_add(0, owned, everything.index_select(0, steps))
    return list(totals.split([len(trie.leaves) for trie in tries]))


def _chunks(trie: Trie) -> list[Branches]:
    """Cut a trie where little leads into the next chunk, which reads that again."""
    inner, chunks, start = trie.inner, [], 0
    depths = trie.depths[inner]
    while start < len(inner):
        way = [ROOT, *trie.path(inner[start])] if start else []
        stop = start + max(1, budget.CHUNK - len(way))
        if stop < len(inner):
            earliest = start + max(1, 3 * (stop - start) // 4)
            stop -= int(np.argmin(depths[earliest : stop + 1][::-1]))
        read = np.concatenate([np.array(way, dtype=np.int64), inner[start:stop]])
        chunks.append(Branches(trie, read, len(way)))
        start = stop
    return chunks


def read_branches(
    backbone: PreTrainedModel,
    soft_prompt: torch.Tensor | None,
    prompts: Sequence[TokenIds],
    branches: Sequence[Branches],
    prefix: Prefix | None = None,
) -> list[torch.Tensor]:
    """Return the log-probability of each wanted node's token behind what leads to it.

    The prompts are read up to their last token, then what is wanted of the tries.

    Args:
        backbone: A causal language model that goes on from a prefix: see `support.no_prefix`.
        soft_prompt: `(virtual tokens, hidden size)`, or None.
        prompts: Token ids up to where the answer starts.
        branches: What is read behind each of them.
        prefix: What the soft prompt and all prompts begin with, read already.

    Returns:
        For each prompt `(wanted nodes,)` float64.
    """
    if prefix is None:
        prefix = Prefix([], 0, [])
    else:
        soft_prompt = None  # the prefix begins with it
    cache = prefix.cache(len(prompts))
    trunks = [torch.tensor(one[len(prefix.tokens) : -1], dtype=torch.long) for one in prompts]
    embeds = embed(backbone, soft_prompt, _pad(trunks))
    if embeds.shape[1]:
        read_on(backbone, embeds, cache, prefix.length)
    virtual = embeds.shape[1] - max(map(len, trunks))
    lengths = [prefix.length + virtual + len(one) for one in trunks]
    roots = [one[-1:] for one in prompts]
    return _read(backbone, None, roots, branches, cache, lengths)


def _read(
    backbone: PreTrainedModel,
    soft_prompt: torch.Tensor | None,
    trunks: Sequence[TokenIds],
    branches: Sequence[Branches],
    cache: DynamicCache | None = None,
    lengths: Sequence[int] = (),
) -> list[torch.Tensor]:
    """Read trunks, virtual tokens included, and branches behind what a cache holds of each row."""
    lengths = lengths or [0] * len(trunks)
    rows = [_lay_out(*row) for row in zip(trunks, branches, lengths, strict=True)]
    multiple = 1 if backbone.device.type == "cpu" else _ALIGNED
    ids, depths, ends, scored = (_pad(parts, multiple) for parts in zip(*rows, strict=True))
    virtual = 0 if soft_prompt is None else len(soft_prompt)
    embeds = embed(backbone, soft_prompt, ids[:, virtual:])
    device = embeds.device
    past = torch.arange(max(lengths)).expand(len(rows), -1)
    earlier = past < torch.tensor(lengths)[:, None]  # rows are padded behind what they hold
    config = backbone.config.get_text_config()
    keys = torch.cat([past, depths], dim=1)
    inputs = {
        "inputs_embeds": embeds,
        "attention_mask": masks(
            config, _seen(ends.to(device), earlier.to(device)), depths, keys, embeds
        ),
        "position_ids": depths.to(device),
        "use_cache": cache is not None,
    }
    if cache is not None:
        inputs["past_key_values"] = cache
    owners, tokens, before = [], [], 0
    for one in branches:
        nodes, places = one.wanted
        owners.append(torch.from_numpy(before + places - one.first))
        tokens.append(torch.from_numpy(one.trie.tokens[nodes]))
        before += len(one.read) - one.first
    gained = log_probabilities(backbone, inputs, scored > 0, torch.cat(owners), torch.cat(tokens))
    return list(gained.double().split([len(one) for one in tokens]))


def _lay_out(trunk: TokenIds, branches: Branches, past: int) -> tuple[torch.Tensor, ...]:
    """Return a row's tokens, depths, ends and whether the next token is wanted.

    A token's end is the first place of the row that does not see it.
    """
    trie, read = branches.trie, branches.read
    root = len(trunk) - 1
    length = root + len(read)
    below = root + np.searchsorted(read, trie.ends[read])
    scored = np.zeros(length, dtype=np.int64)
    scored[root + branches.first :] = 1
    row = (
        np.concatenate([np.array(trunk, dtype=np.int64), trie.tokens[read[1:]]]),
        past + np.concatenate([np.arange(root), root + trie.depths[read]]),
        np.concatenate([np.full(root, length), below]),
        scored,
    )
    return tuple(torch.from_numpy(part) for part in row)


def _seen(ends: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
    """Return which tokens each one sees, `(rows, length, past + length)` bool.

    Padding, whose end is 0, sees itself and the past, because a row that may see nothing would be
    NaN.
    """
    places = torch.arange(ends.shape[1], device=ends.device)
    seen = (places[None, :] <= places[:, None]) & (places[:, None] < ends[:, None, :])
    seen |= places[None, :] == places[:, None]
    return torch.cat([earlier[:, None, :].expand(-1, len(places), -1), seen], dim=2)


def _pad(rows: Sequence[torch.Tensor], multiple: int = 1) -> torch.Tensor:
    """Return rows of one length, which is a multiple of some number."""
    padded = pad_sequence(list(rows), batch_first=True)
    return F.pad(padded, (0, -padded.shape[1] % multiple))
