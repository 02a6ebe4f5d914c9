"""How many made-up files the property tests read: `DELREC_FILES`, 200 if it is not set."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, configuration, settings

FILES = int(os.environ.get("DELREC_FILES", "200"))

# What hypothesis keeps between runs is kept out of the project's folder.
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")


def files(share: float) -> Callable[[Any], Any]:
    """Make a test draw its share of all files, the same ones in every run."""
    return settings(
        max_examples=max(1, round(FILES * share)),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
