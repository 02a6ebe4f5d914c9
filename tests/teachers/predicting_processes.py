"""What a test runs in one process and in two: predict for all positions, say how many took part."""

import json
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers import predictions
from delrec_hf.teachers.models.sasrec import SASRecConfig, SASRecModel
from delrec_hf.teachers.predictions import all_positions, write_predictions
from delrec_hf.teachers.teacher import NeuralTeacher


def predict_everywhere(folder: Path, data: Path) -> None:
    state = PartialState(cpu=True)
    prepared = PreparedData.load(data)
    torch.manual_seed(0)
    model = SASRecModel(SASRecConfig(num_items=30, max_length=6, hidden_size=16))
    predictions.SCORES_AT_ONCE = 30 * 7  # many batches, so that the processes have some to share
    places = {"all": all_positions(prepared), "test": prepared.examples["test"].select(range(3))}
    write_predictions(NeuralTeacher(model, pd.Index([])), prepared, places, 5, folder / "lists")
    if state.is_main_process:
        (folder / "processes.json").write_text(json.dumps(state.num_processes))
