"""CPU time of scoring candidates and whole catalogues, beside plain forwards and one by one.

Users and titles are those of a folder with `interactions.csv.xz` and `items.csv.xz`. All times are
CPU seconds of one thread, and ratios are of one run.
"""

import argparse
import csv
import lzma
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.templates import DOMAINS, lsr_prompt
from delrec_hf.logging import quiet_libraries
from delrec_hf.modeling.backbone import BackboneConfig, load_backbone
from delrec_hf.ranking.scoring import CandidateScorer
from delrec_hf.ranking.whole_catalogue import CatalogueScorer

PARTS = ("forward", "harness", "prefix", "catalogue", "beam")
TokenIds = list[int]


class Users:
    """Prompts and candidates of users whose last item is the target."""

    def __init__(self, data: Path, encoder: ChatEncoder, history: int) -> None:
        """Read a folder."""
        with lzma.open(data / "items.csv.xz", "rt") as stream:
            self.titles = {row["item_id"]: row["title"] for row in csv.DictReader(stream)}
        with lzma.open(data / "interactions.csv.xz", "rt") as stream:
            rows = sorted(csv.DictReader(stream), key=lambda row: int(row["timestamp"]))
        self.items = list(self.titles)
        self.answers = encoder.encode_answers(list(self.titles.values()))
        self._encoder, self._history = encoder, history
        self._sequences: dict[str, list[str]] = {}
        for row in rows:
            self._sequences.setdefault(row["user_id"], []).append(row["item_id"])
        self._names = np.random.default_rng(0).permutation(sorted(self._sequences)).tolist()

    def seen(self, user: int) -> list[int]:
        """Return the rows of a user's items before the last one."""
        return [self.items.index(one) for one in self._sequences[self._names[user]][:-1]]

    def prompt(self, user: int, listed: Sequence[int] | None = None) -> TokenIds:
        """Return a user's prompt, with candidates or without."""
        titles = [self.titles[self.items[row]] for row in self.seen(user)[-self._history :]]
        offered = None if listed is None else [self.titles[self.items[row]] for row in listed]
        text = lsr_prompt(DOMAINS["movie"], titles, offered)
        return self._encoder.encode_prompts([[{"role": "user", "content": text}]])[0]

    def candidates(self, user: int) -> list[int]:
        """Return 20 items."""
        return np.random.default_rng(user).choice(len(self.items), 20, replace=False).tolist()


def cpu(act: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of something, and what it returns."""
    start = time.process_time()
    found = act()
    return time.process_time() - start, found


def peak() -> int:
    """Return the most memory held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@torch.inference_mode()
def plainly(backbone: PreTrainedModel, prompts: list[TokenIds], offered: Any) -> None:
    """Read prompts, each with all candidates behind it, and keep the candidates' logits."""
    for prompt, candidates in zip(prompts, offered, strict=True):
        ids = torch.tensor([prompt + [token for one in candidates for token in one]])
        backbone(input_ids=ids, use_cache=False, logits_to_keep=ids.shape[1] - len(prompt) + 1)


@torch.inference_mode()
def one_by_one(backbone: PreTrainedModel, prompt: TokenIds, answers: Any) -> list[float]:
    """Score titles, each in a forward of its own behind the prompt."""
    found = []
    for one in answers:
        ids = torch.tensor([prompt + one[:-1]])
        logits = backbone(input_ids=ids, use_cache=False, logits_to_keep=len(one)).logits[0]
        found.append(float(logits.log_softmax(-1)[range(len(one)), one].double().sum()))
    return found


def harness(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[TokenIds],
    offered: Any,
) -> list[float]:
    """Score candidates by lm-evaluation-harness' log-likelihood."""
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=backbone, tokenizer=tokenizer, batch_size=8, device="cpu")
    asked = [
        (("", ""), prompt, one)
        for prompt, candidates in zip(prompts, offered, strict=True)
        for one in candidates
    ]
    return [total for total, _ in model._loglikelihood_tokens(asked, disable_tqdm=True)]


def measure_candidates(
    backbone: PreTrainedModel, tokenizer: Any, users: Users, number: int, parts: Sequence[str]
) -> None:
    """Compare 20 listed candidates a user with plain forwards and with the harness."""
    listed = [users.candidates(user) for user in range(number)]
    prompts = [users.prompt(user, one) for user, one in enumerate(listed)]
    offered = [[users.answers[row] for row in one] for one in listed]
    scorer = CandidateScorer(backbone)
    plainly(backbone, prompts[:1], offered[:1])
    ours, scores = cpu(lambda: scorer.score(prompts, offered))
    behind, again = cpu(lambda: scorer.with_prefix(prompts).score(prompts, offered))
    plain, _ = cpu(lambda: plainly(backbone, prompts, offered))
    tokens = sum(map(len, prompts)) + sum(len(one) for row in offered for one in row)
    print(f"{number} users, 20 listed candidates, {tokens / number:.0f} tokens a user")
    print(f"  one plain forward {plain:.2f} s")
    print(f"  candidates {ours:.2f} s: {ours / plain:.2f} times the plain forward")
    print(f"  with the cached prefix {behind:.2f} s: {behind / plain:.2f} times")
    print(f"  largest difference {np.abs(np.subtract(scores, again)).max():.1e}")
    if "harness" in parts:
        peer, found = cpu(lambda: harness(backbone, tokenizer, prompts, offered))
        print(f"  lm-evaluation-harness {peer:.1f} s: {peer / ours:.1f} times the candidates,")
        print(f"  {peer / behind:.1f} times those with the cached prefix; largest difference "
              f"{np.abs(np.ravel(scores) - found).max():.1e}")  # fmt: skip


def measure_prefix(backbone: PreTrainedModel, users: Users, number: int, virtual: int) -> None:
    """Compare unlisted candidates behind a soft prompt, with and without the cached prefix."""
    prompts = [users.prompt(user) for user in range(number)]
    offered = [[users.answers[row] for row in users.candidates(user)] for user in range(number)]
    width = backbone.config.get_text_config().hidden_size
    scorer = CandidateScorer(backbone, 0.1 * torch.randn(virtual, width))
    without, plain = cpu(lambda: scorer.score(prompts, offered))
    reading, behind = cpu(lambda: scorer.with_prefix(prompts))
    cached, found = cpu(lambda: behind.score(prompts, offered))
    print(f"{number} users, 20 unlisted candidates, {virtual} virtual tokens, prefix of "
          f"{behind.prefix.length}, prompts of {np.mean([*map(len, prompts)]):.0f}")  # fmt: skip
    print(f"  without prefix {number / without:.2f} users / CPU s, with {number / cached:.2f}, "
          f"{without / cached:.2f} times; reading it {reading:.2f} s, once; largest difference "
          f"{np.abs(np.subtract(plain, found)).max():.1e}")  # fmt: skip


def measure_catalogue(backbone: PreTrainedModel, users: Users, sample: int) -> None:
    """Compare a whole catalogue through its trie with a sample of it one by one."""
    prompt, whole = users.prompt(0), CatalogueScorer(CandidateScorer(backbone), users.answers)
    some = np.random.default_rng(0).choice(len(users.answers), sample, replace=False)
    alone, expected = cpu(lambda: one_by_one(backbone, prompt, [users.answers[k] for k in some]))
    before = peak()
    seconds, scores = cpu(lambda: whole.score(prompt, disable_tqdm=False))
    after = peak()
    found, best = cpu(lambda: whole.top(prompt, 10))
    every = alone * len(users.answers) / sample
    beginnings = {tuple(one[:k]) for one in users.answers for k in range(1, len(one))}
    apart = sum(len(prompt) + len(one) - 1 for one in users.answers)
    read = len(prompt) + len(beginnings)
    print(f"{len(users.answers)} titles behind a prompt of {len(prompt)} tokens")
    print(f"  one by one {apart} tokens, {every:.0f} s (from {sample} titles, {alone:.1f} s)")
    print(f"  the trie {read} tokens, {seconds:.1f} s: {every / seconds:.1f} times less; peak "
          f"{after} MiB, {before} MiB before")  # fmt: skip
    print(f"  its exact best 10 {found:.1f} s: {every / found:.0f} times less")
    print(f"  largest difference {np.abs(scores[some] - expected).max():.1e}; the same best 10: "
          f"{[item for item, _ in best] == np.argsort(-scores)[:10].tolist()}")  # fmt: skip


def measure_beam(backbone: PreTrainedModel, users: Users, number: int, widths: list[int]) -> None:
    """Measure how much of the exact best 10 unseen items beams find, without and with outlook."""
    prompts = [users.prompt(user) for user in range(number)]
    scorer = CandidateScorer(backbone).with_prefix(prompts)
    whole = CatalogueScorer(scorer, users.answers)

    def find(whole: CatalogueScorer, width: int | None) -> list[set[int]]:
        return [
            {item for item, _ in whole.top(prompt, 10, set(users.seen(user)), width=width)}
            for user, prompt in enumerate(prompts)
        ]

    seconds, exact = cpu(lambda: find(whole, None))
    print(f"best 10 unseen items of {number} users\n  exact {seconds / number:.2f} s a user")
    reading, ahead = cpu(lambda: whole.with_outlook(users.prompt(number)))
    print(f"  outlook of another user's prompt {reading:.1f} s, once")
    for name, beams in (("outlook", ahead), ("no outlook", whole)):
        for width in widths:
            seconds, found = cpu(lambda beams=beams, width=width: find(beams, width))
            recall = np.mean([len(a & b) / 10 for a, b in zip(exact, found, strict=True)])
            print(f"  beam of {width}, {name}: recall@10 {recall:.3f}, "
                  f"{seconds / number:.2f} s a user", flush=True)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--torch_dtype", default="float32")
    parser.add_argument("--users", type=int, default=2)
    parser.add_argument("--beam_users", type=int, default=20)
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--sample", type=int, default=50)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    known = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quiet_libraries()
    config = BackboneConfig(model_name_or_path=known.backbone, torch_dtype=known.torch_dtype)
    backbone, tokenizer = load_backbone(config)
    backbone.eval()
    users = Users(known.data, ChatEncoder(tokenizer), history=10)
    print(f"{known.backbone}, {known.torch_dtype}, one thread", flush=True)
    if {"forward", "harness"} & set(known.parts):
        measure_candidates(backbone, tokenizer, users, known.users, known.parts)
    if "prefix" in known.parts:
        measure_prefix(backbone, users, 2 * known.users, virtual=100)
    if "catalogue" in known.parts:
        measure_catalogue(backbone, users, known.sample)
    if "beam" in known.parts:
        measure_beam(backbone, users, known.beam_users, known.widths)


if __name__ == "__main__":
    main()
