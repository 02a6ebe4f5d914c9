"""Small prepared data and settings of a tiny teacher."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers.config import TeacherConfig
from tests.teachers.prepared_data import prepared_from


@pytest.fixture
def prepared() -> PreparedData:
    """Forty users with 5 to 20 of 30 items, in an order with no rule, two at a time."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 21, size=40)
    walks = {
        f"u{user}": generator.permutation(30)[:length].tolist()
        for user, length in enumerate(lengths)
    }
    return prepared_from(walks, 30, at_once=2)


@pytest.fixture
def cycle() -> PreparedData:
    """Everyone walks around the same ring of 24 items, from different places."""
    walks = {f"u{user}": [(user + step) % 24 for step in range(14)] for user in range(24)}
    return prepared_from(walks, 24)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., TeacherConfig]:
    """Make settings for a tiny SASRec, in a folder of the test's own."""

    def make(**settings: Any) -> TeacherConfig:
        small = {
            "output_dir": str(tmp_path / "checkpoints"),
            "max_length": 6,
            "hidden_size": 16,
            "num_layers": 1,
            "per_device_train_batch_size": 16,
            "num_train_epochs": 2,
            "warmup_steps": 0,
            "use_cpu": True,
            "disable_tqdm": True,
        }
        return TeacherConfig(**(small | settings))

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[[PreparedData], Path]:
    """Write prepared data where another process finds it."""

    def write(prepared: PreparedData) -> Path:
        data = tmp_path / "data"
        for name in ("items", "sequences", "examples"):
            getattr(prepared, name).save_to_disk(str(data / name))
        (data / "info.json").write_text("{}")
        return data

    return write
