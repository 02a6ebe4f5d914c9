"""Ranked lists that know nothing of held-out items, whole or with some of them gone."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.predictions import predict

PARTS = ("train", "validation", "test")


def honest_lists(prepared: PreparedData, length: int = 5) -> pd.DataFrame:
    """The best unseen items by co-occurrence for every example."""
    teacher = CoOccurrence.fit(prepared)
    ids = np.array(prepared.items["item_id"][:])
    frames = []
    for part in PARTS:
        found = predict(teacher, prepared, prepared.examples[part], length).to_pandas()
        found["rank"] = [np.arange(1, len(items) + 1) for items in found["items"]]
        frames.append(found.explode(["items", "rank"]))
    frame = pd.concat(frames, ignore_index=True)
    frame["item_id"] = ids[frame["items"].astype(int)]
    frame["rank"] = frame["rank"].astype(int)
    return frame[["user_id", "position", "item_id", "rank"]]


def without(lists: pd.DataFrame, examples: Sequence[dict[str, object]]) -> pd.DataFrame:
    gone = pd.MultiIndex.from_tuples([(row["user_id"], row["position"]) for row in examples])
    keys = pd.MultiIndex.from_frame(lists[["user_id", "position"]])
    return lists[~keys.isin(gone)]
