"""Every command and snippet of the README does what it says."""

import json
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest

from delrec_hf.cli import main
from delrec_hf.data.toy_world import toy_world
from delrec_hf.runs.order import STAGES
from tests.modeling.gguf_files import write_llama

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FEW_STEPS = (
    "--distil.max_steps 4 --distil.eval_steps 2 --distil.save_steps 2 --finetune.max_steps 4 "
    "--finetune.num_train_epochs 1 --data.train_prefixes 1 --teacher.num_train_epochs 1 "
    "--evaluate.max_users 20 --distil.max_validation_users 20 --finetune.max_validation_users 20"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(start: str) -> list[str]:
    lines = [
        line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith(start)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout, with a quickstart done: the one given, or a short one."""
    place = tmp_path_factory.mktemp("readme")
    for name in ("recipes", "constraints.txt"):
        (place / name).symlink_to(ROOT / name)
    given = os.environ.get("DELREC_QUICKSTART")
    if given:
        shutil.copytree(ROOT / given, place / "runs" / "quickstart")
    else:
        delrec(f"delrec quickstart {FEW_STEPS}", place)
    return place


def delrec(command: str, folder: Path) -> None:
    """Run a command of `delrec` in a folder, in this process."""
    script, *words = shlex.split(command)
    assert script == "delrec"
    with chdir(folder):
        assert main(words) == 0, command


def run_code(code: str, folder: Path) -> None:
    """Run a program in a folder, with names of its own, in this process."""
    program = folder / "snippet.py"
    program.write_text(code, encoding="utf-8")
    with chdir(folder):
        runpy.run_path(str(program), run_name="__main__")


def run(command: str, folder: Path) -> str:
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_make_commands_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = [c.split()[1] for c in commands("make ")]
    assert named == ["quickstart", "test", "smollm2"]
    assert set(named) <= set(targets)


def test_a_gguf_file_becomes_a_backbone(
    tiny_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    write_llama(tmp_path / "model.gguf", tiny_backbone("llama"))
    (command,) = commands("delrec backbone")
    delrec(command, tmp_path)
    assert (tmp_path / "runs" / "backbones" / "mine" / "model.safetensors").is_file()


@pytest.mark.slow
def test_snippets_run(folder: Path) -> None:
    for snippet in blocks("python"):
        run_code(snippet, folder)


@pytest.mark.slow
def test_the_lines_with_peft_alone_give_the_logits_of_the_model(folder: Path) -> None:
    (lines,) = [snippet for snippet in blocks("python") if "import PeftModel" in snippet]
    compare = """
import torch
from delrec_hf.modeling.stacked import DelRecModel

ids = torch.tensor([[5, 30, 77, 200, 9, 41]])
ours = DelRecModel.from_pretrained("runs/quickstart/model")
with torch.inference_mode():
    found, expected = model(input_ids=ids).logits, ours(input_ids=ids).logits
torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
"""
    run_code(lines + compare, folder)


@pytest.mark.slow
def test_commands_on_a_finished_model_run(folder: Path) -> None:
    used = [c for c in commands("delrec ") if "runs/quickstart/model" in c]
    servers = {c.split()[1]: c for c in used if c.startswith(("delrec serve ", "delrec demo "))}
    used = [c for c in used if c not in servers.values()]
    assert {c.split()[1] for c in used} == {"recommend", "explain", "export", "push"}
    for command in used:
        delrec(command, folder)
    (ask,) = commands("curl ")
    with answering(servers["serve"], "serving", folder) as port:
        found = json.loads(run(ask.replace("8000", port), folder))
    assert len(found["recommendations"]) == 5
    pytest.importorskip("gradio", reason="needs gradio, which the extra `dev` brings")
    with answering(servers["demo"], "showing", folder) as port:
        assert "DELRec" in run(f"curl --silent http://127.0.0.1:{port}/", folder)


@contextmanager
def answering(command: str, says: str, folder: Path) -> Iterator[str]:
    """Start a server on a free port, the usual one may be taken; it ends when it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    process = subprocess.Popen(
        shlex.split(f"{Path(sys.executable).parent}/{command} --port {port}"),
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert any(f"{says} runs/quickstart/model" in line for line in process.stderr)
        yield port
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()


@pytest.mark.slow
def test_a_finished_run_has_a_report(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    (command,) = commands("delrec report")
    delrec(command, folder)
    assert (folder / "runs" / "quickstart" / "report.html").is_file()


@pytest.mark.slow
def test_the_recipe_of_ones_own_runs_alone_and_launched(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = toy_world()
    mine = folder / "data" / "mine"
    mine.mkdir(parents=True)
    users = [f"u{number}" for number in range(1, 61)]
    seen = world.interactions["user_id"].isin(users)
    world.interactions[seen].to_csv(mine / "interactions.csv", index=False)
    world.items.to_csv(mine / "items.csv", index=False)
    # No Hub here: the recipe's backbone is replaced by the toy one.
    recipe = blocks("yaml")[0].replace("Qwen/Qwen3-0.6B", "toy")
    (folder / "mine.yaml").write_text(recipe, encoding="utf-8")
    (inspect,) = commands("delrec inspect")
    delrec(inspect, folder)
    assert "60 users, 192 items" in capsys.readouterr().out
    flags = f"{FEW_STEPS} --data.num_candidates 10 --distil.num_virtual_tokens 4"
    alone, short = commands("delrec run")
    delrec(f"{alone} {flags}", folder)
    assert (folder / "runs" / "mine" / "results.json").is_file()
    # No GPUs here either: two CPU processes in their place, which find every stage finished.
    (launched,) = commands("accelerate launch")
    for command in (launched.replace("ddp.yaml", "cpu.yaml"), short.replace("ddp", "cpu")):
        log = run(f"{command} {flags} 2>&1", folder)
        assert "2 processes share the work" in log
        assert log.count("finished before, skipped") == len(STAGES)
