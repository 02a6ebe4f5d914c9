"""Commands of `delrec` in processes of their own, started as users start them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).parents[1] / "recipes" / "accelerate_configs"


def run(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; return its exit code, output and log."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, log = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the launcher's processes wait for each other
        raise AssertionError(f"never ended: {process.communicate()[1][-3000:]}") from None
    return subprocess.CompletedProcess(words, process.returncode, out, log)


def write_recipe(folder: Path, given: dict[str, Any]) -> str:
    """Write a recipe beside the folder that its run will have."""
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump({"output_dir": str(folder), **given}), encoding="utf-8")
    return str(recipe)


def delrec(*words: str, config: str = "cpu", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the short form."""
    short = [sys.executable, "-m", "delrec_hf", *words, "--accelerate_config", config]
    return run(short, **variables)


def accelerate_launch(
    *words: str, config: str = "cpu", module: str = "delrec_hf"
) -> subprocess.CompletedProcess[str]:
    """Run a command in the long form."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    launcher += ["--config_file", str(CONFIGS / f"{config}.yaml")]
    return run([*launcher, "-m", module, *words])
