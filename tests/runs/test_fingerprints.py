"""What makes a stage run again: settings with their defaults, inputs, wording; nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delrec_hf.checkpoints import deciding_settings
from delrec_hf.data.config import DataConfig
from delrec_hf.errors import InputError
from delrec_hf.runs import prints
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from delrec_hf.teachers.config import TeacherConfig
from delrec_hf.training.recommendation import FinetuneConfig
from tests.runs.films import STAGES, sections, stages_run, write_films

Ran = Callable[..., list[str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data and a run with its first two stages."""
    folder = tmp_path_factory.mktemp("made")
    recipe = Recipe(folder / "run", sections(write_films(folder / "films", users=12)))
    for stage in ("prepare", "teach"):
        run_recipe(recipe, stage)
    return folder


@pytest.fixture
def taught(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Ran:
    """A function that repeats `prepare` and `teach` of one run and returns what ran again."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)

    def repeat(**changes: dict[str, Any]) -> list[str]:
        recipe = Recipe(tmp_path / "run", sections(tmp_path / "films", **changes))
        ran = stages_run(recipe, caplog, "prepare")
        return ran + stages_run(recipe, caplog, "teach")

    assert repeat() == []
    return repeat


def test_a_default_that_is_written_out_changes_nothing(taught: Ran) -> None:
    data = {"seed": DataConfig(path="x").seed}
    teacher = {"patience": TeacherConfig(output_dir="x", use_cpu=True).patience, "optim": None}
    del teacher["optim"]
    assert taught(data=data, teacher=teacher) == []


def test_a_changed_default_repeats_what_it_changes(
    taught: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = TeacherConfig.__dataclass_fields__
    monkeypatch.setattr(fields["patience"], "default", 7)
    monkeypatch.setattr(TeacherConfig.__init__, "__defaults__", _with(TeacherConfig, patience=7))
    assert taught() == ["teach"]


def _with(kind: Any, **changed: Any) -> tuple[Any, ...]:
    """Return the defaults of a dataclass's `__init__`, some changed."""
    import inspect

    parameters = inspect.signature(kind.__init__).parameters.values()
    return tuple(
        changed.get(one.name, one.default) for one in parameters if one.default is not one.empty
    )


def test_trainings_finished_before_there_were_kinds_of_lora_stay_finished(
    finetune_config: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    plain, other = (
        deciding_settings(finetune_config(tmp_path, lora_type=kind)) for kind in ("lora", "dora")
    )
    assert "lora_type" not in plain
    assert other == plain | {"lora_type": "dora"}


def test_what_only_shows_things_repeats_nothing(taught: Ran) -> None:
    shown = {"disable_tqdm": True, "logging_steps": 3, "logging_strategy": "steps"}
    assert taught(teacher={**shown, "run_name": "mine", "dataloader_num_workers": 1}) == []


@pytest.mark.parametrize("name", ["TEMPLATE_VERSION", "FORMAT_VERSION"])
def test_another_wording_or_format_repeats_the_stages(
    taught: Ran, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(prints, name, 99)
    assert taught() == ["prepare", "teach"]


def test_other_lists_of_the_same_teacher_train_nothing(taught: Ran, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "teacher"
    weights = (folder / "model.safetensors").stat()
    lists = folder / "predictions" / "test-00000-of-00001.parquet"
    before = lists.read_bytes()
    assert taught(teacher={"top_h": 2, "filter_seen": False}) == ["teach"]
    assert lists.read_bytes() != before
    after = (folder / "model.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (weights.st_ino, weights.st_mtime_ns)
    assert taught(teacher={"top_h": 2, "filter_seen": False, "max_steps": 5}) == ["teach"]
    assert (folder / "model.safetensors").stat().st_ino != weights.st_ino


def test_other_folds_make_other_labels(taught: Ran, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "teacher" / "predictions"

    def lists(folds: int) -> list[bytes]:
        taught(teacher={"type": "markov", "folds": folds})
        assert taught(teacher={"type": "markov", "folds": folds}) == []
        names = [f"{part}-00000-of-00001.parquet" for part in ("train", "validation", "test")]
        return [(folder / name).read_bytes() for name in names]

    found = [lists(folds) for folds in (0, 2, 3, 0)]
    assert len({train for train, *_ in found}) == 3
    assert found[0] == found[3]
    assert all(one[1:] == found[0][1:] for one in found)


def test_the_log_says_why_a_stage_runs_again(taught: Ran, caplog: pytest.LogCaptureFixture) -> None:
    taught(teacher={"learning_rate": 0.5})
    assert "teach: runs again: teacher.learning_rate was 0.004, is 0.5" in caplog.messages


def test_a_run_of_an_earlier_version_runs_again_and_says_so(
    taught: Ran, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    for stage in record["stages"].values():
        del stage["format_version"]
        stage |= {"fingerprint": "0123456789abcdef", "settings": {"data": {"path": "films"}}}
    path.write_text(json.dumps(record))
    assert taught() == ["prepare", "teach"]
    assert "teach: runs again: an earlier version of delrec_hf finished it" in caplog.messages


def test_the_record_holds_the_defaults_too(taught: Ran, tmp_path: Path) -> None:
    stages = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]
    assert stages["teach"]["settings"]["teacher"]["patience"] == 4
    assert stages["prepare"]["settings"]["data"]["max_title_characters"] == 100


def test_other_machines_settings_repeat_nothing(tmp_path: Path) -> None:
    """Where a run is continued does not decide what it makes."""
    films = write_films(tmp_path / "films", users=12)
    given = sections(films, teacher={"type": "popularity"})
    run_recipe(Recipe(tmp_path / "run", given), "prepare")
    run_recipe(Recipe(tmp_path / "run", given), "teach")
    moved = sections(films, teacher={"type": "popularity", "use_cpu": True, "ddp_timeout": 7})
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    run_recipe(Recipe(tmp_path / "run", moved), "teach")
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == before


@pytest.mark.slow
def test_a_finished_run_repeats_nothing(again: Callable[..., list[str]]) -> None:
    assert again() == []
    # What only shows on the terminal makes no difference.
    assert again(distil={"logging_steps": 2, "disable_tqdm": True}) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "ran"),
    [
        ({"evaluate": {"scoring": "calibrated"}}, STAGES[3:]),
        ({"instructions": {"candidates": "unlisted"}}, STAGES[2:]),
        ({"finetune": {"lora_r": 4, "controls": []}}, STAGES[4:]),
        ({"distil": {"num_virtual_tokens": 5}}, STAGES[3:]),
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


@pytest.mark.slow
def test_a_control_more_trains_that_one_alone(
    again: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = {"finetune": {"controls": ["lora-only", "random-prompt"]}}
    assert again(**more) == ["finetune", "evaluate"]
    said = [one for one in caplog.messages if one.startswith("finetune/")]
    assert [one.split(" in ")[0] for one in said if "skipped" in one or "wrote" in one] == [
        "finetune/lora-only: finished before, skipped",
        f"finetune/random-prompt: wrote {tmp_path / 'run' / 'random-prompt'}",
        "finetune/delrec: finished before, skipped",
    ]
    again(**more, distil={"num_virtual_tokens": 5})
    assert "finetune/lora-only: finished before, skipped" in caplog.messages
    assert any(one.startswith("finetune/delrec: wrote") for one in caplog.messages)


@pytest.mark.slow
def test_a_run_takes_what_another_has_made_of_the_same_settings(
    finished: Path, films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = sections(films, distil={"num_virtual_tokens": 5})
    recipe = Recipe(tmp_path / "run", given, siblings=(tmp_path / "nothing", finished))
    assert stages_run(recipe, caplog) == ["distil", "finetune", "evaluate"]
    copied = [one for one in caplog.messages if "copied from" in one]
    assert [one.split(":")[0] for one in copied] == [
        *("prepare", "teach", "calibrate", "finetune/lora-only")
    ]
    for name in ("lora-only/adapter_model.safetensors", "logs/lora-only.json"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert stages_run(recipe, caplog) == []


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
