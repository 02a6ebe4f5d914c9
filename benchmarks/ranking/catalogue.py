"""CPU time of a whole catalogue behind one prompt: one by one, the trie, and its best ten items.

Users and titles are those of a folder with `interactions.csv.xz` and `items.csv.xz`. All times are
CPU seconds of one thread, and ratios are of one run.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from ranking import TokenIds, Users, arguments, begin, cpu
from transformers import PreTrainedModel

from delrec_hf.ranking.forward import embed
from delrec_hf.ranking.prefix import Prefix
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.tree import gained_in_chunks, summed
from delrec_hf.ranking.trie import Trie
from delrec_hf.ranking.whole_catalogue import CatalogueScorer

PARTS = ("catalogue", "beam")


def peak() -> int:
    """Return the most memory held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@torch.inference_mode()
def one_by_one(
    backbone: PreTrainedModel, soft_prompt: torch.Tensor | None, prompt: TokenIds, answers: Any
) -> list[float]:
    """Score titles, each in a forward of its own behind the prompt.

    In float32 `log_softmax` alone would be off by 1e-5 a token.
    """
    found = []
    for one in answers:
        embeds = embed(backbone, soft_prompt, torch.tensor([prompt + one[:-1]]))
        logits = backbone(inputs_embeds=embeds, use_cache=False, logits_to_keep=len(one)).logits[0]
        found.append(float(logits.double().log_softmax(-1)[range(len(one)), one].sum()))
    return found


@torch.inference_mode()
def one_by_one_behind(
    backbone: PreTrainedModel, soft_prompt: torch.Tensor | None, prompt: TokenIds, answers: Any
) -> list[float]:
    """Score titles, each in a forward of its own that goes on from the prompt's cache."""
    prefix, found = Prefix.read(backbone, soft_prompt, prompt[:-1]), []
    for one in answers:
        ids = torch.tensor([prompt[-1:] + one[:-1]])
        logits = backbone(input_ids=ids, past_key_values=prefix.cache(1)).logits[0]
        found.append(float(logits.double().log_softmax(-1)[range(len(one)), one].sum()))
    return found


@torch.inference_mode()
def matmul_seconds(backbone: PreTrainedModel, rows: int = 256) -> tuple[float, float]:
    """Return the CPU seconds that the matrices of the layers, and the last one, take a token."""
    best: dict[torch.Size, float] = {}
    layers = head = 0.0
    for module in backbone.modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        given = torch.randn(rows, module.in_features, dtype=module.weight.dtype)
        if module.weight.shape not in best:
            module(given)
            best[module.weight.shape] = min(
                cpu(lambda module=module, given=given: module(given))[0] for _ in range(5)
            )
        if module is backbone.get_output_embeddings():
            head += best[module.weight.shape] / rows
        else:
            layers += best[module.weight.shape] / rows
    return layers, head


@contextmanager
def counted(backbone: PreTrainedModel) -> Iterator[list[int]]:
    """Count the tokens of each forward of the decoder meanwhile."""
    widths: list[int] = []
    hook = backbone.base_model.register_forward_pre_hook(
        lambda _, __, given: widths.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    yield widths
    hook.remove()


def matrices(
    backbone: PreTrainedModel, trie: Trie, answers: list[TokenIds], start: int
) -> tuple[float, float]:
    """Return the CPU seconds of the matrices alone, one by one and through the trie."""
    layers, head = matmul_seconds(backbone)
    apart = [(start + len(one) - 1) * layers + len(one) * head for one in answers]
    return sum(apart), start * layers + len(trie.inner) * (layers + head)


def likely(trie: Trie, gained: torch.Tensor, least: float) -> int:
    """Return how many beginnings are as likely: a search that leaves one out may miss an item."""
    totals = np.zeros(len(trie.tokens))
    for node in range(1, len(totals)):
        totals[node] = totals[trie.parents[node]] + float(gained[node - 1])
    return int((totals[trie.inner] >= least).sum())


def measure_catalogue(backbone: PreTrainedModel, users: Users, sample: int, virtual: int) -> None:
    """Compare a whole catalogue through its trie with a sample of it one by one."""
    prompt, answers = users.prompt(0), users.answers
    width = backbone.config.get_text_config().hidden_size
    soft = 0.1 * torch.randn(virtual, width) if virtual else None
    scorer = CandidateScorer(backbone, soft)
    rows = np.random.default_rng(0).choice(len(answers), sample, replace=False)
    some, times = [answers[k] for k in rows], len(answers) / sample
    whole, trie, start = CatalogueScorer(scorer, answers), Trie.grow(answers), virtual + len(prompt)
    first, expected = cpu(lambda: one_by_one(backbone, soft, prompt, some))
    cached, _ = cpu(lambda: one_by_one_behind(backbone, soft, prompt, some))
    before = peak()
    with counted(backbone) as read, torch.inference_mode():
        seconds, gained = cpu(
            lambda: gained_in_chunks(backbone, prompt, trie, scorer.behind(prompt))
        )
    after = peak()
    second, _ = cpu(lambda: one_by_one(backbone, soft, prompt, some))
    with counted(backbone) as sought:
        found, best = cpu(lambda: whole.top(prompt, 10))
    alone, scores = min(first, second) * times, summed(trie, gained).numpy()
    apart, together = matrices(backbone, trie, answers, start)
    needed = likely(trie, gained, best[-1][1])
    print(f"{len(answers)} titles behind {start} tokens, {virtual} of them virtual")
    print(f"  one by one {alone:.0f} s (from {sample} titles), its matrices {apart:.0f} s")
    print(f"  one by one from the prompt's cache {cached * times:.0f} s")
    print(f"  trie {seconds:.1f} s, {alone / seconds:.1f} times less, {sum(read)} tokens")
    print(f"    its matrices {together:.1f} s, {apart / together:.1f} times less")
    print(f"    peak {after} MiB, {before} MiB before")
    print(f"    largest difference {np.abs(scores[rows] - expected).max():.1e}")
    print(f"  exact best 10 {found:.1f} s, {alone / found:.0f} times less")
    print(f"    read {sum(sought[1:])} beginnings, {needed} of which have to be")
    same = [item for item, _ in best] == np.argsort(-scores)[:10].tolist()
    print(f"    the same 10: {same}", flush=True)


def measure_beam(backbone: PreTrainedModel, users: Users, number: int, widths: list[int]) -> None:
    """Measure how much of the exact best 10 unseen items beams find, behind users' prompts."""
    prompts = [users.prompt(user) for user in range(number)]
    scorer = CandidateScorer(backbone).with_prefix(prompts)
    whole = CatalogueScorer(scorer, users.answers)
    reading, whole = cpu(lambda: whole.with_outlook(users.prompt(number)))
    print(f"best 10 unseen items of {number} users; outlook of another one {reading:.1f} s, once")
    ways: list[int | None] = [None, *widths]
    seconds, read, hits = np.zeros((3, len(ways)))
    for user, prompt in enumerate(prompts):
        exact: set[int] = set()
        seen = set(users.seen(user))
        for place, width in enumerate(ways):
            with counted(backbone) as tokens:
                one, best = cpu(
                    lambda prompt=prompt, seen=seen, width=width: whole.top(
                        prompt, 10, seen, width=width
                    )
                )
            items = {item for item, _ in best}
            exact = exact or items
            seconds[place] += one / number
            read[place] += sum(tokens[1:]) / number
            hits[place] += len(items & exact) / 10 / number
    for width, recall, beginnings, mean in zip(ways, hits, read, seconds, strict=True):
        name = "exact" if width is None else f"beam of {width}"
        print(f"  {name}: recall@10 {recall:.3f}, {beginnings:.0f} beginnings, {mean:.2f} s a user")


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__, users=32, parts=PARTS)
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--virtual", type=int, nargs="+", default=[0, 100])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128])
    known = parser.parse_args()
    backbone, _, users = begin(known)
    if "catalogue" in known.parts:
        for virtual in known.virtual:
            measure_catalogue(backbone, users, known.sample, virtual)
    if "beam" in known.parts:
        measure_beam(backbone, users, known.users, known.widths)


if __name__ == "__main__":
    main()
