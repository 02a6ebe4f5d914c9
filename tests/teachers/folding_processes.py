"""Started by a test as one process or as two: teach with folds, say how many took part."""

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState

from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from delrec_hf.runs.stages import teach


def main(folder: Path, teachers: dict[str, dict[str, Any]]) -> None:
    state = PartialState(cpu=True)
    for name, settings in teachers.items():
        teach(Run(Recipe(folder / name, {"teacher": settings})))
    if state.is_main_process:
        (folder / "processes.json").write_text(json.dumps(state.num_processes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
