"""Prepared data as the peers read it: parquet files with ids instead of rows."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.files import replace_folder
from delrec_hf.teachers.histories import Histories, IntArray, column, flatten

PARTS = ("train", "validation", "test")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    try:
        export(PreparedData.load(options.data), options.out)
    except InputError as error:
        print(f"exported: error: {error}", file=sys.stderr)
        return 2
    return 0


def export(prepared: PreparedData, folder: Path) -> None:
    """Write a prepared dataset for programs that know nothing of this one.

    `folder` gets `catalogue.parquet` (`item_id`, in row order), `sequences.parquet` (`user_id`,
    `items`: ids, oldest first, `train_end`) and `train.parquet`, `validation.parquet`,
    `test.parquet` (`user_id`, `position`, `history`: the ids of all items before it).

    Raises:
        InputError: If the split is not leave-one-out, the only one that the peers make too.
    """
    if prepared.info["split"] != "leave-one-out":
        raise InputError(
            f"the data is split by {prepared.info['split']}; the peers split leave-one-out: "
            "prepare with data.split: leave-one-out"
        )
    ids = pa.array(prepared.items["item_id"][:], pa.string())
    items, bounds = flatten(prepared.sequences, "items")
    sequences = {
        "user_id": pa.array(prepared.sequences["user_id"][:], pa.string()),
        "items": _lists(ids, items, bounds),
        "train_end": pa.array(column(prepared.sequences, "train_end")),
    }
    with replace_folder(folder) as aside:
        pq.write_table(pa.table({"item_id": ids}), aside / "catalogue.parquet")
        pq.write_table(pa.table(sequences), aside / "sequences.parquet")
        for part in PARTS:
            table = example_table(prepared, prepared.examples[part], ids)
            pq.write_table(table, aside / f"{part}.parquet")


def example_table(prepared: PreparedData, examples: Dataset, ids: pa.Array) -> pa.Table:
    """Return `user_id`, `position` and `history` of examples, the whole history as item ids."""
    users = column(examples, "user_id").tolist()
    positions = column(examples, "position").astype(np.int64)
    histories: Sequence[IntArray] = Histories.of(prepared).before(users, positions)
    bounds = np.concatenate([[0], np.cumsum(positions)])
    items = np.concatenate(histories) if histories else np.zeros(0, dtype=np.int64)
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "position": pa.array(positions, pa.int32()),
            "history": _lists(ids, items, bounds),
        }
    )


def _lists(ids: pa.Array, rows: IntArray, bounds: IntArray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), ids.take(pa.array(rows)))


if __name__ == "__main__":
    raise SystemExit(main())
