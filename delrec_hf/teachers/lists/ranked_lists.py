"""Ranked lists from any other recommender as a teacher (docs/foreign-teachers.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.histories import Histories, IntArray, column
from delrec_hf.teachers.lists.leaks import SAMPLE, Finding, look_ahead
from delrec_hf.teachers.lists.list_table import read_entries

FloatArray = npt.NDArray[np.float64]

logger = get_logger(__name__)

_FILE = "lists.parquet"
_SEED = 42
_LEAK_CURE = (
    "look for a target that was added to the lists, a teacher trained on validation or test items, "
    "or positions that are off by one; if the teacher is that good, set teacher.allow_leaks: true"
)


@dataclass(frozen=True)
class RankedLists:
    """Scores an item as the list of its user and position does, and what is not in it -inf.

    Attributes:
        sequences: The users' sequences.
        num_items: Items in the catalogue.
        targets: `(lists,)` where each list's item to come stands in `sequences.items`; none twice.
        bounds: `(lists + 1,)`; list n is `items[bounds[n]:bounds[n + 1]]`, never empty.
        items: `(entries,)` item rows, list after list, best first.
        scores: `(entries,)`, higher is better.
    """

    sequences: Histories
    num_items: int
    targets: pd.Index
    bounds: IntArray
    items: IntArray
    scores: FloatArray

    @classmethod
    def read(
        cls,
        path: Path,
        prepared: PreparedData,
        *,
        allow_leaks: bool = False,
        out_of_fold: bool = False,
    ) -> Self:
        """Read and check lists of the columns `user_id, position, item_id, rank[, score]`.

        Ids are compared as texts. `position` is the place in the user's sequence, from 0 on, of the
        item to come. A smaller rank is better. Without `score`, an item scores minus its rank.
        Items before the position are left out.

        Args:
            path: A parquet, csv, tsv or json lines file.
            prepared: The data that the lists are for.
            allow_leaks: Warn of a leak in place of the error.
            out_of_fold: Whoever made the training lists had not seen their user: that they know
                their target is a leak then.

        Raises:
            InputError: If the file cannot be read, a row makes no sense, an example of validation
                or test has no list, no training example has one, or the lists know what is held
                out.
        """
        path, sequences = Path(path), Histories.of(prepared)
        entries = read_entries(path, prepared, sequences)
        targets, lengths = np.unique(entries.targets, return_counts=True)
        lists = cls(
            sequences=sequences,
            num_items=len(prepared.items),
            targets=pd.Index(targets),
            bounds=_bounds(lengths),
            items=entries.items,
            scores=entries.scores,
        )
        for part in ("validation", "test", "train"):
            _refuse_gaps(lists, prepared, part, path)
        _refuse_leaks(lists, prepared, path, allow_leaks, out_of_fold)
        logger.info("read %d lists of %.1f items from %s", len(targets), lengths.mean(), path)
        return lists

    @classmethod
    def load(cls, folder: Path, prepared: PreparedData) -> Self:
        """Load what `save` wrote.

        Raises:
            InputError: If there are no lists in the folder, or lists for other data.
        """
        path = Path(folder) / _FILE
        if not path.is_file():
            raise InputError(f"{folder} holds no {_FILE}; make it with `delrec teach`")
        found = pq.read_table(path)
        sequences, num_items = Histories.of(prepared), len(prepared.items)
        users, positions = found["user_id"].to_pylist(), found["position"].to_numpy()
        targets = _targets(sequences, users, positions)
        lists, scores = found["items"].combine_chunks(), found["scores"].combine_chunks()
        items = lists.flatten().to_numpy().astype(np.int64)
        if (targets < 0).any() or items.max(initial=0) >= num_items:
            raise InputError(
                f"{path} was made for other users or items than these; make it again with "
                "`delrec teach`"
            )
        bounds = _bounds(lists.value_lengths().to_numpy())
        values = scores.flatten().to_numpy()
        return cls(sequences, num_items, pd.Index(targets), bounds, items, values)

    def save(self, folder: Path) -> None:
        """Write the lists to `lists.parquet` in a folder that is there."""
        users, positions = _users_and_positions(self.sequences, self.targets.to_numpy())
        bounds = pa.array(self.bounds, pa.int32())
        columns = {
            "user_id": pa.array(users, pa.string()),
            "position": pa.array(positions, pa.int32()),
            "items": pa.ListArray.from_arrays(bounds, pa.array(self.items, pa.int32())),
            "scores": pa.ListArray.from_arrays(bounds, pa.array(self.scores, pa.float64())),
        }
        pq.write_table(pa.table(columns), Path(folder) / _FILE)

    def score(
        self,
        user_ids: Sequence[str],
        positions: IntArray,
        histories: Sequence[IntArray],  # noqa: ARG002 - every teacher is asked in the same way
    ) -> FloatArray:
        """Score every item as the next one of each history; see `Teacher.score`."""
        wanted = _targets(self.sequences, user_ids, positions)
        found = self.targets.get_indexer(pd.Index(wanted))
        known = np.flatnonzero(found >= 0)
        rows, entries, _ = self._entries(found[known])
        scores = np.full((len(found), self.num_items), -np.inf)
        scores[known[rows], self.items[entries]] = self.scores[entries]
        return scores

    def places(self, lists: IntArray, items: IntArray) -> IntArray:
        """Return each item's place in its list from 0 on, -1 where it is not there."""
        rows, entries, within = self._entries(lists)
        places = np.full(len(lists), -1)
        hits = self.items[entries] == items[rows]
        places[rows[hits]] = within[hits]
        return places

    def _entries(self, lists: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return all entries of some lists: which of the lists, which entry, which place."""
        lengths = np.diff(self.bounds)[lists]
        rows = np.repeat(np.arange(len(lists)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, self.bounds[lists][rows] + within, within


def _bounds(lengths: npt.NDArray[np.integer]) -> IntArray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _targets(
    sequences: Histories, user_ids: Sequence[str], positions: npt.NDArray[np.integer]
) -> IntArray:
    """Return where the items to come stand in the sequences end to end, -1 if nowhere."""
    users = sequences.users.get_indexer(pd.Index(user_ids, dtype=object))
    places = np.asarray(positions, dtype=np.int64)
    inside = (users >= 0) & (places >= 0) & (places < np.diff(sequences.bounds)[users])
    return np.where(inside, sequences.bounds[users] + places, -1)


def _users_and_positions(sequences: Histories, targets: IntArray) -> tuple[pd.Index, IntArray]:
    owners = np.searchsorted(sequences.bounds, targets, side="right") - 1
    return sequences.users[owners], targets - sequences.bounds[owners]


def _lists_of(lists: RankedLists, prepared: PreparedData, part: str) -> tuple[IntArray, IntArray]:
    """Return where the targets of a part's examples stand, and which list each has or -1."""
    examples = prepared.examples[part]
    users = column(examples, "user_id").tolist()
    targets = _targets(lists.sequences, users, column(examples, "position").astype(np.int64))
    return targets, lists.targets.get_indexer(pd.Index(targets))


def _refuse_gaps(lists: RankedLists, prepared: PreparedData, part: str, path: Path) -> None:
    """Refuse validation and test examples without a list; warn of training examples."""
    targets, found = _lists_of(lists, prepared, part)
    missing = np.flatnonzero(found < 0)
    if not len(missing):
        return
    if part == "train" and len(missing) < len(found):
        logger.warning(
            "%s has no list for %d of %d training examples (%.1f%%); RPS goes without them",
            path,
            len(missing),
            len(found),
            100 * len(missing) / len(found),
        )
        return
    users, positions = _users_and_positions(lists.sequences, targets[missing[:1]])
    raise InputError(
        f"{path} has no list of unseen items for {len(missing)} of {len(found)} {part} examples, "
        f"first user `{users[0]}` position {positions[0]}; score every row of data/examples"
    )


def _refuse_leaks(
    lists: RankedLists, prepared: PreparedData, path: Path, allowed: bool, out_of_fold: bool
) -> None:
    """Refuse lists that know held-out items; warn of those that know training targets.

    Lists that are said to be out of fold must not know these either.
    """
    sequences, teacher = lists.sequences, CoOccurrence.fit(prepared)
    generator = np.random.default_rng(_SEED)

    def look(found: IntArray, targets: IntArray, ahead: IntArray) -> Finding:
        places = lists.places(found, sequences.items[ahead])
        lengths = np.diff(lists.bounds)[found]
        return look_ahead(teacher, sequences, places, lengths, targets, ahead)

    for part in ("validation", "test", "train"):
        targets, found = _lists_of(lists, prepared, part)
        rows = np.sort(generator.permutation(np.flatnonzero(found >= 0))[:SAMPLE])
        targets, found = targets[rows], found[rows]
        finding = look(found, targets, targets)
        text = f"{path} knows the item to come in the lists of {part} examples: {finding}"
        if part != "train" or out_of_fold:
            _refuse(finding, text, allowed)
        elif finding.is_leak:
            logger.warning("%s; a teacher remembers what it was trained on", text)
    owners = np.searchsorted(sequences.bounds, targets, side="right") - 1
    begin = sequences.bounds[owners] + sequences.train_ends[owners]
    end = sequences.bounds[owners + 1]
    rows = np.flatnonzero(begin < end)  # a split by time may hold nothing of a user out
    if len(rows):
        later = generator.integers(begin[rows], end[rows])
        finding = look(found[rows], targets[rows], later)
        text = f"{path} knows a held-out item in the lists of train examples: {finding}"
        _refuse(finding, text, allowed)


def _refuse(finding: Finding, text: str, allowed: bool) -> None:
    if finding.is_leak and not allowed:
        raise InputError(f"{text}; {_LEAK_CURE}")
    if finding.is_leak:
        logger.warning("%s; allowed by teacher.allow_leaks", text)
