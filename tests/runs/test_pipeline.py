"""The whole chain goes to its end, whatever the teacher, the loss or the precision."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from delrec_hf.data.prepared import PreparedData
from delrec_hf.ranking.calibration import Calibration
from delrec_hf.recommender import Recommender
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from delrec_hf.runs.stages import PARTS
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.predictions import predict
from delrec_hf.training.recommendation import CONTROLS
from tests.runs.films import STAGES, SYSTEMS, TAUGHT, command, environment, sections, write_recipe

RANKING: dict[str, dict[str, Any]] = {
    "teacher": {"type": "markov", "folds": 2},
    "instructions": {"candidates": "unlisted"},
    "distil": {"loss": "listwise", "rps_labels": "scores", "positions": "all"},
    "finetune": {"loss": "listwise", "title_weight": 0.1, "controls": list(CONTROLS)},
    "evaluate": {"scoring": "calibrated"},
}
"""Learning by ranking, with all that belongs to it."""


@pytest.mark.slow
def test_learning_by_ranking_with_every_control_goes_to_the_end(
    again: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert again(**RANKING) == STAGES[1:]
    run = tmp_path / "run"
    results = json.loads((run / "results.json").read_text())
    behind_prompts = {f"delrec/{one}" for one in CONTROLS if one != "lora-only"}
    assert set(results["systems"]) >= SYSTEMS - {"teacher/sasrec"} | behind_prompts
    prompts = {
        one: load_file(run / one / "prompt" / "adapter_model.safetensors")["prompt_embeddings"]
        for one in ("model", "random-prompt", "no-ta", "no-rps")
    }
    assert len({one.shape for one in prompts.values()}) == 1
    config = json.loads((run / "cartridge" / "prompt" / "adapter_config.json").read_text())
    assert config["peft_type"] == "CARTRIDGE"
    assert len(json.loads((run / "logs" / "distil-cartridge.json").read_text())) > 1
    for control, task in (("no-ta", "rps"), ("no-rps", "ta")):
        history = json.loads((run / "logs" / f"distil-{control}.json").read_text())
        learned = {name for entry in history for name in entry if name in ("ta_loss", "rps_loss")}
        assert learned == {f"{task}_loss"}
    recommender = Recommender.from_pretrained(run / "model")
    priors = Calibration.load(run / "calibration").log_priors
    assert recommender.log_priors == priors.tolist()
    titles = recommender.titles
    there = recommender.recommend(titles[5:8], candidates=titles[20:26], top_k=6)
    back = recommender.recommend(titles[5:8], candidates=titles[25:19:-1], top_k=6)
    assert [one.title for one in there] == [one.title for one in back]
    for one, other in zip(there, back, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
    assert again(**RANKING) == []
    changed = RANKING | {"finetune": RANKING["finetune"] | {"controls": []}}
    assert again(**changed) == STAGES[4:]
    assert not (run / "no-ta").exists()


def lists_of(run: Path) -> pa.Table:
    """What a recommender elsewhere would export for a run: here, of every item not yet met."""
    prepared = PreparedData.load(run / "data")
    rows = []
    for part in PARTS:
        predicted = predict(CoOccurrence.fit(prepared), prepared, prepared.examples[part], 20)
        rows += [
            {"user_id": row["user_id"], "position": row["position"], "item_id": item, "rank": rank}
            for row in predicted
            for rank, item in enumerate(prepared.items[row["items"]]["item_id"], start=1)
        ]
    return pa.Table.from_pylist(rows)


def check_that_co_occurrence_stands_in(run: Path) -> None:
    recommender = Recommender.from_pretrained(run / "model")
    history = np.array([5, 6, 7])
    expected = CoOccurrence.fit(PreparedData.load(run / "data")).score(
        [""], np.array([len(history)]), [history]
    )[0]
    unseen = np.setdiff1d(np.arange(len(expected)), history)
    best = unseen[np.argsort(-expected[unseen], kind="stable")]
    found = recommender.recommend([recommender.item_ids[row] for row in history], retrieve=9)
    assert sorted(one.item_id for one in found) == sorted(
        recommender.item_ids[row] for row in best[:9]
    )
    for one in found:
        row = recommender.find(f"id:{one.item_id}")
        assert one.teacher == pytest.approx(expected[row], rel=1e-6)
    alone = recommender.recommend([recommender.item_ids[5]], with_teacher=False, top_k=1)
    assert alone[0].teacher is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gru4rec", "caser", "co-occurrence", "ranked_lists", "by path"])
def test_every_teacher_goes_to_the_end_of_the_chain(
    again: Callable[..., list[str]], finished: Path, tmp_path: Path, kind: str
) -> None:
    teacher: dict[str, Any] = {"type": kind, "max_length": 6}
    few: dict[str, Any] = {"finetune": {"controls": []}, "evaluate": {"max_users": 8}}
    if kind == "ranked_lists":
        teacher["path"] = str(tmp_path / "lists.parquet")
        pq.write_table(lists_of(finished), teacher["path"])
    if kind == "by path":
        teacher = {"type": "sasrec", "path": str(finished / "teacher")}
    assert again(teacher=teacher, **few) == TAUGHT
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert f"teacher/{teacher['type']}" in results["systems"]
    assert 0 < results["systems"]["delrec"]["ndcg@10"] <= 1
    model = tmp_path / "run" / "model"
    neural = teacher["type"] in ("sasrec", "gru4rec", "caser")
    assert (model / "teacher").is_dir() == neural
    assert (model / "co_occurrence.safetensors").is_file() != neural
    weights = json.loads((model / "delrec_config.json").read_text())["fusion"]
    other = "teacher" if neural else "co-occurrence"
    assert set(weights) == {"delrec", other}
    assert weights == results["systems"][f"delrec+{other}"]["weights"]
    assert ("delrec+co-occurrence" in results["systems"]) != neural
    card = (model / "README.md").read_text()
    assert teacher["type"] in card.replace("\\", "")
    assert str(tmp_path) not in card
    assert again(teacher=teacher, **few) == []
    if kind == "ranked_lists":
        check_that_co_occurrence_stands_in(tmp_path / "run")
        pq.write_table(lists_of(finished).slice(1), teacher["path"])
        assert again(teacher=teacher, **few) == TAUGHT


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {
                "backbone": {"load_in_4bit": True},
                "distil": {"optim": "lion_8bit", "gradient_checkpointing": True},
                "finetune": {"optim": "paged_lion_8bit", "gradient_checkpointing": True},
            },
            id="4-bit",
        ),
        pytest.param(
            {
                "backbone": {"load_in_4bit": True, "torch_dtype": "bfloat16"},
                "teacher": {"type": "markov"},
                "distil": {"optim": "lion_32bit", "tasks": ["ta"], "task_weighting": "fixed"},
                "finetune": {"controls": []},
            },
            id="4-bit bfloat16, TA alone",
        ),
        pytest.param(
            {
                "data": {"split": "time"},
                "backbone": {"load_in_8bit": True},
                "teacher": {"type": "popularity"},
                "distil": {"tasks": ["rps"], "task_weighting": "fixed"},
                "finetune": {"controls": []},
            },
            id="8-bit, RPS alone, split by time",
        ),
    ],
)
def test_other_settings_go_through_to_the_end(
    films: Path, tmp_path: Path, changes: dict[str, dict[str, Any]]
) -> None:
    if "backbone" in changes:
        pytest.importorskip("bitsandbytes")
    for stage in ("distil", "finetune"):
        changes[stage] = {"max_steps": 2, "max_validation_users": 4, **changes[stage]}
    given = sections(films, **changes, evaluate={"max_users": 6, "scoring": "mean"})
    run_recipe(Recipe(tmp_path / "run", given))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    controls = {"lora-only", "lora-only+teacher"}
    left_out = set() if given["finetune"].get("controls", True) else controls
    teacher = f"teacher/{given['teacher'].get('type', 'sasrec')}"
    own = {teacher} if teacher == "teacher/sasrec" else {teacher, "delrec+co-occurrence"}
    assert set(results["systems"]) == SYSTEMS - {"teacher/sasrec"} - left_out | own


@pytest.mark.parametrize("section", ["distil", "finetune"])
def test_a_cpu_trains_in_float32_unless_told_otherwise(films: Path, section: str) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    for given, expected in (({}, False), ({"bf16": True}, True)):
        run = Run(Recipe(Path("run"), sections(films, **{section: given})))
        assert run.trainer_settings(section, section).bf16 is expected


@pytest.mark.slow
def test_a_command_shows_plain_lines_and_nothing_else(
    finished: Path, films: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    given = sections(films, finetune={"max_steps": 2, "controls": []})
    words = command("finetune", "--config", str(write_recipe(tmp_path, tmp_path / "run", given)))
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    for line in lines:
        assert re.fullmatch(r"\d\d:\d\d:\d\d INFO [^{}]+", line), line
    assert re.search(r"finetune: reads .*run/data, .*run/distil, backbone ", done.stderr)
    assert re.search(r"finetune: wrote .*run/model in \d+ s", lines[-1])
    assert any(re.search(r"step 2 of 2, validation: hr@1 \d", line) for line in lines)


@pytest.mark.slow
def test_a_run_distils_a_cartridge_and_ranks_behind_it(
    again: Callable[..., list[str]], tmp_path: Path
) -> None:
    changes = {"distil": {"prompt_type": "cartridge", "loss": "listwise"}}
    assert again(**changes) == STAGES[3:]
    run = tmp_path / "run"
    for folder in (run / "distil", run / "model" / "prompt"):
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["peft_type"] == "CARTRIDGE"
    distilled, kept = (
        (run / place / "adapter_model.safetensors").read_bytes()
        for place in ("distil", "model/prompt")
    )
    assert distilled == kept, "stage 2 changed the cartridge"
    systems = json.loads((run / "results.json").read_text())["systems"]
    assert systems["prompt-only"] != systems["zero-shot"]
    assert systems["delrec"] != systems["lora-only"]
    assert again(**changes) == []
