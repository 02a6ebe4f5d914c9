"""What a test runs in one process and in two: train the same teacher, say how many took part."""

import json
from pathlib import Path

from accelerate import PartialState

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers.config import TeacherConfig
from delrec_hf.teachers.learning.training import train_teacher


def train(folder: Path, data: Path, batch_size: int) -> None:
    config = TeacherConfig(
        output_dir=str(folder / "checkpoints"),
        max_length=6,
        hidden_size=16,
        num_layers=1,
        dropout=0.0,
        num_train_epochs=2,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=16,
        use_cpu=True,
        disable_tqdm=True,
    )
    train_teacher(PreparedData.load(data), config, folder / "teacher")
    state = PartialState()
    if state.is_main_process:
        (folder / "processes.json").write_text(json.dumps(state.num_processes))
