"""What the `delrec` command answers, above all to mistakes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import delrec_hf
from delrec_hf.cli import main
from tests.data.inputs import TITLES, events, items
from tests.modeling.gguf_files import write_llama

TOY = "data: {path: toy}\nbackbone: {model_name_or_path: toy}\n"
COMMANDS = (
    "quickstart",
    "run",
    "inspect",
    "audit",
    "prepare",
    "teach",
    "distill",
    "finetune",
    "evaluate",
    "report",
    "recommend",
    "serve",
    "export",
    "backbone",
    "push",
)


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], str]:
    """A function that writes a recipe and returns its path."""

    def write(text: str = TOY) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(f"output_dir: {tmp_path / 'run'}\n{text}", encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a command, checks that it is refused properly, returns the message."""

    def run(*words: str) -> str:
        capsys.readouterr()
        assert main(words) == 2
        told = capsys.readouterr()
        assert told.out == ""
        # Beside it the log, and bars: tqdm was imported before the command could hide them.
        others = (" INFO ", " WARNING ", "%|")
        lines = [one for one in told.err.split("\n") if one and not any(x in one for x in others)]
        assert len(lines) == 1, told.err
        assert lines[0].startswith("delrec: error: ")
        return lines[0]

    return run


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)


def test_help_and_import_load_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'peft', 'trl', 'numpy', 'pandas'}"
    done = python(
        "-c",
        "import sys, delrec_hf\n"
        "from delrec_hf.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"found = {heavy} & set(sys.modules)\n"
        "assert not found, found\n",
    )
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"\n    {name}" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: delrec {name} ")


def test_the_module_is_the_command(tmp_path: Path) -> None:
    as_module = python("-m", "delrec_hf", "--version")
    script = Path(sys.executable).with_name("delrec")
    as_script = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=120)
    assert as_module.stdout == as_script.stdout == f"delrec_hf {delrec_hf.__version__}\n"
    mistake = python("-m", "delrec_hf", "distill", "--config", str(tmp_path / "absent.yaml"))
    assert mistake.returncode == 2
    assert mistake.stderr.startswith("delrec: error: recipe ")
    assert len(mistake.stderr.splitlines()) == 1


def test_unknown_command_and_flags_are_one_line(
    refused: Callable[..., str], recipe: Callable[..., str]
) -> None:
    assert "distill" in refused("distil", "--config", "r.yaml")
    assert "COMMAND" in refused()
    assert "--config" in refused("run")
    assert "`--colour` is not an option" in refused(
        "recommend",
        "--model",
        "m",
        "--colour",
        "red",
        "--history",
        "a",
    )
    assert "top_k" in refused("recommend", "--model", "m", "--history", "a", "--top_k", "many")
    assert "log_level" in refused("run", "--config", recipe(), "--log_level", "loud")
    assert "did you mean `num_virtual_tokens`?" in refused(
        "distill", "--config", recipe(), "--num_virtual_token", "4"
    )
    assert "flag `--colour` is unknown" in refused("run", "--config", recipe(), "--colour", "red")
    assert "`teach` is not a flag" in refused("run", "--config", recipe(), "teach")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOY + "distil: {learning_rat: 1}\n", "did you mean `learning_rate`?"),
        (TOY + "teecher: {}\n", "did you mean `teacher`?"),
        (TOY + "finetune: {learning_rate: fast}\n", "expected a number"),
        (TOY + "distil: {eval_strategy: sometimes}\n", "recipe section `distil` cannot be used"),
        ("data: {path: ./absent}\nbackbone: {model_name_or_path: toy}\n", "absent"),
        ("data: {path: toy, domain: cheese}\nbackbone: {model_name_or_path: toy}\n", "cheese"),
        (
            "data: {path: toy, user_column: customer}\nbackbone: {model_name_or_path: toy}\n",
            "customer",
        ),
        ("data: {path: toy}\n", "`backbone.model_name_or_path` is missing"),
    ],
)
def test_mistakes_in_a_recipe_are_one_line(
    refused: Callable[..., str], recipe: Callable[..., str], text: str, message: str
) -> None:
    assert message in refused("run", "--config", recipe(text))


def test_a_missing_column_names_those_found(
    refused: Callable[..., str], recipe: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "interactions.csv").write_text("user_id,film,timestamp\nu,f,1\n")
    (tmp_path / "films" / "items.csv").write_text("item_id,title\nf,Film\n")
    told = refused("prepare", "--config", recipe(TOY.replace("toy}", "./films}", 1)))
    assert "interactions.csv" in told
    assert "user_id, film, timestamp" in told


def test_inspect_and_a_dry_run_say_what_prepare_would_make_of_it_and_write_nothing(
    recipe: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "interactions.csv").write_text(events(after="u0,0,1600000000\n"))
    (shop / "items.csv").write_text(items())
    before = sorted(tmp_path.rglob("*"))
    flags = ["--num_candidates", "5", "--repeats", "last"]
    assert main(["inspect", str(shop), *flags]) == 0
    account = capsys.readouterr().out
    assert "6 users, 12 items (0 of them met by nobody), 36 interactions" in account
    assert "interactions with an item that the user met at another time as well: 1" in account
    assert f"u0: {' | '.join([*TITLES[1:6], TITLES[0]])}" in account
    config = recipe(f"data: {{path: {shop}}}\n")
    before += [Path(config)]
    assert main(["prepare", "--config", config, "--dry_run", *flags]) == 0
    assert capsys.readouterr().out == account
    assert sorted(tmp_path.rglob("*")) == sorted(before)


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word() -> None:
    command = f"{sys.executable} -m delrec_hf inspect toy | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "would read\n", "")


def test_a_folder_that_cannot_be_made_is_named(
    refused: Callable[..., str], recipe: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("a file")
    assert f"output_dir {tmp_path / 'run'}" in refused("run", "--config", recipe())


def test_a_stage_before_its_time_says_what_to_run(
    refused: Callable[..., str], recipe: Callable[..., str]
) -> None:
    assert "run `delrec prepare` first" in refused("distill", "--config", recipe())


def test_broken_files_of_a_run_are_named_with_the_cure(
    refused: Callable[..., str], recipe: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"stages"')
    told = refused("run", "--config", recipe())
    assert "run.json is not valid JSON" in told
    assert "remove it" in told


def test_flags_win_over_the_recipe(
    recipe: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--num_candidates", "7", "--data.seed=3", "--output_dir", str(tmp_path / "other"))
    assert main(["prepare", "--config", recipe(), *flags]) == 0
    told = capsys.readouterr().err
    assert "prepare: reads toy" in told
    assert f"prepare: wrote {tmp_path / 'other' / 'data'} in " in told
    info = json.loads((tmp_path / "other" / "data" / "info.json").read_text())
    assert (info["num_candidates"], info["seed"]) == (7, 3)
    assert not (tmp_path / "run").exists()


def test_a_fault_is_no_mistake(
    recipe: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe()
    assert main(["prepare", "--config", path]) == 0
    for part in (tmp_path / "run" / "data").rglob("*.arrow"):
        part.write_bytes(b"")
    with pytest.raises(pa.ArrowInvalid):  # which ends a process with a traceback and exit code 1
        main(["teach", "--config", path, "--type", "popularity"])
    assert "delrec: error" not in capsys.readouterr().err


def test_recommend_names_an_unknown_model(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "is no DELRec model" in refused(
        "recommend", "--model", str(tmp_path), "--history", "Heat"
    )


def test_recommend_suggests_titles_and_prints_a_ranking(
    refused: Callable[..., str],
    make_artefact: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    titles = {"a": "Heat", "b": "Alien", "c": "Aliens", "d": "Jaws", "e": "Fargo"}
    model = str(make_artefact(titles=titles))
    assert 'did you mean "Alien", "Aliens"?' in refused(
        "recommend", "--model", model, "--history", "Alienz"
    )
    words = ("recommend", "--model", model, "--history", "Heat", "b", "--top_k", "2", "--json")
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 2
    assert not {one["item_id"] for one in found} & {"a", "b"}


def test_recommend_takes_titles_that_look_like_options(
    refused: Callable[..., str],
    make_artefact: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    titles = {"a": "-30-", "b": "--help", "c": "-h", "d": "--json", "e": "--Wait=1", "f": "Fargo"}
    titles |= {"g": "- and on", "h": "--"}
    model = str(make_artefact(titles=titles))

    def candidates(*words: str) -> set[str]:
        capsys.readouterr()
        assert main(("recommend", "--model", model, *words)) == 0
        return {one["item_id"] for one in json.loads(capsys.readouterr().out)}

    offered = ("--candidates", "--help", "-h", "--Wait=1", "- and on", "title:--", "--json")
    assert candidates("--history", "-30-", "Fargo", *offered) == {"b", "c", "e", "g", "h"}
    assert candidates(*offered, "--history", "-30-", "--top_k=1", "--device", "cpu")
    spelt_out = ("--history=-30-", "--history", "-h", "--candidates=--json", "--candidates=--help")
    assert candidates(*spelt_out, "--json") == {"b", "d"}
    assert candidates("--history", "title:--json", "--candidates", "Fargo", "--json") == {"f"}
    assert 'not among the 8 known items; did you mean "-30-"' in refused(
        "recommend", "--model", model, "--history", "-31-"
    )


def test_recommend_takes_no_misspelt_option_for_a_title(refused: Callable[..., str]) -> None:
    words = ("recommend", "--model", "m", "--history", "a")
    told = refused(*words, "--topk", "3")
    assert "`--topk` is not an option; did you mean `--top_k`?" in told
    assert "`title:--topk`" in told
    assert "--candidates: expected at least one" in refused(*words, "--candidates", "--json")
    assert "--history: expected at least one" in refused(*words, "--history")
    assert "required: --model" in refused("recommend", "--history", "--help")


def test_backbone_writes_a_folder_or_one_line(
    refused: Callable[..., str], tiny_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    whole = write_llama(tmp_path / "whole.gguf", tiny_backbone("llama"))
    words = ("--output_dir", str(tmp_path / "out"))
    assert "absent.gguf is not there" in refused("backbone", "--gguf", "absent.gguf", *words)
    assert "torch_dtype" in refused("backbone", "--gguf", "x", *words, "--torch_dtype", "int4")
    given = ("--torch_dtype", "bfloat16", "--licence", "mit", "--source", "someone/chat")
    assert main(("backbone", "--gguf", str(whole), *words, *given)) == 0
    record = json.loads((tmp_path / "out" / "gguf_source.json").read_text())
    assert (record["torch_dtype"], record["licence"]) == ("bfloat16", "mit")
    assert record["source"] == "someone/chat"
    assert "is not an empty folder" in refused("backbone", "--gguf", str(whole), *words)
    # What transformers says of missing weights in a table must not stand beside our line.
    gap = write_llama(
        tmp_path / "gap.gguf", tiny_backbone("llama"), without=["blk.0.ffn_up.weight"]
    )
    done = python("-m", "delrec_hf", "backbone", "--gguf", str(gap), "--output_dir", f"{gap}.out")
    assert done.returncode == 2
    assert done.stderr.startswith("delrec: error: GGUF file ")
    assert len(done.stderr.splitlines()) == 1


def test_push_names_a_broken_results_file(
    refused: Callable[..., str], make_artefact: Callable[..., Path]
) -> None:
    model = make_artefact()
    (model / "results.json").write_text('{"systems": {')
    told = refused("push", "--model", str(model), "--repo_id", "me/films", "--dry_run")
    assert "results.json" in told
    shutil.rmtree(model)
    assert str(model) in refused("push", "--model", str(model), "--repo_id", "me/films")
