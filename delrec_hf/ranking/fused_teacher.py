"""The teacher of a finished model at work beside it: it retrieves, and its scores join in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from delrec_hf.errors import InputError
from delrec_hf.modeling.artefact import CONFIG_FILE, TEACHER_FOLDER, ArtefactConfig
from delrec_hf.ranking.weighing import Fusion
from delrec_hf.teachers.loading import load_neural_teacher
from delrec_hf.teachers.teacher import Teacher

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FusedTeacher:
    """A teacher, and the weights under which its scores join the language model's.

    Attributes:
        teacher: The teacher; it takes every user for a new one.
        fusion: The weights of the parts `delrec` and `teacher`.
    """

    teacher: Teacher
    fusion: Fusion

    @classmethod
    def load(
        cls, folder: Path, config: ArtefactConfig, item_ids: Sequence[str], device: str
    ) -> "FusedTeacher | None":
        """Return what an artefact holds, or None if it lacks the teacher or the weights.

        Args:
            folder: The artefact.
            config: Its facts.
            item_ids: Its catalogue.
            device: Where the teacher computes.

        Raises:
            InputError: If the teacher is of another catalogue, or one of the two cannot be read.
        """
        if config.fusion is None or not (folder / TEACHER_FOLDER).is_dir():
            return None
        try:
            fusion = Fusion.from_dict(config.fusion)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{_unreadable(folder)}: {error!r}") from error
        if set(fusion.parts) != {"delrec", "teacher"}:
            raise InputError(f"{_unreadable(folder)}: it weighs {', '.join(fusion.parts)}")
        return cls(load_neural_teacher(folder / TEACHER_FOLDER, item_ids, device=device), fusion)

    def score(self, history: Sequence[int]) -> FloatArray:
        """Return the teacher's score of every item as the next one of a history, `(items,)`."""
        items = np.array(history, dtype=np.int64)
        found = self.teacher.score([""], np.array([len(items)]), [items])
        return found[0].astype(np.float64)

    def fuse(self, language_model: FloatArray, teacher: FloatArray) -> FloatArray:
        """Return the weighted sum of both scores of some candidates; differences are log-odds."""
        return self.fusion.logits({"delrec": language_model, "teacher": teacher})


def _unreadable(folder: Path) -> str:
    return (
        f"`fusion` in {folder / CONFIG_FILE} is not the weights of delrec and teacher, which "
        "`delrec evaluate` writes there"
    )


def best_unseen(scores: FloatArray, seen: Sequence[int], count: int) -> list[int]:
    """Return the unseen items with the highest scores, in an order that does not give them away.

    Args:
        scores: `(items,)`.
        seen: Items that are left out.
        count: How many, if there are as many.

    >>> sorted(best_unseen(np.array([0.1, 0.4, 0.3, 0.2]), [1], 2))
    [2, 3]
    """
    unseen = np.setdiff1d(np.arange(len(scores)), seen)
    best = unseen[np.argsort(-scores[unseen], kind="stable")[:count]]
    # In training the order of the candidates told nothing about them.
    shuffled: list[int] = np.random.default_rng(0).permutation(best).tolist()
    return shuffled
