"""Finding the checkpoint that a killed training goes on from."""

import shutil
from pathlib import Path

from accelerate import PartialState
from transformers.trainer_utils import get_last_checkpoint

from delrec_hf.files import write_text
from delrec_hf.logging import get_logger

logger = get_logger(__name__)


def last_checkpoint(folder: str | Path, fingerprint: str) -> str | None:
    """Return the last complete checkpoint of a training with the same inputs and settings.

    Checkpoints that a killed process left half-written, and those of another training, are
    removed. With several processes the first one does this and the others wait.

    Args:
        folder: The training's `output_dir`.
        fingerprint: Stands for the inputs and settings.
    """
    state = PartialState()
    place = Path(folder)
    mark = place / "fingerprint"
    if state.is_main_process:
        same = mark.is_file() and mark.read_text(encoding="utf-8") == fingerprint
        for checkpoint in place.glob("checkpoint-*"):
            # The Trainer writes this file last.
            if not (same and (checkpoint / "trainer_state.json").is_file()):
                shutil.rmtree(checkpoint)
        write_text(mark, fingerprint)
    state.wait_for_everyone()
    found: str | None = get_last_checkpoint(str(place))
    if found:
        logger.info("continues from %s", found)
    return found
