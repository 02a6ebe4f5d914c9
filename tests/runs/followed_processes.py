"""What a test runs in a process of its own: stages that report to trackers, and what these kept."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from delrec_hf.cli import main


def follow(config: Path, kept: Path, out: Path) -> None:
    """Run both stages; write the curves that trackio has kept of them, by run."""
    os.environ["TRACKIO_DIR"] = str(kept)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.chdir(kept.parent)
    reached: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            reached.append(str(arguments[-1]))

    sys.addaudithook(watch)
    for stage in ("distill", "finetune"):
        assert main([stage, "--config", str(config)]) == 0
    assert not reached, reached

    from trackio.sqlite_storage import SQLiteStorage

    (project,) = SQLiteStorage.get_projects()
    found = {
        name: SQLiteStorage.get_logs(project, name) for name in SQLiteStorage.get_runs(project)
    }
    out.write_text(json.dumps({"project": project, "runs": found}), encoding="utf-8")
