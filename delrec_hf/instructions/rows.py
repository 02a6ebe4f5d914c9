"""Prepared examples as instruction rows and as token ids, for one tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from delrec_hf.data.prepared import PreparedData
from delrec_hf.instructions.chat_template import Messages
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.joined import with_order, with_suggested
from delrec_hf.instructions.lsr import lsr_rows
from delrec_hf.instructions.mapping import made_once
from delrec_hf.instructions.rps import rps_rows
from delrec_hf.instructions.ta import ta_rows
from delrec_hf.instructions.templates import Domain
from delrec_hf.instructions.titles import safe_titles

FloatArray = npt.NDArray[np.float64]

_RANKING_FEATURES = Features(
    {
        "prompt_ids": List(Value("int32")),
        "candidate_ids": List(List(Value("int32"))),
        "target_place": Value("int64"),
    }
)


@dataclass(frozen=True)
class InstructionRows:
    """Writes examples as instruction rows for one tokenizer.

    Attributes:
        prepared: The data that the examples are from.
        domain: How the items are spoken about.
        config: What the prompts show.
        predictions: Returns the teacher's best items for the examples of a part; RPS asks it.
        teacher_scores: Returns the teacher's scores of the candidates of examples of a part.
        tokenizer: The tokenizer of the model that will read the rows.
        seed: Decides the order of candidates and who is drawn out of many users.
    """

    prepared: PreparedData
    domain: Domain
    config: InstructionsConfig
    predictions: Callable[[str], Dataset]
    teacher_scores: Callable[[str, Dataset], FloatArray]
    tokenizer: PreTrainedTokenizerBase
    seed: int

    @cached_property
    def encoder(self) -> ChatEncoder:
        """Turns messages into token ids."""
        return ChatEncoder(self.tokenizer)

    @cached_property
    def titles(self) -> dict[str, str]:
        """Item id to the title that stands in prompts."""
        items = self.prepared.items
        titles = safe_titles(items["title"][:], self.tokenizer)
        return dict(zip(items["item_id"][:], titles, strict=True))

    def of_part(self, task: str, part: str, max_users: int | None = None) -> Dataset:
        """Return the instruction rows of a part, of all users or of some drawn by seed.

        Args:
            task: `ta`, `rps` or `lsr`.
            part: `train`, `validation` or `test`.
            max_users: Of how many users at most.
        """
        return self.rows(task, part, some_users(self.prepared.examples[part], max_users, self.seed))

    def rows(self, task: str, part: str, examples: Dataset) -> Dataset:
        """Return the instruction rows of a task for these examples of a part."""
        items, titles = self.prepared.items, list(self.titles.values())
        if task == "lsr":
            if self.config.teacher == "list":
                examples = with_suggested(examples, self.predictions(part))
            elif self.config.teacher == "order":
                examples = with_order(examples, self.teacher_scores(part, examples))
            return lsr_rows(examples, items, titles, self.domain, self.config)
        if task == "ta":
            sequences = self.prepared.sequences
            return ta_rows(examples, sequences, items, titles, self.domain, self.config, self.seed)
        found = self.predictions(part)
        return rps_rows(examples, found, items, titles, self.domain, self.config, self.seed)

    def encoded(self, rows: Dataset) -> Dataset:
        """Encode instruction rows for learning titles: `input_ids` and `labels`."""
        with made_once():
            return rows.map(
                self.encoder.encode_rows,
                batched=True,
                remove_columns=rows.column_names,
                desc="Encoding",
            )

    def to_rank(self, rows: Dataset) -> Dataset:
        """Encode instruction rows for ranking, and for learning it: see `ranking_rows`."""
        return ranking_rows(rows, self.encoder, self.titles)


def ranking_rows(rows: Dataset, encoder: ChatEncoder, titles: dict[str, str]) -> Dataset:
    """Encode instruction rows for ranking.

    Args:
        rows: Instruction rows.
        encoder: Writes prompts and answers as token ids.
        titles: Item id to the title that stands in prompts.

    Returns:
        `prompt_ids`, `candidate_ids` (each candidate's title and end of turn) and `target_place`,
        the target's place among the candidates.
    """
    ids = list(titles)
    answers = dict(zip(ids, encoder.encode_answers([titles[one] for one in ids]), strict=True))
    with made_once():
        return rows.map(
            _to_rank,
            batched=True,
            fn_kwargs={"encoder": encoder, "answers": answers},
            input_columns=["prompt", "candidates", "target"],
            remove_columns=rows.column_names,
            features=_RANKING_FEATURES,
            desc="Encoding",
        )


def _to_rank(
    prompts: list[Messages],
    candidates: list[list[str]],
    targets: list[str],
    encoder: ChatEncoder,
    answers: dict[str, list[int]],
) -> dict[str, list[Any]]:
    return {
        "prompt_ids": encoder.encode_prompts(prompts),
        "candidate_ids": [[answers[one] for one in offered] for offered in candidates],
        "target_place": [
            offered.index(target) for offered, target in zip(candidates, targets, strict=True)
        ],
    }


def some_users(examples: Dataset, max_users: int | None, seed: int) -> Dataset:
    """Return the examples of at most so many users, drawn by seed."""
    users = np.unique(examples["user_id"][:])
    if max_users is None or len(users) <= max_users:
        return examples
    chosen = np.random.default_rng(seed).choice(users, max_users, replace=False)
    return examples.select(np.flatnonzero(np.isin(examples["user_id"][:], chosen)))
