"""The systems of the result table: what each is called, what it needs, how it ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError, suggest
from delrec_hf.instructions.rows import InstructionRows
from delrec_hf.logging import get_logger
from delrec_hf.modeling.artefact import INDEX_FILE
from delrec_hf.modeling.stacked import DelRecModel, load_adapters
from delrec_hf.ranking.kept import folder_of
from delrec_hf.ranking.rows import score_rows, scorer_of
from delrec_hf.ranking.scoring import CandidateScorer, Scoring, ScoringKind
from delrec_hf.teachers.baselines import CoOccurrence, Markov, Popularity, Random
from delrec_hf.teachers.loading import load_teacher
from delrec_hf.teachers.predictions import score_candidates
from delrec_hf.teachers.teacher import Teacher

FloatArray = npt.NDArray[np.float64]
Score = Callable[[Dataset], FloatArray]
"""Scores examples' candidates, `(users, candidates)`, higher is better."""

logger = get_logger(__name__)


@dataclass(frozen=True)
class Outputs:
    """What the stages of a run have left, for the systems to rank with.

    Attributes:
        folder: The run's folder.
        prepared: The data.
        load_backbone: Loads the backbone and its tokenizer, afresh each time: adapters are injected
            into it.
        word: Returns what writes instruction rows for a tokenizer.
        scoring: Returns how titles are scored with a tokenizer, by a kind of score or the recipe's.
        seed: Decides the scores of `random`.
        scores: Folder that keeps what language models say of each row.
    """

    folder: Path
    prepared: PreparedData
    load_backbone: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    word: Callable[[PreTrainedTokenizerBase], InstructionRows]
    scoring: Callable[[PreTrainedTokenizerBase, ScoringKind | None], Scoring]
    seed: int
    scores: Path
    _rows: dict[tuple[str, int], tuple[Dataset, Dataset]] = field(default_factory=dict)

    def ranking_rows(
        self, task: str, examples: Dataset, tokenizer: PreTrainedTokenizerBase
    ) -> Dataset:
        """Return test examples as rows to rank, worded and encoded once for all systems."""
        key = (task, id(examples))
        if key not in self._rows:
            write = self.word(tokenizer)
            rows = write.to_rank(write.rows(task, "test", examples))
            self._rows[key] = (examples, rows)  # the examples as well: their id stays taken
        return self._rows[key][1]


@dataclass(frozen=True)
class System:
    """A row of the result table: something that scores, or a fusion of such systems' scores.

    Attributes:
        name: Its name in recipes and results; `teacher` is reported as `teacher/TYPE`.
        needs: Stages whose output it reads; `backbone` stands for a recipe that names one.
        folder: What it reads in the run's folder, if anything, or what it is there for.
        load: Returns its scorer, with everything read that it ranks with; None for a fusion.
        parts: Of a fusion: the systems that it weighs together.
        against: Systems that it is compared with, user by user.
        reads_prompts: Whether it reads prompts, so that the order of what they list may matter.
        on_request: Whether only a recipe that names it ranks with it.
    """

    name: str
    needs: tuple[str, ...] = ()
    folder: str | None = None
    load: Callable[[Outputs], Score] | None = None
    parts: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    reads_prompts: bool = False
    on_request: bool = False


def _by(make: Callable[[Outputs], Teacher]) -> Callable[[Outputs], Score]:
    """Rank with anything that scores items after a history."""

    def load(outputs: Outputs) -> Score:
        teacher = make(outputs)
        return lambda examples: score_candidates(teacher, outputs.prepared, examples)

    return load


def _zero_shot(kind: ScoringKind | None = None) -> Callable[[Outputs], Score]:
    """Rank with the untrained backbone, by a kind of score or the recipe's own."""

    def load(outputs: Outputs) -> Score:
        backbone, tokenizer = outputs.load_backbone()
        backbone.to(PartialState().device)
        scorer = CandidateScorer(backbone, None, outputs.scoring(tokenizer, kind))
        return _by_titles(outputs, scorer, tokenizer)

    return load


def _prompt_only(outputs: Outputs) -> Score:
    backbone, tokenizer = outputs.load_backbone()
    model = DelRecModel.with_prompt(backbone, outputs.folder / "distil")
    model.to(PartialState().device).eval()
    return _by_titles(outputs, scorer_of(model, outputs.scoring(tokenizer, None)), tokenizer)


def _tuned(folder: str) -> Callable[[Outputs], Score]:
    """Rank with the LoRA of a folder, and its soft prompt if it has one."""

    def load(outputs: Outputs) -> Score:
        backbone, tokenizer = outputs.load_backbone()
        model = load_adapters(backbone, outputs.folder / folder)
        model.to(PartialState().device).eval()
        return _by_titles(outputs, scorer_of(model, outputs.scoring(tokenizer, None)), tokenizer)

    return load


def _by_titles(
    outputs: Outputs, scorer: CandidateScorer, tokenizer: PreTrainedTokenizerBase
) -> Score:
    kept = folder_of(scorer, outputs.scores)

    def score(examples: Dataset) -> FloatArray:
        rows = outputs.ranking_rows("lsr", examples, tokenizer)
        return np.array(score_rows(scorer, rows, PartialState(), keep_in=kept))

    return score


SYSTEMS = (
    System(
        name="random",
        load=_by(lambda outputs: Random.fit(outputs.prepared, outputs.seed)),
    ),
    System(
        name="popularity",
        load=_by(lambda outputs: Popularity.fit(outputs.prepared)),
    ),
    System(
        name="markov",
        load=_by(lambda outputs: Markov.fit(outputs.prepared)),
    ),
    System(
        name="co-occurrence",
        load=_by(lambda outputs: CoOccurrence.fit(outputs.prepared)),
    ),
    System(
        name="teacher",
        needs=("teach",),
        folder="teacher",
        load=_by(lambda outputs: load_teacher(outputs.folder / "teacher", outputs.prepared)),
    ),
    System(name="zero-shot", needs=("backbone",), load=_zero_shot(), reads_prompts=True),
    System("zero-shot/sum", ("backbone",), load=_zero_shot("sum"), on_request=True),
    System("zero-shot/mean", ("backbone",), load=_zero_shot("mean"), on_request=True),
    System(
        "zero-shot/calibrated",
        ("backbone", "calibrate"),
        load=_zero_shot("calibrated"),
        on_request=True,
    ),
    System(
        name="prompt-only",
        needs=("distil",),
        folder="distil",
        load=_prompt_only,
        reads_prompts=True,
    ),
    System(
        name="lora-only",
        needs=("finetune",),
        folder="lora-only",
        load=_tuned("lora-only"),
        reads_prompts=True,
    ),
    *(
        System(f"delrec/{control}", ("finetune",), control, _tuned(control), reads_prompts=True)
        for control in ("random-prompt", "no-ta", "no-rps", "cartridge")
    ),
    System(
        name="delrec",
        needs=("finetune",),
        folder="model",
        load=_tuned("model"),
        reads_prompts=True,
        against=(
            "delrec/cartridge",
            "delrec/no-rps",
            "delrec/no-ta",
            "delrec/random-prompt",
            "lora-only",
            "prompt-only",
            "zero-shot",
            "teacher",
            "co-occurrence",
            "markov",
            "popularity",
        ),
    ),
    System(name="co-occurrence+teacher", parts=("co-occurrence", "teacher")),
    System(name="lora-only+teacher", parts=("lora-only", "teacher")),
    System(
        name="delrec+co-occurrence",
        folder=f"model/{INDEX_FILE}",
        parts=("delrec", "co-occurrence"),
        against=("delrec", "co-occurrence"),
    ),
    System(
        name="delrec+teacher",
        parts=("delrec", "teacher"),
        against=("delrec", "teacher", "lora-only+teacher", "co-occurrence+teacher"),
    ),
)
"""From what knows least to what knows most, fusions after their parts: the order of every report.

A fusion stands there where all its parts do.
"""

NAMES = tuple(system.name for system in SYSTEMS)


def check_names(names: Sequence[str]) -> None:
    """Refuse names that no system has.

    Raises:
        InputError: With the nearest name.
    """
    for name in names:
        if name not in NAMES:
            raise InputError(
                f"`evaluate.systems` names `{name}`; expected names out of "
                f"{', '.join(NAMES)}{suggest(name, NAMES)}"
            )


def chosen_systems(
    names: Sequence[str] | None, finished: frozenset[str], folder: Path
) -> list[System]:
    """Return the systems to rank with.

    Args:
        names: Those that are wanted; None: all that can rank. Those that cannot are named in the
            log.
        finished: Finished stages, and `backbone` if the recipe names one.
        folder: The run's folder.

    Raises:
        InputError: If one that is named cannot rank.
    """
    chosen: list[System] = []
    missing = {}
    for system in SYSTEMS:
        if system.on_request if names is None else system.name not in names:
            continue
        lacking = _lacking(system, finished, folder, [one.name for one in chosen])
        if lacking is None:
            chosen.append(system)
        else:
            missing[system.name] = lacking
    if missing and names is not None:
        name, (reason, cure) = next(iter(missing.items()))
        raise InputError(
            f"`evaluate.systems` names `{name}`, which needs {reason}; {cure}, or take the name out"
        )
    for name, (reason, _) in missing.items():
        logger.info("evaluate: without %s, which needs %s", name, reason)
    return chosen


def _lacking(
    system: System, finished: frozenset[str], folder: Path, chosen: Sequence[str]
) -> tuple[str, str] | None:
    """Return what a system needs and has not got, and the cure, or None."""
    every_stage = "run `delrec run` for all stages"
    for need in system.needs:
        if need == "backbone" and need not in finished:
            return "`backbone.model_name_or_path` in the recipe", "add it"
        if need not in finished:
            return f"a finished stage `{need}` of this recipe in {folder}", every_stage
    if system.folder is not None and not (folder / system.folder).exists():
        if system.folder.endswith(INDEX_FILE):
            place = f"{folder / system.folder}, which stands in for teachers without weights"
            return place, "name `delrec+teacher` instead"
        return f"{folder / system.folder}, which `finetune.controls` makes", every_stage
    for part in system.parts:
        if part not in chosen:
            return f"the system `{part}` as its part", "name that one as well"
    return None
