"""The systems that compare.py can run, and how each is started."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from delrec_hf.errors import InputError, suggest
from delrec_hf.hashes import fingerprint

HERE = Path(__file__).resolve().parent
PEERS = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser"}
BASELINES = ("popularity", "markov", "co-occurrence")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class System:
    """Something that trains and scores.

    Attributes:
        name: What the table calls it.
        arguments: What its script is started with, without data, folder and seed.
        settings: Stands for its settings; empty where the name says them all.
    """

    name: str
    arguments: tuple[str, ...]
    settings: str = ""

    @property
    def is_peer(self) -> bool:
        """Whether it runs in the peer's environment."""
        return self.name.startswith("recbole/")

    @property
    def is_seeded(self) -> bool:
        """Whether another seed gives another result."""
        return self.name not in BASELINES

    def run_name(self, seed: int) -> str:
        """Return the name of the folder of a run."""
        text = "-".join(filter(None, (self.name, self.settings)))
        return text.replace("=", "").translate(str.maketrans("/ ", "--")) + f"-seed{seed}"


def system(spec: str) -> System:
    """Read one word of the command line.

    `recbole/gru4rec`, `recbole/sasrec:length=50,batch=2048`, the path of a recipe with a section
    `teacher` (`R.yaml:hidden_size=64,horizon=3` changes keys of it), or the name of a baseline.

    Raises:
        InputError: If it is none of these.

    >>> system("recbole/gru4rec").run_name(1)
    'recbole-gru4rec-length10-batch256-seed1'
    """
    if spec in BASELINES:
        return System(spec, ("--type", spec))
    if spec.startswith("recbole/"):
        return _peer(spec)
    place, _, rest = spec.partition(":")
    path = Path(place)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        names = (*BASELINES, *(f"recbole/{name}" for name in PEERS))
        raise InputError(
            f"system `{spec}` is unknown; expected a recipe's path, or one of {', '.join(names)}"
            f"{suggest(spec, names)}"
        )
    section = yaml.safe_load(path.read_text(encoding="utf-8")).get("teacher", {})
    section = {"type": section} if isinstance(section, str) else section
    changes = _changes(spec, rest)
    flags = [word for key, value in changes.items() for word in (f"--teacher.{key}", value)]
    arguments = ("--recipe", str(path.resolve()), *flags)
    name = " ".join([f"delrec_hf/{path.stem}", *(f"{k}={v}" for k, v in changes.items())])
    return System(name, arguments, fingerprint({**section, **changes})[:8])


def _changes(spec: str, rest: str) -> dict[str, str]:
    """Split `key=value,key=value`."""
    pairs = [part.partition("=") for part in filter(None, rest.split(","))]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise InputError(f"system `{spec}`: `{key}{equals}{value}` is not KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _peer(spec: str) -> System:
    name, _, rest = spec.removeprefix("recbole/").partition(":")
    given = {"length": "10", "batch": "256"}
    for key, value in _changes(spec, rest).items():
        if key not in given or not value.isdigit():
            raise InputError(
                f"system `{spec}`: `{key}={value}` is not length=NUMBER or batch=NUMBER"
            )
        given[key] = value
    if name not in PEERS:
        raise InputError(f"system `{spec}`: expected one of {', '.join(PEERS)} after recbole/")
    words = tuple(word for key, value in given.items() for word in (f"--{key}", value))
    shown = " ".join(f"{key}={value}" for key, value in given.items())
    return System(f"recbole/{name} {shown}", ("--model", PEERS[name], *words))


def run(
    system: System,
    seed: int,
    data: Path,
    exported: Path,
    folder: Path,
    peers: Path,
    cap: str | None,
) -> None:
    """Train and score a system in a process of its own; `folder` gets result.json and scores.npy.

    Raises:
        InputError: If it fails; the message says where its log is.
    """
    shutil.rmtree(folder, ignore_errors=True)  # half a run would be timed from its middle
    folder.mkdir(parents=True)
    if system.is_peer:
        command = [str(peer_python(peers)), str(HERE / "recbole_peer.py"), "--data", str(exported)]
        command += ["--max_cpu_seconds", cap] if cap else []
    else:
        command = [sys.executable, str(HERE / "our_teacher.py"), "--data", str(data)]
    command += ["--out", str(folder), "--seed", str(seed), *system.arguments]
    paths = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {} if system.is_peer else {"PYTHONPATH": os.pathsep.join(paths)}
    log = folder / "log.txt"
    with log.open("w") as stream:
        environment = {**os.environ, **ONE_THREAD, **ours}
        done = subprocess.run(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    if done.returncode or not (folder / "result.json").is_file():
        raise InputError(f"{system.name} failed (exit code {done.returncode}); see {log}")


def peer_python(peers: Path) -> Path:
    """Return the python of the peer's environment, made first where there is none.

    Raises:
        InputError: If it cannot be made.
    """
    python = peers / "recbole" / "bin" / "python"
    found = [str(python), "-c", "import recbole"]
    if python.exists() and not subprocess.run(found, capture_output=True).returncode:
        return python
    base = next(filter(None, map(shutil.which, ("python3.11", "python3.10"))), None)
    if base is None:
        raise InputError("RecBole needs Python 3.10 or 3.11; put one of them on the PATH")
    peers.mkdir(parents=True, exist_ok=True)
    pins = ["-r", str(HERE / "requirements-recbole.txt")]
    made = subprocess.run([base, "-m", "venv", "--clear", str(peers / "recbole")])
    if made.returncode or subprocess.run([python, "-m", "pip", "install", *pins]).returncode:
        raise InputError(f"RecBole could not be installed into {peers / 'recbole'}; see above")
    return python
