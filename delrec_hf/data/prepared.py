"""Everything that the later stages read: catalogue, sequences, examples with candidates."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Features, List, Value, concatenate_datasets

from delrec_hf.data.account import LEFT_OUT
from delrec_hf.data.candidates import draw_candidates, with_candidates
from delrec_hf.data.config import DataConfig
from delrec_hf.data.interactions import Source, read_interactions
from delrec_hf.data.sequences import Sequences, Split, build_sequences, split_sequences
from delrec_hf.data.sources import published_terms
from delrec_hf.data.titles import readable_titles
from delrec_hf.data.toy_world import TOY_WORLDS, toy_world
from delrec_hf.errors import InputError
from delrec_hf.files import read_json, replace_folder, write_json
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SEQUENCE_FEATURES = Features(
    {
        "user_id": Value("string"),
        "items": List(Value("int32")),
        "moments": List(Value("int32")),
        "train_end": Value("int32"),
    }
)
_EXAMPLE_FEATURES = Features(
    {
        "user_id": Value("string"),
        "position": Value("int32"),
        "history": List(Value("int32")),
        "target": Value("int32"),
        "candidates": List(Value("int32")),
    }
)


@dataclass(frozen=True)
class PreparedData:
    """A prepared dataset. An item is its row in `items`, 0 to n - 1, everywhere else.

    Attributes:
        items: `item_id` and `title` (string; no two titles the same), then the source's metadata.
        sequences: `user_id` (string), `items` (list of int32, oldest first, none twice), `moments`
            (list of int32: which of the user's different times each item was met at, from 0 on),
            `train_end` (int32: the first so many items are training items).
        examples: train, validation and test with `user_id`, `position` (int32: place of the target
            in the user's sequence), `history` (list of int32: the items before it, the last
            `history_length` of them), `target` (int32), `candidates` (list of int32: the target
            once, others that the user never met).
        info: Facts: dataset, terms, domain, split, history_length, num_candidates, seed; counts of
            users, items, interactions, examples and of what was left out; lines on what was read
            from where (`reading`); `toy_world`, the name of the made-up world that the data come
            from, or None.
    """

    items: Dataset
    sequences: Dataset
    examples: DatasetDict
    info: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> "PreparedData":
        """Load what `prepare` wrote.

        Raises:
            InputError: If there is nothing at `folder`, or what an earlier version wrote.
        """
        folder = Path(folder)
        if not (folder / "info.json").is_file():
            raise InputError(f"{folder} holds no prepared data; run `delrec prepare` first")
        sequences = Dataset.load_from_disk(str(folder / "sequences"))
        missing = set(_SEQUENCE_FEATURES) - set(sequences.column_names)
        if missing:
            raise InputError(
                f"{folder}/sequences has no column {', '.join(sorted(missing))}: an earlier "
                "version prepared this data; remove the folder and run `delrec prepare` again"
            )
        return cls(
            items=Dataset.load_from_disk(str(folder / "items")),
            sequences=sequences,
            examples=DatasetDict.load_from_disk(str(folder / "examples")),
            info=read_json(folder / "info.json"),
        )

    def with_other_candidates(
        self,
        examples: Dataset,
        seed: int,
        num_candidates: int | None = None,
        weights: FloatArray | None = None,
    ) -> Dataset:
        """Return examples with other candidates than the stored ones.

        Args:
            examples: Rows of one of the parts.
            seed: Decides every draw; that of the data draws the stored ones again.
            num_candidates: How many each example gets, its target included; default: as stored.
            weights: `(items,)` what the others are drawn by; default: all alike, as stored.

        Raises:
            InputError: If too few items can be drawn for somebody.
        """
        number = num_candidates or self.info["num_candidates"]
        found = draw_candidates(
            *self._places(examples),
            len(self.items),
            number,
            seed,
            weights=weights,
            setting="evaluate.num_candidates",
        )
        return with_candidates(examples, found)

    def chances(self, examples: Dataset) -> FloatArray | None:
        """Return how likely each candidate is the target, where a toy world's rule tells.

        Args:
            examples: Rows of one of the parts; the chances are exact for a user's last item (see
                `ToyWorld.chances`).

        Returns:
            `(rows, candidates)` float64, each row summing to 1; None where the truth is not known.
        """
        name = self.info.get("toy_world")
        if name is None:
            return None
        sequences, users, positions = self._places(examples)
        ruled = positions >= 2  # a user's first two items are drawn by no rule: all are as likely
        targets = (sequences.starts[users] + positions)[ruled]
        last_two = np.stack([sequences.items[targets - 2], sequences.items[targets - 1]], axis=1)
        candidates = np.array(examples["candidates"][:], dtype=np.int64)
        chances = np.full(candidates.shape, 1 / candidates.shape[1])
        chances[ruled] = toy_world(name, num_users=0).chances(last_two, candidates[ruled])
        return chances

    def _places(self, examples: Dataset) -> tuple[Sequences, IntArray, IntArray]:
        """Return all sequences, and each example's user (a row of them) and position."""
        sequences = self.flat_sequences()
        asked = examples.with_format("arrow")[:]
        users = pc.index_in(asked["user_id"], value_set=pa.array(sequences.user_ids, pa.string()))
        return (
            sequences,
            users.to_numpy().astype(np.int64),
            asked["position"].to_numpy().astype(np.int64),
        )

    def training_examples(self, number: int, seed: int) -> Dataset:
        """Return examples at training positions drawn by seed, with candidates of their own.

        Every item of a user's training part but the first is a position. All come once, in a new
        order, before one comes again, and then with other candidates.

        Args:
            number: How many examples.
            seed: Decides their order and their candidates.

        Returns:
            Rows as those of `examples["train"]`.
        """
        sequences = self.flat_sequences()
        ends = np.array(self.sequences["train_end"][:], dtype=np.int64)
        sizes = np.maximum(ends - 1, 0)
        users = np.repeat(np.arange(len(sizes)), sizes)
        positions = np.arange(1, sizes.sum() + 1) - np.repeat(sizes.cumsum() - sizes, sizes)
        if not len(users):
            raise InputError("no user has two training items; there is no position to learn from")
        parts = []
        for turn in range(-(-number // len(users))):
            order = np.random.default_rng([seed, turn]).permutation(len(users))
            order = order[: number - turn * len(users)]
            parts.append(
                _examples(
                    sequences,
                    users[order],
                    positions[order],
                    len(self.items),
                    history_length=self.info["history_length"],
                    num_candidates=self.info["num_candidates"],
                    seed=int(np.random.default_rng([seed, turn, 1]).integers(2**31)),
                )
            )
        return concatenate_datasets(parts)

    def training_windows(self, user_ids: Collection[str]) -> Dataset:
        """Return examples whose histories and targets together show each training item once.

        A user's training items are cut from the end into windows of `history_length` items and the
        target behind them; what is left at the start makes a shorter one.

        Args:
            user_ids: Whose items.

        Returns:
            Rows as those of `examples["train"]`.
        """
        wanted = set(user_ids)
        width = self.info["history_length"] + 1
        ends = self.sequences["train_end"][:]
        places = [
            (row, position)
            for row, (user, end) in enumerate(zip(self.sequences["user_id"][:], ends, strict=True))
            if user in wanted
            for position in range(end - 1, 0, -width)
        ]
        users, positions = np.array(places, dtype=np.int64).reshape(-1, 2).T
        return _examples(
            self.flat_sequences(),
            users,
            positions,
            len(self.items),
            history_length=self.info["history_length"],
            num_candidates=self.info["num_candidates"],
            seed=self.info["seed"],
        )

    def flat_sequences(self) -> Sequences:
        """Return all sequences end to end, with moments for times."""
        table = self.sequences.with_format("arrow")[:]
        lists = table["items"].combine_chunks()
        starts = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())])
        return Sequences(
            user_ids=table["user_id"].to_pylist(),
            starts=starts.astype(np.int64),
            items=lists.flatten().to_numpy().astype(np.int64),
            timestamps=table["moments"].combine_chunks().flatten().to_numpy().astype(np.int64),
            left_out={},
        )


def build(config: DataConfig, source: Source) -> PreparedData:
    """Split what was read and draw candidates, in memory.

    Raises:
        InputError: If the data cannot be used; the message says why.
    """
    items = source.items
    sequences = build_sequences(source.interactions, items, config.num_candidates)
    split = split_sequences(sequences, config)
    examples = DatasetDict(
        {
            part: _examples(
                sequences,
                *targets,
                len(items),
                history_length=config.history_length,
                num_candidates=config.num_candidates,
                seed=config.seed,
            )
            for part, targets in split.targets.items()
        }
    )
    left_out = {**source.left_out, **sequences.left_out}
    info = _info(config, len(items), sequences, examples)
    info["left_out"] = {name: left_out.get(name, 0) for name in LEFT_OUT}
    info["reading"] = source.reading
    table = _sequence_table(sequences, split)
    return PreparedData(_catalogue(items, config), table, examples, info)


def prepare(config: DataConfig, folder: Path, source: Source | None = None) -> PreparedData:
    """Read, check, split and write a dataset.

    `folder` gets `items`, `sequences` and `examples` (as `datasets.load_from_disk` reads them) and
    `info.json`. What was there before is replaced when all is written, and stays if anything fails.

    Args:
        config: What to read and how to cut it.
        folder: Where to write it.
        source: What was read, where that is done already.

    Raises:
        InputError: If the data cannot be used; the message says where and why.
    """
    begin = time.perf_counter()
    built = build(config, read_interactions(config) if source is None else source)
    info = built.info
    with replace_folder(folder) as aside:
        built.items.save_to_disk(str(aside / "items"))
        built.sequences.save_to_disk(str(aside / "sequences"))
        built.examples.save_to_disk(str(aside / "examples"))
        write_json(aside / "info.json", info)
    logger.info(
        "prepared %s: %d users, %d items, %d interactions in %.1f s",
        info["dataset"],
        info["users"],
        info["items"],
        info["interactions"],
        time.perf_counter() - begin,
    )
    return PreparedData.load(folder)


def _catalogue(items: Dataset, config: DataConfig) -> Dataset:
    table = items.with_format("arrow")[:]
    titles = readable_titles(table["title"].to_pylist(), config.max_title_characters)
    place = table.column_names.index("title")
    return Dataset(table.set_column(place, "title", pa.array(titles, pa.string())))


def _sequence_table(sequences: Sequences, split: Split) -> Dataset:
    columns = {
        "user_id": pa.array(sequences.user_ids, pa.string()),
        "items": _lists(sequences.items, sequences.starts),
        "moments": _lists(sequences.moments(), sequences.starts),
        "train_end": pa.array(split.train_end, pa.int32()),
    }
    return Dataset(pa.table(columns, schema=_SEQUENCE_FEATURES.arrow_schema))


def _examples(
    sequences: Sequences,
    users: IntArray,
    positions: IntArray,
    num_items: int,
    *,
    history_length: int,
    num_candidates: int,
    seed: int,
) -> Dataset:
    candidates = draw_candidates(sequences, users, positions, num_items, num_candidates, seed)
    shown = np.minimum(positions, history_length)
    offsets = np.concatenate([[0], np.cumsum(shown)])
    targets = sequences.starts[users] + positions
    places = np.arange(offsets[-1]) + np.repeat(targets - shown - offsets[:-1], shown)
    ends = np.arange(len(users) + 1) * num_candidates
    columns = {
        "user_id": pa.array(sequences.user_ids, pa.string()).take(pa.array(users)),
        "position": pa.array(positions, pa.int32()),
        "history": _lists(sequences.items[places], offsets),
        "target": pa.array(sequences.items[targets], pa.int32()),
        "candidates": _lists(candidates.ravel(), ends),
    }
    return Dataset(pa.table(columns, schema=_EXAMPLE_FEATURES.arrow_schema))


def _lists(values: IntArray, offsets: IntArray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int32()))


def _info(
    config: DataConfig, num_items: int, sequences: Sequences, examples: DatasetDict
) -> dict[str, Any]:
    met = len(np.unique(sequences.items))
    return {
        "dataset": config.dataset_name,
        "toy_world": config.path if config.path in TOY_WORLDS else None,
        "terms": config.terms or published_terms(config.path),
        "domain": config.domain,
        "split": config.split,
        "history_length": config.history_length,
        "num_candidates": config.num_candidates,
        "seed": config.seed,
        "users": len(sequences.user_ids),
        "items": num_items,
        "interactions": len(sequences.items),
        "examples": {part: len(rows) for part, rows in examples.items()},
        "items_without_interactions": num_items - met,
    }
