"""The teacher's whole opinion of some candidates, as chances: what soft labels are."""

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from scipy.special import softmax

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.teachers.histories import column
from delrec_hf.teachers.predictions import score_batches
from delrec_hf.teachers.teacher import Teacher

FloatArray = npt.NDArray[np.float64]


def teacher_chances(
    teacher: Teacher,
    prepared: PreparedData,
    rows: Dataset,
    temperature: float,
    *,
    disable_tqdm: bool = False,
) -> list[FloatArray]:
    r"""Return what the teacher thinks of each row's candidates: softmax of its scores over them.

    Args:
        teacher: Any teacher that scores every item.
        prepared: The data it was trained on.
        rows: Instruction rows with `user_id`, `position` and `candidates` (item ids).
        temperature: What scores are divided by.
        disable_tqdm: Show no progress bar.

    Returns:
        `(candidates,)` chances per row that sum to 1.

    Raises:
        InputError: If the teacher scores none of a row's candidates.
    """
    place = {item: row for row, item in enumerate(column(prepared.items, "item_id").tolist())}
    offered = [np.array([place[one] for one in ids]) for ids in rows["candidates"][:]]
    chances: list[FloatArray] = []
    for batch in score_batches(teacher, prepared, rows, "teacher's labels", disable_tqdm):
        for scores, items in zip(batch.scores, offered[batch.rows], strict=True):
            scored = scores[items].astype(np.float64) / temperature
            if not np.isfinite(scored.max()):
                raise InputError(
                    "the teacher scores none of a row's candidates, so it has no distribution over "
                    "them; set `distil.rps_labels: first`"
                )
            chances.append(softmax(np.nan_to_num(scored, nan=-np.inf, neginf=-np.inf)))
    return chances
