"""The folder for what is kept from one run to the next."""

import os
from pathlib import Path


def home() -> Path:
    """Return the folder that `DELREC_HOME` names, by default `delrec_hf` in the user's cache.

    Raises:
        RuntimeError: If neither `DELREC_HOME` nor a home folder is known.
    """
    given = os.environ.get("DELREC_HOME")
    if given:
        return Path(given).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "delrec_hf"
