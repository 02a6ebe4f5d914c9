"""The candidates that are ranked: drawn in one of several ways, or read from a published file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from delrec_hf.data.candidates import with_candidates
from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.evaluation.systems import System
from delrec_hf.files import write_bytes
from delrec_hf.logging import get_logger
from delrec_hf.teachers.baselines import Popularity, Random
from delrec_hf.teachers.histories import Histories, IntArray, column
from delrec_hf.teachers.predictions import score_batches, top_items
from delrec_hf.teachers.teacher import FloatArray, Teacher

_SCHEMA = pa.schema(
    {
        "part": pa.string(),
        "user_id": pa.string(),
        "position": pa.int32(),
        "target": pa.string(),
        "candidates": pa.list_(pa.string()),
    }
)

logger = get_logger(__name__)


@dataclass(frozen=True)
class Drawing:
    """A way to draw candidates, the same for validation and test.

    Attributes:
        kind: One of `evaluator.DRAWN`.
        count: How many each example gets, its target included.
        teacher: Whose best items stand beside the target, for that kind.
    """

    kind: str
    count: int
    teacher: Teacher | None = None

    def draw(self, prepared: PreparedData, examples: Dataset, seed: int) -> Dataset:
        """Return examples with new candidates, none of which but the target the user ever met.

        Args:
            prepared: The data.
            examples: Rows of one of the parts.
            seed: Decides the draws, and where the target stands.

        Raises:
            InputError: If there are too few such items for somebody.
        """
        info = prepared.info
        if (self.kind, self.count, seed) == ("uniform", info["num_candidates"], info["seed"]):
            return examples  # as they are stored
        if self.kind == "teacher" and self.teacher is not None:
            return with_candidates(examples, self._hardest(prepared, examples, seed))
        weights = Popularity.fit(prepared).counts if self.kind == "popularity" else None
        return prepared.with_other_candidates(examples, seed, self.count, weights)

    def _hardest(self, prepared: PreparedData, examples: Dataset, seed: int) -> IntArray:
        """Return each target and the unmet items that the teacher likes best, in random order."""
        sequences, mixed = Histories.of(prepared), Random(len(prepared.items), seed)
        targets = column(examples, "target").astype(np.int64)
        chosen = np.empty((len(examples), self.count), dtype=np.int64)
        assert self.teacher is not None
        for batch in score_batches(self.teacher, prepared, examples, "hard negatives", True):
            users = batch.users.to_pylist()
            scores = np.fmax(batch.scores, -np.inf)  # a copy
            for row, user in enumerate(sequences.users.get_indexer(pd.Index(users))):
                met = sequences.items[sequences.bounds[user] : sequences.bounds[user + 1]]
                scores[row, met] = -np.inf
            best = top_items(scores, self.count - 1)
            self._check_recommended(np.take_along_axis(scores, best, axis=1))
            offered = np.concatenate([targets[batch.rows, None], best], axis=1)
            order = np.take_along_axis(mixed.score(users, batch.positions, []), offered, axis=1)
            chosen[batch.rows] = np.take_along_axis(offered, order.argsort(axis=1), axis=1)
        return chosen

    def _check_recommended(self, best: FloatArray) -> None:
        fewest = int((best > -np.inf).sum(axis=1).min())
        if fewest < self.count - 1:
            raise InputError(
                f"{self.count} candidates need {self.count - 1} items that a user never met, but "
                f"the teacher recommends only {fewest} of them to some users; set "
                f"evaluate.num_candidates to {fewest + 1} or less"
            )


def write_candidates(path: Path, prepared: PreparedData, parts: dict[str, Dataset]) -> str:
    """Write the candidates of examples, by the ids that the data came with; return the sha256.

    Args:
        path: A parquet file: `part`, `user_id`, `position`, `target` and `candidates`, a row each.
        prepared: The data.
        parts: Part to its examples.
    """
    ids = np.array(prepared.items["item_id"][:], dtype=object)
    rows = [
        {
            "part": part,
            "user_id": row["user_id"],
            "position": row["position"],
            "target": ids[row["target"]],
            "candidates": ids[row["candidates"]].tolist(),
        }
        for part, examples in parts.items()
        for row in examples
    ]
    written = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), written)
    content = written.getvalue().to_pybytes()
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read_candidates(path: Path, prepared: PreparedData) -> dict[str, Dataset]:
    """Return the examples that a file of candidates is of, with its candidates.

    Args:
        path: What `write_candidates` wrote, here or elsewhere.
        prepared: The data, prepared as where the file comes from.

    Returns:
        The examples of `validation` and of `test` that stand in the file, in the data's order.

    Raises:
        InputError: If it is no such file, or does not fit the data.
    """
    try:
        table = pq.read_table(path, schema=_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"`evaluate.candidates` {path} is no file of candidates ({reason}); give one that "
            "`delrec evaluate` wrote into the folder `candidates` of a run"
        ) from error
    published = table.to_pandas()
    found = {}
    for part in ("validation", "test"):
        mine = published[published["part"] == part]
        found[part] = _matched(path, prepared, prepared.examples[part], mine)
    return found


def _matched(path: Path, prepared: PreparedData, examples: Dataset, rows: pd.DataFrame) -> Dataset:
    """Return the examples that rows of a file are of, with the rows' candidates."""
    keys = pd.MultiIndex.from_arrays([examples["user_id"][:], examples["position"][:]])
    places = keys.get_indexer(pd.MultiIndex.from_frame(rows[["user_id", "position"]]))
    items = pd.Index(prepared.items["item_id"][:])
    targets = items.get_indexer(pd.Index(rows["target"]))
    own = np.array(examples["target"][:], dtype=np.int64)
    wrong = (places < 0) | (own[places] != targets)
    if wrong.any():
        one = rows.iloc[int(wrong.argmax())]
        raise InputError(
            f"{path}: {int(wrong.sum())} of {len(rows)} targets are not those of this data, the "
            f"first `{one['target']}` of user `{one['user_id']}`; prepare the data with the same "
            "filters and split as where the file comes from"
        )
    lengths = rows["candidates"].map(len)
    if lengths.nunique() > 1 or len(set(places)) < len(places):
        raise InputError(
            f"{path}: lists go from {lengths.min()} to {lengths.max()} candidates for "
            f"{len(set(places))} targets in {len(rows)} rows; expected one length, and one row for "
            "each target"
        )
    if not len(rows):
        return examples.select([])
    offered = items.get_indexer(pd.Index(np.concatenate(rows["candidates"].to_numpy())))
    offered = offered.reshape(len(rows), -1)
    _check_lists(path, prepared, rows, offered, targets)
    order = places.argsort()
    return with_candidates(examples.select(places[order]), offered[order])


def _check_lists(
    path: Path,
    prepared: PreparedData,
    rows: pd.DataFrame,
    offered: IntArray,
    targets: IntArray,
) -> None:
    """Refuse items that are unknown, stand there twice or were seen before, and lost targets."""
    before = Histories.of(prepared).before(
        rows["user_id"].tolist(), rows["position"].to_numpy(np.int64)
    )
    for row, (listed, target, seen) in enumerate(zip(offered, targets, before, strict=True)):
        others = listed[listed != target]
        if (
            (listed < 0).any()
            or len(set(listed.tolist())) < len(listed)
            or len(others) != len(listed) - 1
            or np.isin(others, seen).any()
        ):
            raise InputError(
                f"{path}: the candidates of user `{rows['user_id'].iloc[row]}` hold an item that "
                "the data have not, one twice, one from the history, or not the target; expected "
                "the target once, and other items that the user has not met before"
            )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file of candidates."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_as_many(systems: list[System], examples: Dataset, shown: int) -> None:
    """Refuse to list more candidates in a prompt than training did.

    What a language model answers to a longer list than it has seen tells of the length, not of how
    it ranks, and that is how sampled candidates of several sizes would be compared.

    Args:
        systems: What ranks.
        examples: What is ranked.
        shown: How many candidates a prompt lists in training.

    Raises:
        InputError: If there are more, and one of the systems lists them.
    """
    number = len(examples[0]["candidates"])
    for system in systems:
        if number > shown and set(system.needs) - {"teach"}:
            raise InputError(
                f"prompts of `{system.name}` list {shown} candidates in training, and "
                f"`evaluate.candidates` has {number}; set `instructions.candidates: unlisted`, "
                "name systems without a language model in `evaluate.systems`, or take no more "
                "candidates than data.num_candidates"
            )
