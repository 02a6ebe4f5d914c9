"""The teacher of a finished model at work beside it: in the prompts, and in the scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from delrec_hf.errors import InputError
from delrec_hf.modeling.artefact import CONFIG_FILE, INDEX_FILE, TEACHER_FOLDER, ArtefactConfig
from delrec_hf.ranking.weighing import Fusion
from delrec_hf.teachers.index import load_index
from delrec_hf.teachers.loading import load_neural_teacher
from delrec_hf.teachers.teacher import Teacher

FloatArray = npt.NDArray[np.float64]
TeacherName = Literal["teacher", "co-occurrence"]


@dataclass(frozen=True)
class FusedTeacher:
    """A teacher, and the weights under which its scores join the language model's.

    Where the teacher of training cannot go along, as lists from elsewhere cannot, co-occurrence
    stands in for it in the scores.

    Attributes:
        teacher: The teacher; it takes every user for a new one.
        fusion: The weights of the parts `delrec` and `name`; None: it speaks in prompts alone.
        name: What it is.
    """

    teacher: Teacher
    fusion: Fusion | None
    name: TeacherName = "teacher"

    @classmethod
    def load(
        cls, folder: Path, config: ArtefactConfig, item_ids: Sequence[str], device: str
    ) -> "FusedTeacher | None":
        """Return what an artefact holds, or None if it has no teacher, or none that is used.

        Args:
            folder: The artefact.
            config: Its facts.
            item_ids: Its catalogue.
            device: Where the teacher computes.

        Raises:
            InputError: If the teacher is of another catalogue, or one of the two cannot be read, or
                the prompts show what no teacher is there to say.
        """
        in_prompts = config.prompt_teacher != "none"
        there = (folder / TEACHER_FOLDER).is_dir()
        if in_prompts and not there:
            raise InputError(
                f"the prompts of {folder} show what its teacher says, and it holds none (type "
                f"`{config.teacher.get('type')}`; it must have weights); train with a teacher of "
                "another type, or with `instructions.teacher: none`"
            )
        if config.fusion is None and not in_prompts:
            return None
        if there:
            fusion = None if config.fusion is None else _fusion(folder, config.fusion, "teacher")
            teacher = load_neural_teacher(folder / TEACHER_FOLDER, item_ids, device=device)
            return cls(teacher, fusion)
        if config.fusion is not None and (folder / INDEX_FILE).is_file():
            fusion = _fusion(folder, config.fusion, "co-occurrence")
            return cls(load_index(folder / INDEX_FILE, item_ids), fusion, "co-occurrence")
        return None

    def score(self, histories: Sequence[Sequence[int]]) -> list[FloatArray]:
        """Return the teacher's score of every item as the next one of each history.

        Args:
            histories: Rows of items, oldest first.

        Returns:
            `(items,)` for each history.
        """
        items = [np.array(history, dtype=np.int64) for history in histories]
        found = self.teacher.score([""] * len(items), np.array([*map(len, items)]), items)
        return list(found.astype(np.float64))

    def fuse(self, language_model: FloatArray, teacher: FloatArray) -> FloatArray:
        """Return the weighted sum of both scores of some candidates; differences are log-odds."""
        assert self.fusion is not None
        return self.fusion.logits({"delrec": language_model, self.name: teacher})


def _fusion(folder: Path, content: dict[str, Any], name: TeacherName) -> Fusion:
    told = (
        f"`fusion` in {folder / CONFIG_FILE} is not the weights of delrec and {name}, which "
        "`delrec evaluate` writes there"
    )
    try:
        fusion = Fusion.from_dict(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{told}: {error!r}") from error
    if set(fusion.parts) != {"delrec", name}:
        raise InputError(f"{told}: it weighs {', '.join(fusion.parts)}")
    return fusion


def top_unseen(scores: FloatArray, seen: Sequence[int], count: int) -> list[int]:
    """Return the unseen items with the highest scores, best first.

    >>> top_unseen(np.array([0.1, 0.4, 0.3, 0.2]), [1], 2)
    [2, 3]
    """
    unseen = np.setdiff1d(np.arange(len(scores)), seen)
    best: list[int] = unseen[np.argsort(-scores[unseen], kind="stable")[:count]].tolist()
    return best


def best_unseen(scores: FloatArray, seen: Sequence[int], count: int) -> list[int]:
    """Return the unseen items with the highest scores, in an order that does not give them away.

    Args:
        scores: `(items,)`.
        seen: Items that are left out.
        count: How many, if there are as many.

    >>> sorted(best_unseen(np.array([0.1, 0.4, 0.3, 0.2]), [1], 2))
    [2, 3]
    """
    best = top_unseen(scores, seen, count)
    # In training the order of the candidates told nothing about them.
    shuffled: list[int] = np.random.default_rng(0).permutation(best).tolist()
    return shuffled
