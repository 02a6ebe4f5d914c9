"""How often a teacher's first choice is the target, where it has seen the user and where not."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from accelerate import PartialState
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.files import write_json
from delrec_hf.logging import get_logger
from delrec_hf.teachers.config import TeacherConfig
from delrec_hf.teachers.folds import IN_SAMPLE
from delrec_hf.teachers.histories import column
from delrec_hf.teachers.loading import read_record
from delrec_hf.teachers.predictions import score_candidates
from delrec_hf.teachers.teacher import Teacher

logger = get_logger(__name__)

MAX_EXAMPLES = 5000
"""Examples that are looked at: a share of them is known to .007."""


def record_hit_rates(
    teacher: Teacher,
    label_teacher: Teacher,
    prepared: PreparedData,
    config: TeacherConfig,
    folder: Path,
) -> None:
    """Log HR@1 of the targets among the candidates, and add it to `teacher.json`.

    Of training examples by the teacher that labels them, and by the teacher itself if that is
    another one; of validation examples by the teacher. The first process does it, the others wait.

    Args:
        teacher: The one that has learned from all users.
        label_teacher: The one that labels training positions; it may be the same.
        prepared: The data.
        config: Its seed draws the examples where there are many.
        folder: The run's `teacher` folder, with labels recorded.
    """
    state = PartialState()
    if state.is_main_process:
        record = read_record(folder)
        asked = {(record["labels"], "train"): label_teacher, ("validation",) * 2: teacher}
        if label_teacher is not teacher:
            asked = {(IN_SAMPLE, "train"): teacher, **asked}
        record["hr@1"], record["examples"] = {}, {}
        for (name, part), one in asked.items():
            examples = some_examples(prepared.examples[part], config.seed)
            if len(examples):
                scores = score_candidates(one, prepared, examples, disable_tqdm=config.disable_tqdm)
                record["hr@1"][name] = round(hr_at_1(scores, examples), 4)
                record["examples"][part] = len(examples)
        write_json(folder / "teacher.json", record)
        logger.info("HR@1 of the target among the candidates: %s", _in_words(record))
    state.wait_for_everyone()


def some_examples(examples: Dataset, seed: int) -> Dataset:
    """Return all examples, or `MAX_EXAMPLES` drawn by seed, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(examples))[:MAX_EXAMPLES]
    return examples.select(np.sort(chosen))


def hr_at_1(scores: npt.NDArray[np.float64], examples: Dataset) -> float:
    """Return how often the target scores highest; t candidates that tie there share it.

    Args:
        scores: `(examples, candidates)`; what is not a number counts as the lowest.
        examples: With `candidates` and `target`, one example or more.
    """
    scores = np.fmax(scores, -np.inf)
    is_target = np.array(examples["candidates"][:]) == column(examples, "target")[:, None]
    first = scores == scores.max(axis=1, keepdims=True)
    return float(((first & is_target).sum(axis=1) / first.sum(axis=1)).mean())


def _in_words(record: dict[str, dict[str, float]]) -> str:
    def told(name: str) -> str:
        return f"{record['hr@1'][name]:.4f} {name}"

    trained = " and ".join(told(name) for name in record["hr@1"] if name != "validation")
    words = [f"{trained} ({record['examples']['train']} training examples)"] if trained else []
    if "validation" in record["hr@1"]:
        words.append(f"{told('validation')} ({record['examples']['validation']} examples)")
    return ", ".join(words) or "no examples"
