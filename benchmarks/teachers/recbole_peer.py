"""Train a RecBole model on exported sequences and score the test users; runs in its environment.

RecBole's own pipeline is used as it is: `create_dataset`, `data_preparation` (every prefix becomes
an example), `Trainer.fit` with early stopping. What is set: leave-one-out in the order of the
sequences, the length read, the batch, the seed, and NDCG@10 as what is best on validation.
Two things that only cost it CPU time are mended here, unless `--as_shipped` is given: RecBole 1.2.1
turns torch's anomaly detection on for every model, because one of its model files does so on import
(up to 2.4 times the time), and denormal numbers slow its Caser down (3.9 times, from epoch 5 on).
"""

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer, init_seed

FloatArray = npt.NDArray[np.float32]

DATASET = "interactions"
_ROWS = 256  # histories scored at once


class TimeUp(Exception):  # noqa: N818 - no error, a reason to stop
    """The training has used up its CPU seconds."""


def main() -> None:
    for kind in (FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=kind)
    options = _options()
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    torch.set_num_threads(1)
    data, out = options.data.resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)  # RecBole writes logs into the current folder
    write_atomic_files(data, out / "atomic")
    settings = peer_settings(options, out)
    started = time.process_time()
    config, dataset, loaders = prepare(options.model, settings)
    check_dataset(dataset, data)
    preparing = time.process_time() - started
    model_class = get_model(config["model"])  # this imports every model file
    torch.autograd.set_detect_anomaly(options.as_shipped)
    torch.set_flush_denormal(not options.as_shipped)
    record, model = train(model_class, config, loaders, out / "model.pth", options.max_cpu_seconds)
    tests = read_examples(data / "test.parquet")
    catalogue = pq.read_table(data / "catalogue.parquet")["item_id"].to_pylist()
    started = time.process_time()
    scores = score_histories(model, config, dataset, tests, catalogue)
    np.save(out / "scores.npy", scores)
    record |= {
        "system": f"recbole/{options.model.lower()}",
        "type": options.model.lower(),
        "length": options.length,
        "batch": options.batch,
        "seed": options.seed,
        "as_shipped": options.as_shipped,
        "prepare_cpu_seconds": round(preparing, 1),
        "score_cpu_seconds": round(time.process_time() - started, 1),
        "versions": versions(),
    }
    aside = out / "result.json.writing"
    aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    aside.replace(out / "result.json")
    print(json.dumps(record), flush=True)


def peer_settings(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Return what is set; everything else keeps RecBole's default for the model."""
    return {
        "data_path": str(out / "atomic"),
        "checkpoint_dir": str(out),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "group_by": "user",
            "order": "TO",
            "mode": "full",
        },
        "MAX_ITEM_LIST_LENGTH": options.length,
        "train_batch_size": options.batch,
        "train_neg_sample_args": None,  # cross-entropy over the whole catalogue
        "loss_type": "CE",
        "valid_metric": "NDCG@10",
        "stopping_step": options.stopping_step,
        "epochs": options.epochs,
        "seed": options.seed,
        "use_gpu": False,
        "show_progress": False,
    }


def write_atomic_files(data: Path, folder: Path) -> None:
    """Write the sequences as RecBole reads them.

    The timestamp is the place in the sequence: RecBole holds it as float32, where Unix times of
    one day are level and the order of a sequence's last items is lost.
    """
    table = pq.read_table(data / "sequences.parquet").to_pandas()
    lengths = table["items"].map(len).to_numpy()
    frame = pd.DataFrame(
        {
            "user_id:token": np.repeat(table["user_id"].to_numpy(), lengths),
            "item_id:token": np.concatenate(table["items"].to_numpy()),
            "timestamp:float": np.concatenate([np.arange(length) for length in lengths]),
        }
    )
    place = folder / DATASET
    place.mkdir(parents=True, exist_ok=True)
    frame.to_csv(place / f"{DATASET}.inter", sep="\t", index=False)


def prepare(model: str, settings: Mapping[str, Any]) -> tuple[Config, Dataset, Any]:
    """Return RecBole's configuration, dataset and the loaders of train, validation and test."""
    config = Config(model=model, dataset=DATASET, config_dict=dict(settings))
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    return config, dataset, data_preparation(config, dataset)


def check_dataset(dataset: Dataset, data: Path) -> None:
    """Stop if RecBole read other users or items than were written, such as an id `NA`."""
    table = pq.read_table(data / "sequences.parquet").to_pandas()
    for field, ids in (("user_id", table["user_id"]), ("item_id", table["items"].explode())):
        lost = set(ids) - set(dataset.field2token_id[field])
        if lost:
            raise SystemExit(
                f"RecBole cannot read the {field} `{min(lost)}` ({len(lost)} such ids); rename it"
            )


def train(
    model_class: type[torch.nn.Module],
    config: Config,
    loaders: Any,
    checkpoint: Path,
    max_cpu_seconds: float | None,
) -> tuple[dict[str, Any], torch.nn.Module]:
    """Train until validation no longer improves or time is up; return facts and the best model."""
    train_data, valid_data, _ = loaders
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    model = model_class(config, train_data._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.saved_model_file = str(checkpoint)
    started, epochs, stopped = time.process_time(), 0, "early stopping"

    def after_epoch(epoch: int, score: float) -> None:
        nonlocal epochs
        epochs, used = epoch + 1, time.process_time() - started
        print(f"epoch {epochs}: validation NDCG@10 {score:.4f}, {used:.0f} CPU s", flush=True)
        if max_cpu_seconds is not None and used >= max_cpu_seconds:
            raise TimeUp

    try:
        trainer.fit(train_data, valid_data, verbose=False, callback_fn=after_epoch)
        if trainer.cur_step <= config["stopping_step"]:
            stopped = f"{epochs} epochs"
    except TimeUp:
        stopped = f"{max_cpu_seconds:g} CPU s"
    facts = {
        "cpu_seconds": round(time.process_time() - started, 1),
        "epochs": epochs,
        "stopped": stopped,
        "best_valid": float(trainer.best_valid_score),
    }
    kept = torch.load(checkpoint, weights_only=False)  # this run's own file
    model.load_state_dict(kept["state_dict"])
    model.load_other_parameter(kept.get("other_parameter"))
    return facts, model


def read_examples(path: Path) -> pd.DataFrame:
    """Read `user_id`, `position`, `history` (item ids, oldest first, all before the position)."""
    return pq.read_table(path, columns=["user_id", "position", "history"]).to_pandas()


def score_histories(
    model: torch.nn.Module,
    config: Config,
    dataset: Dataset,
    examples: pd.DataFrame,
    catalogue: Sequence[str],
) -> FloatArray:
    """Score every item of a catalogue after each history.

    Args:
        model: A trained model with `full_sort_predict`.
        config: Its configuration.
        dataset: The dataset that gave ids to its users and items.
        examples: As `read_examples` returns them.
        catalogue: `(items,)` item ids, one per column of the result.

    Returns:
        `(examples, items)`; -inf for an item that RecBole never met.

    Raises:
        SystemExit: If a history holds no item that RecBole met.
    """
    ids = dataset.field2token_id[dataset.iid_field]
    columns = np.array([ids.get(item, 0) for item in catalogue])
    scores = np.full((len(examples), len(catalogue)), -np.inf, dtype=np.float32)
    model.eval()
    for start in range(0, len(examples), _ROWS):
        part = examples.iloc[start : start + _ROWS]
        with torch.inference_mode():
            found = model.full_sort_predict(interaction_of(part, config, dataset))
        found = found.view(len(part), -1).numpy()
        scores[start : start + _ROWS, columns > 0] = found[:, columns[columns > 0]]
    return scores


def interaction_of(examples: pd.DataFrame, config: Config, dataset: Dataset) -> Interaction:
    """Return histories as RecBole hands them to a model: the last items, padded on the right."""
    users = dataset.field2token_id[dataset.uid_field]
    items = dataset.field2token_id[dataset.iid_field]
    width = config["MAX_ITEM_LIST_LENGTH"]
    lists = torch.zeros(len(examples), width, dtype=torch.long)
    lengths = torch.zeros(len(examples), dtype=torch.long)
    for row, (user, history) in enumerate(
        zip(examples["user_id"], examples["history"], strict=True)
    ):
        known = [items[item] for item in history if item in items][-width:]
        if not known:
            raise SystemExit(f"the history of user `{user}` holds no item that RecBole met")
        lists[row, : len(known)] = torch.tensor(known)
        lengths[row] = len(known)
    return Interaction(
        {
            dataset.uid_field: torch.tensor([users.get(user, 0) for user in examples["user_id"]]),
            dataset.iid_field + config["LIST_SUFFIX"]: lists,
            config["ITEM_LIST_LENGTH_FIELD"]: lengths,
        }
    )


def versions() -> dict[str, str]:
    """Return what ran."""
    return {
        "python": platform.python_version(),
        "recbole": recbole.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that export wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    parser.add_argument("--model", default="SASRec", help="SASRec, GRU4Rec or Caser")
    parser.add_argument("--length", type=int, default=10, help="MAX_ITEM_LIST_LENGTH")
    parser.add_argument("--batch", type=int, default=256, help="train_batch_size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=300, help="at most so many")
    parser.add_argument("--stopping_step", type=int, default=10, help="patience, in epochs")
    parser.add_argument("--max_cpu_seconds", type=float, help="stop after this epoch's end")
    parser.add_argument("--as_shipped", action="store_true", help="see above")
    return parser.parse_args()


if __name__ == "__main__":
    main()
