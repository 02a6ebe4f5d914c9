"""Recommending for the users of a file, in chunks that outlive a kill and are shared out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from accelerate import PartialState

from delrec_hf import __version__
from delrec_hf.chunks import CHUNK, Chunks
from delrec_hf.data.lookup import ItemIndex
from delrec_hf.data.user_histories import UserHistories, read_user_histories
from delrec_hf.data.writers import check_ending, write_tables
from delrec_hf.errors import InputError
from delrec_hf.hashes import cached_content_hash, fingerprint
from delrec_hf.logging import get_logger, progress, said_once
from delrec_hf.modeling.artefact import artefact_folder
from delrec_hf.ranking.kept import model_print
from delrec_hf.ranking.recommendation import Recommendation
from delrec_hf.ranking.rows import scorer_of
from delrec_hf.recommender import Recommender

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

logger = get_logger(__name__)

_NAMED = 3  # examples in a line
_MODEL_FILES = ("delrec_config.json", "catalogue.parquet", "teacher", "co_occurrence*",
                "*token*", "vocab*", "merges*", "chat_template*")  # fmt: skip
"""What an artefact's rankings depend on beside the weights of the language model."""

_RANKED = {
    "item_id": pa.string(),
    "title": pa.string(),
    "score": pa.float64(),
    "language_model": pa.float64(),
    "language_model_rank": pa.int32(),
    "teacher": pa.float64(),
    "teacher_rank": pa.int32(),
}


def recommend_file(
    model: str | Path,
    source: Path,
    output: Path,
    *,
    candidates: Sequence[str] | None = None,
    top_k: int = 10,
    with_teacher: bool | None = None,
    retrieve: int | None = None,
    revision: str | None = None,
    device: str | None = None,
    **loading: Any,
) -> None:
    """Write recommendations for every user of a file to a file.

    All processes of a launch call this together. Each takes the next chunk of users that nobody has
    taken and writes its rows into `OUTPUT.parts/`; so a faster one takes more. The first process
    joins them in the order of the input, and `output` appears when it is whole. After a kill the
    same call goes on, by as many processes as one likes; one of another model, input or options
    starts anew.

    Rows are `user_id, rank` and what a `Recommendation` holds, ranks from 1 on.

    Names in histories that mean no item or several are left out, and then users without any item,
    or who have met the whole catalogue. The log counts both.

    Args:
        model: Folder or Hub id.
        source: See `read_user_histories`; names there are ids first, then titles.
        output: .parquet, .csv, .tsv or .jsonl, plain, .gz or .xz.
        candidates: Titles or ids to rank for everybody; by default the catalogue without the
            user's history.
        top_k: How many to recommend to each user.
        with_teacher: See `Recommender.recommend_many`.
        retrieve: See `Recommender.recommend_many`.
        revision: Commit, tag or branch on the Hub.
        device: Where to run; by default each process's own accelerator.
        **loading: See `Recommender.from_pretrained`.

    Raises:
        InputError: If input, model or an option cannot be used, or no user can be ranked for.
    """
    check_ending(output)
    if output.is_dir() or output.resolve() == source.resolve():
        raise InputError(f"the output {output} is a folder or the input; give another file")
    has_accelerator = torch.accelerator.is_available()
    # Who is through waits for the others' last chunks, whatever these take.
    state = PartialState(cpu=not has_accelerator, timeout=timedelta(days=7))
    if state.num_processes > 1:
        logger.info("%d processes share the work", state.num_processes)
    if device is None and has_accelerator:
        device = str(state.device)
    options: dict[str, Any] = {"top_k": top_k, "with_teacher": with_teacher, "retrieve": retrieve}
    with said_once():
        read = read_user_histories(source)
        folder = artefact_folder(model, revision)
        recommender = Recommender.from_pretrained(folder, device=device, **loading)
        chosen = None if candidates is None else [recommender.find(text) for text in candidates]
        recommender.rank_rows([], chosen, **options)  # refuses options that do not fit
        users = _usable(read, recommender, source, chosen is None)
    settings = {
        "model": _print_of(recommender, folder),
        "device": recommender.model.backbone.device.type,
        "input": cached_content_hash(source),
        "candidates": chosen,
        **options,
        "chunk": CHUNK,
        "version": __version__,
    }
    with Chunks.open(output, settings, len(users.ids), state) as chunks:
        for number, start, end in chunks.take():
            histories = users.histories(start, end)
            ranked = recommender.rank_rows(histories, chosen, disable_tqdm=True, **options)
            chunks.keep(number, _table(users.ids.slice(start, end - start), ranked))
        state.wait_for_everyone()
        if state.is_main_process:
            write_tables(output, chunks.tables(), chunks.folder / "joined")
            logger.info("wrote %s: %d users", output, len(users.ids))
            chunks.remove()


@dataclass(frozen=True)
class _Users:
    """Users who can be ranked for: their ids, and rows of their items end to end."""

    ids: pa.ChunkedArray
    items: IntArray
    bounds: IntArray

    def histories(self, start: int, end: int) -> list[list[int]]:
        bounds = self.bounds[start : end + 1]
        return [self.items[a:b].tolist() for a, b in pairwise(bounds)]


def _usable(
    read: UserHistories, recommender: Recommender, source: Path, from_catalogue: bool
) -> _Users:
    """Find the items of histories in the catalogue, and leave out whom nothing can be said to."""
    rows = _rows_of(read.names, recommender)
    items = rows[read.items]
    known = items >= 0
    if not known.all():
        strange = np.unique(read.items[~known])
        logger.warning(
            "left out of the histories: %d of %d items, which the catalogue does not hold under "
            "this name (%d names: %s)",
            (~known).sum(),
            len(known),
            len(strange),
            _examples(read.names.take(pa.array(strange))),
        )
    bounds = np.concatenate([[0], np.cumsum(known)])[read.bounds]
    items = items[known]
    given, left = np.diff(read.bounds), np.diff(bounds)
    has_met_all = np.zeros(len(left), dtype=bool)
    for user in np.flatnonzero(left >= len(recommender.item_ids)) if from_catalogue else ():
        seen = np.unique(items[bounds[user] : bounds[user + 1]])
        has_met_all[user] = len(seen) == len(recommender.item_ids)
    reasons = {
        "without a history": given == 0,
        "none of whose items is known": (given > 0) & (left == 0),
        "who have met the whole catalogue": has_met_all,
    }
    told = [
        f"{marks.sum()} {reason} ({_examples(read.user_ids.filter(pa.array(marks)))})"
        for reason, marks in reasons.items()
        if marks.any()
    ]
    kept = (left > 0) & ~has_met_all
    if not kept.any():
        raise InputError(f"no user of {source} can be recommended to: {'; '.join(told)}")
    if told:
        logger.warning("users left out: %s", "; ".join(told))
    # Those who have met all take their items with them.
    items = items[np.repeat(kept, left)]
    bounds = np.concatenate([[0], np.cumsum(left[kept])])
    return _Users(read.user_ids.filter(pa.array(kept)), items, bounds)


def _rows_of(names: pa.Array, recommender: Recommender) -> IntArray:
    """Return the row of each name's item in the catalogue, -1 where it means none or several."""
    by_id, by_title = (
        pc.fill_null(pc.index_in(names, value_set=pa.array(known, pa.string())), -1).to_numpy()
        for known in (recommender.item_ids, recommender.titles)
    )
    both = (by_id >= 0) & (by_title >= 0) & (by_id != by_title)
    if both.any():
        logger.warning(
            "%d names are an item's id and another one's title (%s): they are taken for ids",
            both.sum(),
            _examples(names.filter(pa.array(both))),
        )
    rows: IntArray = by_id.astype(np.int64)
    index = ItemIndex(recommender.item_ids, recommender.titles)
    for place in progress(np.flatnonzero(rows < 0), desc="Looking up titles"):
        meant = index.meant(names[place].as_py())
        rows[place] = meant[0] if len(meant) == 1 else -1
    return rows


def _examples(values: pa.Array | pa.ChunkedArray) -> str:
    shown = ", ".join(f'"{str(one)[:80]}"' for one in values.slice(0, _NAMED).to_pylist())
    return f"{shown}, ..." if len(values) > _NAMED else shown


def _print_of(recommender: Recommender, folder: Path) -> str:
    """Return what stands for a model and its teacher: what their rankings depend on."""
    files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})
    weights = model_print(scorer_of(recommender.model))
    return fingerprint(weights, cached_content_hash(*files))


def _table(users: pa.ChunkedArray, ranked: list[list[Recommendation]]) -> pa.Table:
    """Return recommendations as one row per user and rank."""
    owners = np.repeat(np.arange(len(ranked)), [len(one) for one in ranked])
    ranks = [rank for one in ranked for rank in range(1, len(one) + 1)]
    everyone = [found for one in ranked for found in one]
    columns = {
        name: pa.array([getattr(found, name) for found in everyone], kind)
        for name, kind in _RANKED.items()
    }
    ids = users.take(pa.array(owners))
    return pa.table({"user_id": ids, "rank": pa.array(ranks, pa.int32()), **columns})
