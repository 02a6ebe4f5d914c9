"""What a test runs in one process and in two: teach with folds, say how many took part."""

import json
from pathlib import Path
from typing import Any

from accelerate import PartialState

from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from delrec_hf.runs.stages import teach


def teach_with_folds(folder: Path, teachers: dict[str, dict[str, Any]]) -> None:
    state = PartialState(cpu=True)
    for name, settings in teachers.items():
        teach(Run(Recipe(folder / name, {"teacher": settings})))
    if state.is_main_process:
        (folder / "processes.json").write_text(json.dumps(state.num_processes))
