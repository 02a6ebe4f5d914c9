"""What a finished run leaves behind: its table, its folder, its data and its model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import logsumexp

from delrec_hf.data.prepared import PreparedData
from delrec_hf.recommender import Recommender
from delrec_hf.reporting.provenance import commands
from delrec_hf.reporting.reading import read_runs
from delrec_hf.runs.recipe import load_recipe
from delrec_hf.runs.stages import PARTS
from tests.runs.films import STAGES, SYSTEMS, stages_run


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
        "audit.json",
        "candidates",
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
    trainings = ["finetune/lora-only", "finetune/delrec"]
    assert list(record["stages"]) == [*STAGES[:-2], *trainings, *STAGES[-2:]]
    for stage in record["stages"].values():
        assert set(stage) == {"format_version", "fingerprint", "settings", "seconds"}


@pytest.mark.slow
def test_the_recipe_that_a_report_shows_runs_nothing_again(
    finished: Path, films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (run,) = read_runs([tmp_path / "run"])
    assert run.record["machine"]["processes"] == 1
    (_, (_, recipe)) = commands(run)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    places = ["--output_dir", str(tmp_path / "run"), "--data.path", str(films)]
    shown = load_recipe(tmp_path / "recipe.yaml", places)
    assert stages_run(shown, caplog) == []


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
    titles = pq.read_table(finished / "model" / "catalogue.parquet")["title"].to_pylist()
    assert len(set(titles)) == len(titles)
    assert "\n" not in "".join(titles)
    assert len(titles[2]) <= 100
    assert titles[2].startswith("Crypt Crypt")


@pytest.mark.slow
def test_adapters_name_their_layers_in_order(finished: Path) -> None:
    for name in ("model", "lora-only"):
        config = json.loads((finished / name / "adapter_config.json").read_text())
        assert config["target_modules"] == ["q_proj", "v_proj"]
