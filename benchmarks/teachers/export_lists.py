"""Write a RecBole model's best items as ranked lists; runs in RecBole's environment.

The result is what a recipe's `teacher: {type: ranked_lists, path: lists.parquet}` takes. The
checkpoint is a pickle, which can run anything on loading: use your own ones alone.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.utils import get_model, init_seed
from recbole_peer import FloatArray, read_examples, score_histories

_ROWS = 4096  # examples whose scores are held at once


def main() -> None:
    options = _options()
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    examples = pd.concat([read_examples(path) for path in options.examples], ignore_index=True)
    model, config, dataset = load(options.checkpoint, options.data_path)
    catalogue = [item for item in dataset.field2id_token[dataset.iid_field] if item != "[PAD]"]
    aside = options.out.with_name(f".{options.out.name}.writing")
    writer = None
    for start in range(0, len(examples), _ROWS):
        part = examples.iloc[start : start + _ROWS]
        scores = score_histories(model, config, dataset, part, catalogue)
        table = ranked(scores, part, catalogue, options.top)
        writer = writer or pq.ParquetWriter(aside, table.schema)
        writer.write_table(table)
    if writer is None:
        raise SystemExit(f"{', '.join(map(str, options.examples))}: no examples")
    writer.close()
    aside.replace(options.out)
    print(f"{len(examples)} lists of at most {options.top} items in {options.out}")


def load(checkpoint: Path, data_path: Path | None) -> tuple[torch.nn.Module, Config, Dataset]:
    """Return the model of a checkpoint and the dataset whose ids it uses.

    Args:
        checkpoint: What RecBole's trainer saved.
        data_path: Folder of the dataset's atomic files, where it has moved since.
    """
    # RecBole keeps its Config object in the checkpoint, which only a full unpickling reads: the
    # README says to load one's own files alone.
    kept = torch.load(checkpoint, map_location="cpu", weights_only=False)
    config = kept["config"]
    config.compatibility_settings()  # the numpy names that RecBole uses; only Config() sets them
    config["device"] = torch.device("cpu")
    if data_path is not None:
        config["data_path"] = str(data_path)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    model = get_model(config["model"])(config, train_data._dataset)
    model.load_state_dict(kept["state_dict"])
    model.load_other_parameter(kept.get("other_parameter"))
    return model.eval(), config, dataset


def ranked(
    scores: FloatArray, examples: pd.DataFrame, catalogue: Sequence[str], top: int
) -> pa.Table:
    """Return the best unseen items of each example.

    Args:
        scores: `(examples, items)`; changed.
        examples: `user_id`, `position`, `history`.
        catalogue: `(items,)` item ids.
        top: How many to keep.

    Returns:
        `user_id`, `position`, `item_id`, `rank` (from 1 on), `score`, list after list.
    """
    index = pd.Index(catalogue)
    owners = np.repeat(np.arange(len(examples)), examples["history"].map(len))
    seen = index.get_indexer(np.concatenate(examples["history"].to_numpy()))
    scores[owners[seen >= 0], seen[seen >= 0]] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    values = np.take_along_axis(scores, best, axis=1)
    rows, places = np.nonzero(values > -np.inf)
    return pa.table(
        {
            "user_id": pa.array(examples["user_id"].to_numpy()[rows], pa.string()),
            "position": pa.array(examples["position"].to_numpy()[rows], pa.int32()),
            "item_id": pa.array(index.to_numpy()[best[rows, places]], pa.string()),
            "rank": pa.array(places + 1, pa.int32()),
            "score": pa.array(values[rows, places], pa.float32()),
        }
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="RecBole's .pth file")
    parser.add_argument(
        "--examples",
        type=Path,
        nargs="+",
        required=True,
        help="parquet files of user_id, position, history (ids of all items before it)",
    )
    parser.add_argument("--out", type=Path, default=Path("lists.parquet"))
    parser.add_argument("--top", type=int, default=100, help="items per list")
    parser.add_argument("--data_path", type=Path, help="atomic files, if they have moved")
    return parser.parse_args()


if __name__ == "__main__":
    main()
