"""What every teacher can do, and how a neural one does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from delrec_hf.teachers.histories import IntArray, pad_right
from delrec_hf.teachers.models.sequential import SequentialModel

FloatArray = npt.NDArray[np.float32 | np.float64]


class Teacher(Protocol):
    """Whatever can score items after a history."""

    def score(
        self, user_ids: Sequence[str], positions: IntArray, histories: Sequence[IntArray]
    ) -> FloatArray:
        """Score every item as the next one of each history.

        Args:
            user_ids: `(batch,)`.
            positions: `(batch,)` index in the user's sequence of the item to come.
            histories: The item rows before that position, oldest first, all of them.

        Returns:
            `(batch, items)`, higher is better, -inf for an item that is never recommended. A row
            depends on its own user, position and history alone.
        """
        ...


@dataclass(frozen=True)
class NeuralTeacher:
    """A SASRec, GRU4Rec or Caser at work.

    Attributes:
        model: The model, on the device where it shall compute.
        users: The user ids in the order of the model's user rows; empty: every user is a new one.
    """

    model: SequentialModel
    users: pd.Index

    def score(
        self,
        user_ids: Sequence[str],
        positions: IntArray,  # noqa: ARG002 - other teachers look their lists up by position
        histories: Sequence[IntArray],
    ) -> FloatArray:
        """Score every item as the next one of each history; see `Teacher.score`."""
        model = self.model
        ids = torch.from_numpy(pad_right(histories, model.config.max_length))
        rows = torch.from_numpy(self.users.get_indexer(pd.Index(user_ids)) + 1)
        was_training = model.training
        model.eval()
        with torch.inference_mode():
            found = model(input_ids=ids.to(model.device), user_ids=rows.to(model.device))
            scores: FloatArray = found.scores.float().cpu().numpy()
        model.train(was_training)
        return scores
