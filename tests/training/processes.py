"""Starts a script of this folder in one process or in several."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH_CONFIG = ROOT / "recipes" / "accelerate_configs" / "cpu.yaml"


def run_in(processes: int, script: str, *words: str) -> None:
    """Run a script and see that it ends well; each process has one thread."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "accelerate.commands.launch", "--config_file", str(LAUNCH_CONFIG)]
        command += ["--num_processes", str(processes), "--main_process_port", "0"]
    command += ["-m", f"tests.training.{script}", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
