"""The whole chain on a user's own folder: what it leaves, what it repeats, how it goes on."""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import logsumexp

from delrec_hf.data.prepared import PreparedData
from delrec_hf.errors import InputError
from delrec_hf.ranking.calibration import Calibration
from delrec_hf.recommender import Recommender
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from delrec_hf.runs.stages import PARTS
from delrec_hf.teachers.baselines import CoOccurrence
from delrec_hf.teachers.predictions import predict
from delrec_hf.training.recommendation import CONTROLS
from tests.runs.films import (
    STAGES,
    SYSTEMS,
    command,
    environment,
    sections,
    stages_run,
    write_films,
    write_recipe,
)

TAUGHT = [stage for stage in STAGES if stage not in ("prepare", "calibrate")]
"""What runs again with another teacher."""


@pytest.mark.slow
def test_a_users_own_folder_ends_with_a_table_of_every_system(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert set(results["systems"]) == SYSTEMS
    for name, system in results["systems"].items():
        assert {"hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr", "log_loss"} <= set(system)
        assert ("seconds" in system) == ("+" not in name)
        low, high = system["ci95"]["hr@1"]
        assert 0 <= low <= system["hr@1"] <= high <= 1
    assert results["protocol"]["users"] == 20
    assert results["protocol"]["num_candidates"] == 6
    assert set(results["distillation"]) == {"no prompt", "random prompt", "distilled prompt"}
    against = {name: set() for name in ("delrec", "delrec+teacher")}
    for one in results["comparisons"]:
        against[one["a"]].add(one["b"])
    fusions = {name for name in SYSTEMS if "+" in name}
    assert against["delrec"] == SYSTEMS - {"delrec", "random"} - fusions
    assert against["delrec+teacher"] == fusions - {"delrec+teacher"} | {"delrec", "teacher/sasrec"}


@pytest.mark.slow
def test_the_runs_folder_has_the_documented_layout(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "data",
        "teacher",
        "calibration",
        "distil",
        "lora-only",
        "model",
        "results.json",
        "run.json",
        "logs",
        "scores",
    }
    found = {p.name for p in (finished / "teacher" / "predictions").iterdir()}
    assert found == {f"{part}-00000-of-00001.parquet" for part in PARTS}
    assert {p.name for p in (finished / "distil").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    record = json.loads((finished / "run.json").read_text())
    assert list(record["stages"]) == STAGES
    for stage in record["stages"].values():
        assert set(stage) == {"format_version", "fingerprint", "settings", "seconds"}


@pytest.mark.slow
def test_the_stages_leave_the_data_as_prepare_wrote_it(finished: Path) -> None:
    parts = {f"examples/{part}" for part in PARTS} | {"items", "sequences"}
    assert {str(path.relative_to(finished / "data")) for path in finished.rglob("data/**/*.*")} == {
        *(f"{part}/data-00000-of-00001.arrow" for part in parts),
        *(f"{part}/{name}.json" for part in parts for name in ("state", "dataset_info")),
        *("examples/dataset_dict.json", "info.json"),
    }


@pytest.mark.slow
def test_the_model_folder_is_the_documented_artefact(finished: Path) -> None:
    model = finished / "model"
    files = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "prompt/adapter_config.json",
        "prompt/adapter_model.safetensors",
        "delrec_config.json",
        "catalogue.parquet",
        "results.json",
        "teacher/teacher.json",
        "teacher/config.json",
        "teacher/model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert (model / "results.json").read_text() == (finished / "results.json").read_text()
    for name in ("teacher.json", "config.json", "model.safetensors"):
        held, taught = (place / "teacher" / name for place in (model, finished))
        assert held.read_bytes() == taught.read_bytes()


@pytest.mark.slow
def test_the_model_ranks_as_the_fusion_that_was_measured(finished: Path) -> None:
    recommender = Recommender.from_pretrained(finished / "model")
    prepared = PreparedData.load(finished / "data")
    scores = pq.read_table(finished / "logs" / "scores.parquet").to_pylist()
    sequences = {row["user_id"]: row["items"] for row in prepared.sequences}
    for row in scores[:5]:
        seen = sequences[row["user_id"]][: row["position"]]
        ids, offered = (prepared.items[rows]["item_id"] for rows in (seen, row["candidates"]))
        found = {one.item_id: one for one in recommender.recommend(ids, offered)}
        for item, own, teacher in zip(offered, row["delrec"], row["teacher"], strict=True):
            # The same numbers in batches of other shapes.
            assert found[item].language_model == pytest.approx(own, abs=1e-3)
            assert found[item].teacher == pytest.approx(teacher, abs=1e-5)
        fused = [found[item].score for item in offered]
        chances = np.array(fused) - logsumexp(fused)
        assert chances == pytest.approx(row["delrec+teacher"], abs=1e-3)


@pytest.mark.slow
def test_nothing_in_the_model_folder_says_where_it_was_made(finished: Path) -> None:
    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for one in value.values() for text in texts(one)]
        if isinstance(value, list):
            return [text for one in value for text in texts(one)]
        return [value] if isinstance(value, str) else []

    paths = [path for path in (finished / "model").rglob("*.json") if path.stem != "tokenizer"]
    assert len(paths) >= 4
    for path in paths:
        for text in texts(json.loads(path.read_text())):
            assert not Path(text).is_absolute(), (path, text)


@pytest.mark.slow
def test_hostile_titles_go_through_to_the_catalogue(finished: Path) -> None:
    import pyarrow.parquet as pq

    titles = pq.read_table(finished / "model" / "catalogue.parquet")["title"].to_pylist()
    assert len(set(titles)) == len(titles)
    assert "\n" not in "".join(titles)
    assert len(titles[2]) <= 100
    assert titles[2].startswith("Crypt Crypt")


@pytest.mark.slow
def test_a_finished_run_repeats_nothing(again: Callable[..., list[str]]) -> None:
    assert again() == []
    # What only shows on the terminal makes no difference.
    assert again(distil={"logging_steps": 2, "disable_tqdm": True}) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "ran"),
    [
        ({"evaluate": {"scoring": "mean"}}, STAGES[3:]),
        ({"evaluate": {"scoring": "calibrated"}}, STAGES[3:]),
        ({"instructions": {"candidates": "unlisted"}}, STAGES[2:]),
        ({"finetune": {"lora_r": 4, "controls": []}}, STAGES[4:]),
        ({"distil": {"num_virtual_tokens": 5}}, STAGES[3:]),
        ({"teacher": {"type": "markov"}}, TAUGHT),
        ({"data": {"num_candidates": 5}}, STAGES),
    ],
)
def test_a_changed_section_repeats_its_stage_and_those_after_it(
    again: Callable[..., list[str]],
    tmp_path: Path,
    changes: dict[str, dict[str, Any]],
    ran: list[str],
) -> None:
    assert again(**changes) == ran
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    without_control = changes.get("finetune", {}).get("controls") == []
    assert ("lora-only" not in results["systems"]) == without_control
    if changes.get("teacher"):
        assert "teacher/markov" in results["systems"]


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gru4rec", "caser", "co-occurrence", "ranked_lists", "by path"])
def test_every_teacher_goes_to_the_end_of_the_chain(
    again: Callable[..., list[str]], finished: Path, tmp_path: Path, kind: str
) -> None:
    teacher: dict[str, Any] = {"type": kind, "max_length": 6}
    if kind == "ranked_lists":
        teacher["path"] = str(tmp_path / "lists.parquet")
        pq.write_table(lists_of(finished), teacher["path"])
    if kind == "by path":
        teacher = {"type": "sasrec", "path": str(finished / "teacher")}
    assert again(teacher=teacher) == TAUGHT
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert f"teacher/{teacher['type']}" in results["systems"]
    assert 0 < results["systems"]["delrec"]["ndcg@10"] <= 1
    model = tmp_path / "run" / "model"
    neural = teacher["type"] in ("sasrec", "gru4rec", "caser")
    assert (model / "teacher").is_dir() == neural
    assert (json.loads((model / "delrec_config.json").read_text())["fusion"] is None) != neural
    card = (model / "README.md").read_text()
    assert teacher["type"] in card.replace("\\", "")
    assert str(tmp_path) not in card
    assert again(teacher=teacher) == []
    if kind == "ranked_lists":
        pq.write_table(lists_of(finished).slice(1), teacher["path"])
        assert again(teacher=teacher) == TAUGHT


def test_changed_data_repeat_what_reads_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    films = write_films(tmp_path / "films", users=12)
    recipe = Recipe(tmp_path / "run", sections(films, teacher={"type": "popularity"}))
    assert stages_run(recipe, caplog, "prepare") == ["prepare"]
    assert stages_run(recipe, caplog, "teach") == ["teach"]
    assert stages_run(recipe, caplog, "teach") == []
    events = films / "interactions.csv"
    events.write_text("\n".join(events.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match="run `delrec prepare` first"):
        run_recipe(recipe, "teach")
    assert stages_run(recipe, caplog, "prepare") == ["prepare"]
    assert stages_run(recipe, caplog, "teach") == ["teach"]


def test_the_same_data_under_another_path_repeat_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    films = write_films(tmp_path / "films", users=12)
    assert stages_run(Recipe(tmp_path / "run", sections(films)), caplog, "prepare") == ["prepare"]
    moved = films.rename(tmp_path / "run" / "films")
    assert stages_run(Recipe(tmp_path / "run", sections(moved)), caplog, "prepare") == []


def test_only_the_files_that_are_read_decide_whether_data_have_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = write_films(tmp_path / "films", users=12)
    given = {"path": str(films / "interactions.csv")}
    recipe = Recipe(films / "run", sections(films, data=given, teacher={"type": "popularity"}))
    (films / "movie").mkdir()
    monkeypatch.chdir(films)
    assert stages_run(recipe, caplog, "prepare") == ["prepare"]
    (films / "movie" / "notes.txt").write_text("not the domain of that name")
    assert stages_run(recipe, caplog, "teach") == ["teach"]
    items = films / "items.csv"
    items.write_text(items.read_text().replace("The", "A"))
    assert stages_run(recipe, caplog, "prepare") == ["prepare"]


def test_a_stage_says_which_one_must_run_before_it(films: Path, tmp_path: Path) -> None:
    for only, first in (("teach", "prepare"), ("finetune", "prepare"), ("evaluate", "prepare")):
        with pytest.raises(InputError, match=f"`{only}` reads .* run `delrec {first}` first"):
            run_recipe(Recipe(tmp_path / "run", sections(films)), only)
    run_recipe(Recipe(tmp_path / "run", sections(films)), "prepare")
    with pytest.raises(InputError, match="run `delrec calibrate` first"):
        run_recipe(Recipe(tmp_path / "run", sections(films)), "finetune")


def test_a_failing_stage_leaves_older_outputs_as_they_were(films: Path, tmp_path: Path) -> None:
    recipe = Recipe(tmp_path / "run", sections(films))
    run_recipe(recipe, "prepare")
    before = {p: p.read_bytes() for p in (tmp_path / "run" / "data").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="fewer than the 500 candidates"):
        run_recipe(Recipe(tmp_path / "run", sections(films, data={"num_candidates": 500})))
    assert before == {
        p: p.read_bytes() for p in (tmp_path / "run" / "data").rglob("*") if p.is_file()
    }


@pytest.mark.slow
def test_outputs_of_a_stage_that_broke_off_are_not_taken_for_finished(
    finished: Path, films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "logs")
    (folder / "logs").touch()  # so that distil fails once its folder is replaced
    with pytest.raises(OSError, match="logs"):
        run_recipe(Recipe(folder, sections(films, distil={"num_virtual_tokens": 5})), "distil")
    (folder / "logs").unlink()
    assert stages_run(Recipe(folder, sections(films)), caplog, "distil") == ["distil"]
    weights = "distil/adapter_model.safetensors"
    # Exact: the same batches go through the same kernels on one thread.
    assert (folder / weights).read_bytes() == (finished / weights).read_bytes()


@pytest.mark.parametrize("broken", ['{"stages": {"pre', "[]", '{"stages": 3}'])
def test_a_broken_record_is_named_with_the_cure(films: Path, tmp_path: Path, broken: str) -> None:
    (tmp_path / "run.json").write_text(broken)
    with pytest.raises(InputError, match=r"run\.json .*remove it") as caught:
        run_recipe(Recipe(tmp_path, sections(films)), "prepare")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("data", {"domain": "datacheese"}),
        ("teacher", {"type": "gru"}),
        ("distil", {"learning_rat": 1}),
        ("finetune", {"packing": True}),
        ("evaluate", {"systems": ["delrek"]}),
    ],
)
def test_a_mistake_in_a_later_section_is_found_before_the_first_stage(
    films: Path, tmp_path: Path, section: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=section):
        run_recipe(Recipe(tmp_path / "run", sections(films, **{section: changes})))
    assert not (tmp_path / "run" / "data").exists()


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
def test_delrec_can_be_evaluated_alone(again: Callable[..., list[str]], tmp_path: Path) -> None:
    ran = again(evaluate={"systems": ["delrec"], "max_users": 10})
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert ran == ["evaluate"]
    assert set(results["systems"]) == {"delrec"}
    assert results["protocol"]["users"] == 10
    assert results["comparisons"] == []
    assert "distillation" not in results


@pytest.mark.slow
def test_every_system_reranks_what_the_teacher_retrieves(
    again: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert again(evaluate={"retrieve": 40}) == ["evaluate"]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    found = results["retrieved"]
    assert set(found["systems"]) == SYSTEMS
    assert 0 < found["recall_ceiling"] < 1
    for name, system in found["systems"].items():
        assert system["hr@1"] <= system["hr@10"] <= found["recall_ceiling"] + 1e-9
        assert ("weights" in system) == (found["protocol"]["fit_users"] > 0), name
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "End to end: best 40 of the catalogue by teacher/sasrec, reranked" in card


@pytest.mark.slow
def test_evaluation_reads_only_what_it_ranks_with(
    again: Callable[..., list[str]], finished: Path, tmp_path: Path
) -> None:
    again()
    for weights in (tmp_path / "run").rglob("*.safetensors"):
        weights.unlink()
    assert again(evaluate={"systems": ["random", "popularity", "markov"]}) == ["evaluate"]
    found = json.loads((tmp_path / "run" / "results.json").read_text())["systems"]
    before = json.loads((finished / "results.json").read_text())["systems"]
    for name in ("random", "popularity", "markov"):
        # Exact: the same whole numbers and draws go through the same kernels.
        assert without_seconds(found[name]) == without_seconds(before[name])


def without_seconds(system: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in system.items() if name != "seconds"}


def kill_after(file: Path, words: list[str]) -> None:
    """Start a command and kill it as soon as a file is there."""
    process = subprocess.Popen(
        words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 240
    while not file.is_file():
        assert process.poll() is None, "it ended before there was anything to kill"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "word", "place", "output"),
    [
        ("distil", "distill", "distil", "distil"),
        ("finetune", "finetune", "finetune/delrec", "model"),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    finished: Path,
    films: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    stage: str,
    word: str,
    place: str,
    output: str,
) -> None:
    changes = {stage: {"max_steps": 12, "warmup_steps": 3, "save_steps": 2}}
    if stage == "finetune":
        changes[stage] |= {"controls": [], "lora_dropout": 0.1}
    given = sections(films, **changes)
    straight, killed = (tmp_path / name for name in ("straight", "killed"))
    for folder in (straight, killed):
        shutil.copytree(finished, folder)
    checkpoints = killed / "checkpoints" / place
    config = write_recipe(tmp_path, killed, given)
    kill_after(
        checkpoints / "checkpoint-4" / "trainer_state.json", command(word, "--config", str(config))
    )
    before = {p.name: p.read_bytes() for p in (killed / output).iterdir() if p.is_file()}
    assert before == {p.name: p.read_bytes() for p in (finished / output).iterdir() if p.is_file()}
    half = checkpoints / "checkpoint-90"
    half.mkdir()
    (half / "adapter_config.json").write_text("{")

    assert stages_run(Recipe(killed, given), caplog, stage) == [stage]
    assert any(
        record.getMessage().startswith("continues from") and "checkpoint-90" not in record.message
        for record in caplog.records
    )
    stages_run(Recipe(straight, given), caplog, stage)
    weights = sorted(
        path.relative_to(straight) for path in (straight / output).rglob("*.safetensors")
    )
    assert len(weights) == (1 if stage == "distil" else 3)  # LoRA, the prompt and the teacher
    for path in weights:
        # Exact: both train on one thread, and a checkpoint is copied into weights laid out as ever.
        assert (killed / path).read_bytes() == (straight / path).read_bytes(), path
        if stage == "distil":
            assert (killed / path).read_bytes() != (finished / path).read_bytes()
    assert not (killed / "checkpoints").exists()


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
    given = sections(films, **changes, evaluate={"max_users": 6, "bootstrap_samples": 20})
    run_recipe(Recipe(tmp_path / "run", given))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    controls = {"lora-only", "lora-only+teacher"}
    left_out = set() if given["finetune"].get("controls", True) else controls
    teacher = f"teacher/{given['teacher'].get('type', 'sasrec')}"
    assert set(results["systems"]) == SYSTEMS - {"teacher/sasrec"} - left_out | {teacher}
