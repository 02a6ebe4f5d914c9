"""What a soft prompt says: the words its virtual tokens point at, and what each of them does."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import marker_ids
from delrec_hf.logging import progress
from delrec_hf.ranking.bars import Bar, Panel, draw
from delrec_hf.ranking.explanation import save
from delrec_hf.ranking.fused_teacher import FloatArray
from delrec_hf.ranking.scoring import CandidateScorer

_LOOKED_AT = 64  # nearest pieces of the vocabulary out of which readable ones are taken
_DRAWN = 256  # directions drawn at random, to say how near chance alone comes


@dataclass(frozen=True)
class Word:
    """A piece of the vocabulary.

    Attributes:
        text: Its text.
        cosine: Its embedding's cosine to the virtual token.
    """

    text: str
    cosine: float


@dataclass(frozen=True)
class Effect:
    """How a prompt, or one token of it, moves rows: with it, less without it.

    Attributes:
        lead: Mean change of how far the target's score lies above the mean of the others'.
        agreement: Change of the share of rows whose target is ranked first.
        changed: Share of rows whose first choice is another one without it.
    """

    lead: float
    agreement: float
    changed: float


@dataclass(frozen=True)
class VirtualToken:
    """A row of the soft prompt.

    Attributes:
        number: Its place in the prompt, from 1.
        words: The nearest readable pieces of the vocabulary, nearest first.
        length: Its norm, in multiples of the mean norm of the vocabulary's embeddings.
        effect: What it does, the other tokens being there; None: not measured.
    """

    number: int
    words: list[Word]
    length: float
    effect: Effect | None


@dataclass(frozen=True)
class PromptExplanation:
    """What a soft prompt says and does.

    Attributes:
        tokens: Its virtual tokens.
        chance_cosine: Median cosine of random directions to the nearest piece of the vocabulary:
            a token that comes no nearer points at no word.
        rows: On how many rows effects were measured; 0: on none.
        agreement: Share of these whose target is ranked first with the whole prompt. In rows of
            the task RPS, the target is what the teacher ranks first.
        whole: What the whole prompt does, against none.
    """

    tokens: list[VirtualToken]
    chance_cosine: float
    rows: int
    agreement: float | None
    whole: Effect | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return asdict(self)

    def text(self) -> str:
        """Return the explanation as plain text."""
        head = f"{'token':>5}{'length':>8}"
        if self.rows:
            head += f"{'lead':>9}{'agreement':>11}{'changed':>9}"
        lines = [f"{head}  nearest words (cosine)"]
        for one in self.tokens:
            line = f"{one.number:>5}{one.length:>8.1f}"
            if one.effect is not None:
                does = one.effect
                line += f"{does.lead:>+9.3f}{does.agreement:>+11.3f}{does.changed:>9.3f}"
            words = ", ".join(f"{word.text} {word.cosine:.2f}" for word in one.words)
            lines.append(f"{line}  {words}")
        return "\n\n".join(["\n".join(self._facts()), "\n".join(lines)])

    def figure(self) -> str:
        """Return a picture as SVG: a bar for each virtual token."""
        bars = []
        for one in self.tokens:
            label = f"{one.number}: {', '.join(word.text for word in one.words[:3])}"
            if one.effect is not None:
                note = f"{one.effect.agreement:+.3f}"
                bars.append(Bar(label, [one.effect.lead], one.effect.lead, note))
            else:
                cosine = one.words[0].cosine if one.words else 0.0
                bars.append(Bar(label, [cosine], cosine, f"{one.length:.1f}"))
        panel = Panel(
            "What each virtual token adds to the target's lead"
            if self.rows
            else "How near each virtual token is to a word",
            ["Each token has its place in the prompt and its three nearest words."],
            bars,
            ("lead", "agreement") if self.rows else ("cosine", "length"),
        )
        return draw("The soft prompt, token by token", self._facts(), [], [panel])

    def save(self, path: str | Path) -> None:
        """Write a picture (`.svg`), a dictionary (`.json`) or a text (`.txt`).

        Raises:
            InputError: If the file's name ends in none of these.
        """
        save(self, path)

    def _facts(self) -> list[str]:
        facts = [
            f"{len(self.tokens)} virtual tokens. A random direction comes as near to a word as "
            f"{self.chance_cosine:.2f} (cosine). Lengths are in mean words.",
        ]
        if self.whole is not None and self.agreement is not None:
            facts += [
                f"On {self.rows} rows the target ranks first in {self.agreement:.3f} with the "
                f"prompt, in {self.agreement - self.whole.agreement:.3f} without any; lead "
                f"{self.whole.lead:+.3f}.",
                "Each token was dropped alone: what they do does not add up to the whole.",
            ]
        return facts


def explain_prompt(
    scorer: CandidateScorer,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset | None = None,
    *,
    words: int = 5,
    disable_tqdm: bool = False,
) -> PromptExplanation:
    """Name the words that virtual tokens are nearest to, and measure what each token does.

    A token is dropped from the prompt, whose other tokens move together, and all rows are scored
    again: as many times as there are tokens, and twice.

    Args:
        scorer: Backbone, soft prompt and way of scoring: see `scorer_of`. A LoRA that is switched
            on takes part.
        tokenizer: The backbone's.
        rows: Rows to rank, see `ranking_rows`; None: nothing is measured.
        words: How many words a token gets.
        disable_tqdm: Show no progress bar.

    Raises:
        InputError: If there is no soft prompt, or a cartridge, or no row.
    """
    prompt = scorer.soft_prompt
    if scorer.cartridge is not None:
        raise InputError(
            "the prompt is a cartridge, keys and values in each layer that no word can be nearest "
            "to; explain one that was distilled with `distil.prompt_type: prompt_tuning`"
        )
    if prompt is None:
        raise InputError("there is no soft prompt to explain; give a scorer that has one")
    if rows is not None and not len(rows):
        raise InputError("there is no row to measure a prompt on; give one at least")
    found, lengths, chance = _nearest(scorer, prompt.detach(), tokenizer, words)
    effects: list[Effect | None] = [None] * len(prompt)
    whole, agreement = None, None
    if rows is not None:
        kept = [torch.arange(len(prompt)) != number for number in range(len(prompt))]
        shorter = [prompt.detach()[one.to(prompt.device)] for one in kept]
        scorers = [replace(scorer, soft_prompt=one if len(one) else None) for one in shorter]
        measured = [
            _measure(one, rows)
            for one in progress(
                [scorer, replace(scorer, soft_prompt=None), *scorers],
                desc="Dropping virtual tokens",
                disable_tqdm=disable_tqdm,
            )
        ]
        there, none, *dropped = measured
        effects = [there.less(one) for one in dropped]
        whole, agreement = there.less(none), there.agreement
    tokens = [
        VirtualToken(number, *one)
        for number, one in enumerate(zip(found, lengths, effects, strict=True), start=1)
    ]
    return PromptExplanation(tokens, chance, 0 if rows is None else len(rows), agreement, whole)


@dataclass(frozen=True)
class _Measured:
    """Of each row the target's lead, the first choice, and whether that is the target."""

    leads: FloatArray
    choices: FloatArray
    agrees: FloatArray

    @property
    def agreement(self) -> float:
        return float(self.agrees.mean())

    def less(self, other: "_Measured") -> Effect:
        return Effect(
            lead=float((self.leads - other.leads).mean()),
            agreement=float(self.agrees.mean() - other.agrees.mean()),
            changed=float((self.choices != other.choices).mean()),
        )


def _measure(scorer: CandidateScorer, rows: Dataset) -> _Measured:
    targets: Sequence[int] = rows["target_place"][:]
    scores = scorer.score(rows["prompt_ids"][:], rows["candidate_ids"][:])
    leads = [
        one[target] - np.delete(one, target).mean()
        for one, target in zip(scores, targets, strict=True)
    ]
    choices = np.array([one.argmax() for one in scores])
    return _Measured(np.array(leads), choices, choices == np.array(targets))


@torch.inference_mode()
def _nearest(
    scorer: CandidateScorer, prompt: torch.Tensor, tokenizer: PreTrainedTokenizerBase, words: int
) -> tuple[list[list[Word]], list[float], float]:
    """Return each virtual token's nearest words and its length, and the cosine of chance."""
    table = scorer.backbone.get_input_embeddings().weight[: len(tokenizer)]
    markers = marker_ids(tokenizer)
    norms = table.float().norm(dim=1)
    drawn = torch.randn(_DRAWN, table.shape[1], generator=torch.Generator().manual_seed(0))
    asked = F.normalize(torch.cat([prompt.float(), drawn.to(prompt.device)]), dim=1)
    cosines = asked.to(table.device) @ F.normalize(table.float(), dim=1).T
    chance = float(cosines[len(prompt) :].max(dim=1).values.median())
    cosines = cosines[: len(prompt)]
    near = cosines.topk(min(_LOOKED_AT, len(table)), dim=1)
    found = []
    for values, ids in zip(near.values.tolist(), near.indices.tolist(), strict=True):
        texts: dict[str, float] = {}
        for value, one in zip(values, ids, strict=True):
            text = str(tokenizer.decode([one])).strip()
            if one not in markers and any(letter.isalnum() for letter in text):
                texts.setdefault(text, value)
        found.append([Word(*one) for one in list(texts.items())[:words]])
    lengths = (prompt.float().norm(dim=1) / norms.mean().to(prompt.device)).tolist()
    return found, lengths, chance
