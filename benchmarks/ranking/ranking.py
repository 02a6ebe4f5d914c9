"""CPU time of scoring candidates, beside plain forwards and an evaluation harness.

Users and titles are those of a folder with `interactions.csv.xz` and `items.csv.xz`. All times are
CPU seconds of one thread, and ratios are of one run.
"""

import argparse
import csv
import lzma
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

PARTS = ("forward", "harness", "prefix")
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


@torch.inference_mode()
def plainly(backbone: PreTrainedModel, prompts: list[TokenIds], offered: Any) -> None:
    """Read prompts, each with all candidates behind it, and keep the candidates' logits."""
    for prompt, candidates in zip(prompts, offered, strict=True):
        ids = torch.tensor([prompt + [token for one in candidates for token in one]])
        backbone(input_ids=ids, use_cache=False, logits_to_keep=ids.shape[1] - len(prompt) + 1)


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


def arguments(description: str | None, users: int, parts: Sequence[str]) -> argparse.ArgumentParser:
    """Return what benchmarks of one backbone and the users of a folder are told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--torch_dtype", default="float32")
    parser.add_argument("--users", type=int, default=users)
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    return parser


def begin(known: argparse.Namespace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Users]:
    """Set one thread, say what is measured, and return backbone, tokenizer and users."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quiet_libraries()
    config = BackboneConfig(model_name_or_path=known.backbone, torch_dtype=known.torch_dtype)
    backbone, tokenizer = load_backbone(config)
    backbone.eval()
    print(f"{known.backbone}, {known.torch_dtype}, one thread", flush=True)
    return backbone, tokenizer, Users(known.data, ChatEncoder(tokenizer), history=10)


def main() -> None:
    """Measure and print."""
    known = arguments(__doc__, users=2, parts=PARTS).parse_args()
    backbone, tokenizer, users = begin(known)
    if {"forward", "harness"} & set(known.parts):
        measure_candidates(backbone, tokenizer, users, known.users, known.parts)
    if "prefix" in known.parts:
        measure_prefix(backbone, users, 2 * known.users, virtual=100)


if __name__ == "__main__":
    main()
