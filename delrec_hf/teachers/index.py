"""A co-occurrence index as a file: what goes with a model whose teacher cannot."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_array

from delrec_hf.errors import InputError
from delrec_hf.hashes import fingerprint
from delrec_hf.logging import get_logger
from delrec_hf.teachers.baselines import CoOccurrence

MOST_PAIRS = 1 << 22
"""How many pairs an index holds at most, 8 bytes each: 32 MiB."""

logger = get_logger(__name__)


def save_index(counts: CoOccurrence, item_ids: Sequence[str], path: Path) -> None:
    """Write an index of at most `MOST_PAIRS` pairs, beside which an item takes 12 bytes.

    Of a larger one every item keeps its strongest followers, so many that all fit; the log says
    what is left out.

    Args:
        counts: What is counted.
        item_ids: The catalogue.
        path: A new file.
    """
    kept = strongest(counts, MOST_PAIRS)
    if kept.follows.nnz < counts.follows.nnz:
        logger.info(
            "the co-occurrence index keeps %d of %d pairs: each item's strongest followers",
            kept.follows.nnz,
            counts.follows.nnz,
        )
    tensors: dict[str, npt.NDArray[Any]] = {
        "followers": kept.follows.indices.astype(np.int32),
        "bounds": kept.follows.indptr.astype(np.int32),
        "strengths": kept.follows.data.astype(np.float32),
        "popularity": kept.popularity,
    }
    save_file(tensors, path, {"catalogue": fingerprint(list(item_ids))})


def load_index(path: Path, item_ids: Sequence[str]) -> CoOccurrence:
    """Read an index.

    Args:
        path: What `save_index` wrote.
        item_ids: The catalogue that it is used for.

    Raises:
        InputError: If the file is no index, or one of another catalogue.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            catalogue = (file.metadata() or {}).get("catalogue")
            names = ("strengths", "followers", "bounds", "popularity")
            *parts, popularity = [file.get_tensor(name) for name in names]
        if catalogue != fingerprint(list(item_ids)):
            raise InputError(
                f"the co-occurrence index {path} was counted on another catalogue than these "
                f"{len(item_ids)} items; take the one that `delrec finetune` wrote with this model"
            )
        follows = csr_array(tuple(parts), shape=(len(popularity), len(popularity)))
        follows.check_format()  # the places of followers, too: they come from elsewhere
        return CoOccurrence(follows.astype(np.float64), popularity)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no co-occurrence index: {error}") from error


def strongest(counts: CoOccurrence, most: int) -> CoOccurrence:
    """Return counts of at most so many pairs: of each item the same number of followers, or all.

    >>> follows = csr_array(np.array([[0.0, 0.5, 0.2], [0.1, 0.0, 0.0], [0.3, 0.2, 0.1]]))
    >>> strongest(CoOccurrence(follows, np.zeros(3)), 5).follows.toarray().tolist()
    [[0.0, 0.5, 0.2], [0.1, 0.0, 0.0], [0.3, 0.2, 0.0]]
    """
    follows = counts.follows
    if follows.nnz <= most:
        return counts
    sizes = np.diff(follows.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((follows.indices, -follows.data, rows))
    places = np.arange(len(rows)) - np.repeat(follows.indptr[:-1], sizes)
    kept = order[places < _followers(sizes, most)]
    cut = csr_array((follows.data[kept], (rows[kept], follows.indices[kept])), shape=follows.shape)
    return replace(counts, follows=cut)


def _followers(sizes: npt.NDArray[np.integer], most: int) -> int:
    """Return how many followers each item may keep, so that all together are `most` at most."""
    low, high = 0, int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(sizes, middle).sum() <= most:
            low = middle
        else:
            high = middle - 1
    return low
