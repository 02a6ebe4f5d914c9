"""Whether two teachers' weights are the same."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path, atol: float = 0.0) -> None:
    """Bit for bit by default: the same batches went through the same kernels on one thread.

    Weights are trained in memory of torch's own, which is always aligned alike, and a checkpoint is
    copied into it.
    """
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=atol, err_msg=name)
