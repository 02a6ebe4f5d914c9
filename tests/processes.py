"""Runs a function in one new process or in several that know each other, as a launcher starts them.

Each process is a copy of a server that has loaded the heavy libraries, and nothing else: as fresh
as a new interpreter, without the seconds that its imports take.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore
from torch.multiprocessing import start_processes

from delrec_hf.cli import main

LIBRARIES = ["pandas", "bitsandbytes", "trl.trainer.sft_trainer", "delrec_hf.runs.study"]
LIMIT = 600
"""Seconds until processes count as locked up."""


def run_in(processes: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run a function of a module and see that it ends well; each process has one thread.

    Args:
        processes: Their number.
        function: What each of them calls.
        arguments: What they call it with.
    """
    multiprocessing.set_forkserver_preload(LIBRARIES)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    given = (processes, store.port, function, arguments)
    started = start_processes(_call, given, nprocs=processes, join=False, start_method="forkserver")
    end = time.monotonic() + LIMIT
    try:
        while not started.join(timeout=1, grace_period=5):
            assert time.monotonic() < end, "the processes never ended"
    finally:
        for one in started.processes:
            one.kill()


def _call(
    rank: int, processes: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    if processes > 1:  # what torch's elastic agent tells its processes
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
    function(*arguments)


def start_command(words: list[str], log: Path, *, as_nobody: bool = False) -> BaseProcess:
    """Start `delrec` in a process group of its own; what it prints goes to a file.

    Args:
        words: The command line, without `delrec`.
        log: The file; what is there is replaced.
        as_nobody: Take the rights of root from it, if it has them.
    """
    multiprocessing.set_forkserver_preload(LIBRARIES)
    start = multiprocessing.get_context("forkserver")
    process = start.Process(target=_command, args=(words, log, as_nobody))
    process.start()
    return process


def _command(words: list[str], log: Path, as_nobody: bool) -> None:
    os.setsid()
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    if as_nobody and os.geteuid() == 0:
        os.setuid(65534)
    torch.set_num_threads(1)
    sys.argv = ["delrec", *words]
    sys.exit(main())
