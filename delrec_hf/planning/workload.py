"""The rows that each stage of a recipe reads, worded and counted before anything is trained."""

import copy
from dataclasses import dataclass, field, replace

import numpy as np
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from delrec_hf.data.prepared import PreparedData
from delrec_hf.evaluation.evaluator import EvaluateConfig
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.rows import InstructionRows, some_users
from delrec_hf.instructions.templates import load_domain, lsr_messages
from delrec_hf.planning.lengths import SAMPLED, Lengths, count_ranking, count_titles, sampled
from delrec_hf.ranking.calibration import CalibrateConfig
from delrec_hf.ranking.tree import tree_width
from delrec_hf.runs.rows import examples_of
from delrec_hf.runs.run import Run
from delrec_hf.teachers.predictions import read_predictions
from delrec_hf.training.common import StageConfig
from delrec_hf.training.distillation import DistilConfig
from delrec_hf.training.recommendation import FinetuneConfig

_BYTES_A_TOKEN = 4  # of English in the vocabularies of today's models
_AT_ONCE = 64  # titles of one row, as `calibrate` reads them


@dataclass(frozen=True)
class Workload:
    """Words a recipe's rows and counts their tokens.

    Attributes:
        run: The recipe.
        prepared: Its data.
        tokenizer: The backbone's; None: tokens are taken for a quarter of the bytes.
        taught: Whether the teacher's predictions are there; else any unseen items stand for them.
    """

    run: Run
    prepared: PreparedData
    tokenizer: PreTrainedTokenizerBase | None
    taught: bool
    _known: dict[tuple[object, ...], Lengths] = field(default_factory=dict)

    def trained(self, config: DistilConfig | FinetuneConfig, task: str) -> Lengths:
        """Return the rows that a task's training reads, of one epoch."""
        prepared, examples = self.prepared, self.prepared.examples["train"]
        number, stored = len(examples), True
        if isinstance(config, DistilConfig) and config.positions == "all":
            stored = False
            number = examples_of(copy.copy(config), prepared)
            examples = prepared.training_examples(min(number, SAMPLED), config.seed)
        elif isinstance(config, FinetuneConfig):
            examples = some_users(examples, config.max_train_users, prepared.info["seed"])
            if self._instructions.turns and config.loss == "title":
                examples = prepared.training_windows(examples["user_id"][:])
            number = len(examples)
        title = config.loss == "title"
        return self._count(task, "train", examples, number, config.seed, title=title, stored=stored)

    def validated(self, config: StageConfig, task: str, *, title: bool = False) -> Lengths:
        """Return the validation rows of a task, ranked, or read for the title's loss."""
        examples = self.prepared.examples["validation"]
        examples = some_users(examples, config.max_validation_users, config.seed)
        return self._count(task, "validation", examples, len(examples), config.seed, title=title)

    def calibrated(self, config: CalibrateConfig) -> tuple[Lengths, Lengths]:
        """Return the rows without a history, of some titles each, and the validation rows."""
        write = self._write(config.seed)
        prompt = [lsr_messages(write.domain, [], turns=self._instructions.turns)]
        (empty,) = write.encoder.encode_prompts(prompt)
        answers = write.encoder.encode_answers(list(write.titles.values()))
        parts = [answers[k : k + _AT_ONCE] for k in range(0, len(answers), _AT_ONCE)]
        bare = count_ranking([empty] * len(parts), parts, len(parts), len(parts), self._shrink)
        examples = self.prepared.examples["validation"]
        examples = some_users(examples, config.max_users, config.seed)
        return bare, self._count("lsr", "validation", examples, len(examples), config.seed)

    def tested(self, config: EvaluateConfig, task: str = "lsr", candidates: int = 0) -> Lengths:
        """Return the test rows, with so many candidates instead of the recipe's."""
        examples = some_users(self.prepared.examples["test"], config.max_users, config.seed)
        wanted = candidates or config.num_candidates
        number = len(examples)
        if wanted:
            examples, _ = sampled(examples, self.prepared.items["title"][:])
            seed = self.prepared.info["seed"]
            examples = self.prepared.with_other_candidates(examples, seed, wanted)
        return self._count(task, "test", examples, number, config.seed)

    def kept_by_calibrate(self, config: EvaluateConfig) -> int:
        """Return how many validation rows of `evaluate` the untrained backbone has scored before.

        `calibrate` keeps what it has read, and the same user has the same row.
        """
        if config.candidates != "uniform" or config.num_candidates is not None:
            return 0
        before: CalibrateConfig = self.run.recipe.settings("calibrate")
        examples = self.prepared.examples["validation"]
        read, wanted = (
            some_users(examples, users, seed)["user_id"][:]
            for users, seed in ((before.max_users, before.seed), (config.fit_users, config.seed))
        )
        return len(set(read) & set(wanted)) if before.seed == config.seed else 0

    def catalogue(self) -> int:
        """Return the tokens of the trie of all titles."""
        write = self._write(0)
        answers = write.encoder.encode_answers(list(write.titles.values()))
        return round(tree_width([], answers, 0) * self._shrink)

    @property
    def _instructions(self) -> InstructionsConfig:
        found: InstructionsConfig = self.run.recipe.settings("instructions")
        return found

    @property
    def _shrink(self) -> float:
        return 1.0 if self.tokenizer is not None else 1 / _BYTES_A_TOKEN

    def _write(self, seed: int) -> InstructionRows:
        return InstructionRows(
            self.prepared,
            load_domain(self.prepared.info["domain"]),
            self._instructions,
            self.run.predictions,
            lambda _, examples: np.zeros((len(examples), len(examples["candidates"][0]))),
            byte_tokenizer() if self.tokenizer is None else self.tokenizer,
            seed,
        )

    def _count(
        self,
        task: str,
        part: str,
        examples: Dataset,
        number: int,
        seed: int,
        *,
        title: bool = False,
        stored: bool = True,
    ) -> Lengths:
        key = (task, part, number, len(examples), len(examples[0]["candidates"]), seed, title)
        if key in self._known:
            return self._known[key]
        some, typical = sampled(examples, self.prepared.items["title"][:])
        write = self._write(seed)
        if task == "rps" or self._instructions.teacher == "list":
            write = replace(write, predictions=lambda _: self._predicted(part, some, stored=stored))
        rows = write.rows(task, part, some)
        typical = min(typical, len(rows))
        if title:
            counted = count_titles(write.encoded(rows), number, typical, self._shrink)
        else:
            found = write.to_rank(rows)
            columns = (found["prompt_ids"][:], found["candidate_ids"][:])
            counted = count_ranking(*columns, number, typical, self._shrink)
        self._known[key] = counted
        return counted

    def _predicted(self, part: str, examples: Dataset, *, stored: bool) -> Dataset:
        """Return the teacher's items of examples; until it has taught, negatives stand for them."""
        if self.taught and stored:
            return read_predictions(self.run.folder / "teacher" / "predictions", part)
        top_h = self.run.recipe.settings("teacher").top_h
        found = {
            (row["user_id"], row["position"]): [k for k in row["candidates"] if k != row["target"]]
            for row in examples
        }
        users, positions = zip(*found, strict=True)
        items = [offered[:top_h] for offered in found.values()]
        return Dataset.from_dict({"user_id": users, "position": positions, "items": items})


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are bytes, to count what has no tokenizer yet."""
    pieces = {one: k for k, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    whole = Tokenizer(models.BPE(vocab=pieces, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="<|end|>", pad_token="<|pad|>")
