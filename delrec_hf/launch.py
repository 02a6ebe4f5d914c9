"""A command in several processes: `--accelerate_config`, and one word for all of them.

`accelerate launch` answers a mistake with its own traceback and exit code 1, and each process that
meets the mistake names it. Started by `--accelerate_config`, the processes leave what they met to
the launcher, in the files that torch's elastic agent keeps for this, and the launcher says it once.
"""

import atexit
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from delrec_hf.errors import InputError, suggest
from delrec_hf.logging import get_logger
from delrec_hf.resources import resource

_LAUNCHED = "DELREC_LAUNCHED"  # set for the processes of `launch`: it speaks for them
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # set by the elastic agent for each of its processes

logger = get_logger(__name__)


def launch(config: str, words: Sequence[str]) -> int:
    """Run a command of `delrec` in the processes that an accelerate config describes.

    Args:
        config: A file that `accelerate config` wrote, or the name of one in
            `recipes/accelerate_configs`.
        words: The command line, without `--accelerate_config`.

    Returns:
        The command's exit code: 2 if a process met bad input, after its line.

    Raises:
        InputError: If there is no such config, or accelerate cannot use it.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from yaml import YAMLError

    path = _find(config)
    given = ["--config_file", str(path), "--module", "delrec_hf", *words]
    arguments = launch_command_parser().parse_args(given)
    os.environ[_LAUNCHED] = "1"
    logging.disable()  # only the processes that are started have something to say
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as failed:  # a single process, which has said why
        return failed.returncode if failed.returncode in (2, 130) else 1
    except ChildFailedError as failed:
        return _code_of(failed.failures)
    except SignalException as signalled:
        raise KeyboardInterrupt from signalled
    except (ImportError, OSError, ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"accelerate cannot start with {path}: {reason}") from error
    finally:
        logging.disable(logging.NOTSET)
        del os.environ[_LAUNCHED]
    return 0


def tell(line: str) -> None:
    """Say what ended this command: once, whatever the number of its processes.

    Args:
        line: Goes to stderr, or to the launcher that speaks for this process.
    """
    leave(line)
    is_first = os.environ.get("RANK", "0") == "0"
    is_told_for = _LAUNCHED in os.environ and os.environ.get(_ERROR_FILE)
    if is_first and not is_told_for:
        print(line, file=sys.stderr)
    else:
        logger.debug("process %s: %s", os.environ.get("RANK"), line)


def leave(line: str) -> None:
    """Leave what ended this process, one of several, for the launcher and the other processes."""
    place = os.environ.get(_ERROR_FILE)
    if place:
        told = {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(place).write_text(json.dumps({"message": told}), encoding="utf-8")


def part(code: int) -> None:
    """End a process that works with others, once it has nothing more to do; another one goes on.

    The interpreter's own end is skipped: threads of gloo that then still hold tensors abort a
    process that has succeeded, or lock it up (https://github.com/pytorch/pytorch/issues/190489).
    What was registered to run at the end runs.

    Args:
        code: The exit code.
    """
    if "RANK" not in os.environ:  # one process alone: torch need not be imported
        return
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def another_failed() -> bool:
    """Say whether another process of this launch has left what ended it.

    A process that ends takes the others' connections with it. What they then complain of is no
    fault of theirs, and would hide what the first one said.
    """
    place = os.environ.get(_ERROR_FILE)
    if not place:
        return False
    own = Path(place)  # .../attempt_0/RANK/error.json
    return any(one != own for one in own.parent.parent.glob(f"*/{own.name}"))


def _find(config: str) -> Path:
    shipped = resource("recipes/accelerate_configs")
    names = sorted(path.stem for path in shipped.glob("*.yaml"))
    path = shipped / f"{config}.yaml" if config in names else Path(config)
    if not path.is_file():
        raise InputError(
            f"`--accelerate_config {config}` is no file and none of {', '.join(names)}"
            f"{suggest(config, names)}"
        )
    return path


def _code_of(failures: Mapping[int, Any]) -> int:
    """Return the exit code for processes that failed, after the line that says why.

    Args:
        failures: Rank to torch's `ProcessFailure`.
    """
    told = [
        failures[rank].message["message"]
        for rank in sorted(failures)
        if failures[rank].exitcode == 2 and isinstance(failures[rank].message, dict)
    ]
    if told:
        tell(told[0])
        return 2
    rank = min(failures, key=lambda one: failures[one].timestamp)
    code = failures[rank].exitcode
    end = f"exit code {code}" if code > 0 else failures[rank].signal_name()
    tell(f"delrec: process {rank} ended with {end}; what it wrote stands above")
    return 1
