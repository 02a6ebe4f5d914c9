"""Sending an artefact, and nothing but the artefact, to the Hub."""

import fnmatch
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

# There for everybody, and not in the list that the type checker reads.
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from delrec_hf.errors import InputError
from delrec_hf.files import write_text
from delrec_hf.hub.cards import RESULTS_FILE, model_card, read_facts
from delrec_hf.logging import get_logger
from delrec_hf.modeling.artefact import CONFIG_FILE, INDEX_FILE, TEACHER_FILES, TEACHER_FOLDER
from delrec_hf.reporting.reading import PICTURE_FILE

if TYPE_CHECKING:  # torch is not needed to send a folder
    from delrec_hf.modeling.stacked import DelRecModel

logger = get_logger(__name__)

CARD_FILE = "README.md"
REQUIRED = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "prompt/adapter_config.json",
    "prompt/adapter_model.safetensors",
    CONFIG_FILE,
    "tokenizer_config.json",
)
"""Files without which a folder is no artefact."""

OPTIONAL = (
    RESULTS_FILE,
    PICTURE_FILE,
    "catalogue.parquet",
    *(f"{TEACHER_FOLDER}/{name}" for name in TEACHER_FILES),
    INDEX_FILE,
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
"""Files that an artefact may hold beside them; most are those that tokenizers write."""

_WITH_PATHS = (
    "adapter_config.json",
    "prompt/adapter_config.json",
    f"{TEACHER_FOLDER}/teacher.json",
    f"{TEACHER_FOLDER}/config.json",
    CONFIG_FILE,
    RESULTS_FILE,
)


def push(
    model: "str | Path | DelRecModel",
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
) -> None:
    """Write the card of an artefact, then send its files to the Hub in one commit.

    The token is the one of `hf auth login` or of the environment (HF_TOKEN).

    Args:
        model: Folder of a model, or a model loaded from one: then its files are sent with the
            adapters as they are now, and the folder stays as it is.
        repo_id: OWNER/NAME on the Hub; the repository is made if it is not there.
        private: Make a new repository private; one that is there stays as it is.
        dry_run: Print the card and the files with their sizes; write and send nothing.

    Raises:
        InputError: If the folder is no artefact or holds a path of this machine, the model was
            loaded from none, the name is not OWNER/NAME, nobody is logged in, or the Hub refuses or
            cannot be reached.
    """
    if isinstance(model, str | Path):
        _push_folder(Path(model), repo_id, private, dry_run)
        return
    if model.artefact is None:
        raise InputError(
            "this model has no artefact to send; load it with DelRecModel.from_pretrained"
        )
    with tempfile.TemporaryDirectory() as aside:
        shutil.copytree(model.artefact, aside, dirs_exist_ok=True)
        name = read_facts(model.artefact / CONFIG_FILE)["base_model"]["name"]
        model.save_pretrained(aside, base_model_name=name)
        _push_folder(Path(aside), repo_id, private, dry_run)


def _push_folder(folder: Path, repo_id: str, private: bool, dry_run: bool) -> None:
    _check_repo_id(repo_id)
    names = artefact_files(folder)
    _check_paths(folder, names)
    card = model_card(folder, repo_id)
    if read_facts(folder / CONFIG_FILE)["base_model"].get("sha256") is not None:
        logger.warning(
            "the backbone of %s is a local one and is not sent; who loads the model must have it "
            "and give base_model",
            folder,
        )
    if dry_run:
        _show(folder, repo_id, names, card, private)
        return
    if get_token() is None:
        raise InputError(
            "nobody is logged in to the Hugging Face Hub; run `hf auth login` or set HF_TOKEN, or "
            "look at what would be sent with --dry_run"
        )
    write_text(folder / CARD_FILE, card)
    _send(folder, repo_id, names, private)


def artefact_files(folder: Path) -> list[str]:
    """Return the names of the files that are sent, the card first; warn about all others.

    Args:
        folder: The artefact's folder.

    Raises:
        InputError: If the folder is missing or lacks a file that every artefact has.
    """
    if not folder.is_dir():
        raise InputError(f"model {folder} is not a folder; give the folder `model` of a run")
    found = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise InputError(
            f"{folder} is no DELRec model: {', '.join(missing)} missing; give the folder `model` "
            "of a finished run"
        )
    allowed = (*REQUIRED, *OPTIONAL)
    names = [name for name in found if any(fnmatch.fnmatchcase(name, one) for one in allowed)]
    stray = [name for name in found if name not in names and name != CARD_FILE]
    if stray:
        shown = ", ".join(stray[:5]) + (f" and {len(stray) - 5} more" if len(stray) > 5 else "")
        logger.warning("not part of a DELRec model, so not sent: %s", shown)
    return [CARD_FILE, *names]


def _check_repo_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"`{repo_id}` is no name for the Hub; write OWNER/NAME: {reason}"
        ) from error
    if "/" not in repo_id:
        raise InputError(f"`{repo_id}` is no full name on the Hub; write OWNER/{repo_id}")


def _check_paths(folder: Path, names: list[str]) -> None:
    for name in names:
        if name not in _WITH_PATHS and name != "tokenizer_config.json":
            continue
        content: Any = read_facts(folder / name)
        if name == "tokenizer_config.json":  # its tokens may look like paths
            content = content.get("name_or_path")
        for text in _texts(content):
            if _is_absolute(text):
                raise InputError(
                    f"{folder / name} holds the path `{text}` of this machine, which nobody else "
                    "has; write a Hub id or a path relative to the folder there"
                )


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)


def _is_absolute(text: str) -> bool:
    r"""Say whether a text is a path that starts at a machine's root or a home folder.

    >>> [_is_absolute(text) for text in ("/data/base", "~/base", "C:\\base", "file:///base")]
    [True, True, True, True]
    >>> [_is_absolute(text) for text in ("Qwen/Qwen3-0.6B", "../backbone", "/", "~5 epochs")]
    [False, False, False, False]
    """
    if text.startswith(("~/", "file:/")):
        return True
    return len(text) > 1 and (
        PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    )


def _show(folder: Path, repo_id: str, names: list[str], card: str, private: bool) -> None:
    sizes = {name: (folder / name).stat().st_size for name in names if name != CARD_FILE}
    sizes = {CARD_FILE: len(card.encode()), **sizes}
    print(card)
    kind = "private" if private else "public"
    print(f"Dry run: to {repo_id} ({kind} if new) would go, in one commit:")
    for name, size in sizes.items():
        print(f"{size:>13,} bytes  {name}")
    print(f"{sum(sizes.values()):>13,} bytes in {len(sizes)} files. Nothing was sent.")


def _send(folder: Path, repo_id: str, names: list[str], private: bool) -> None:
    api = HfApi()
    # Not `upload_folder`: with hf_xet installed it may spread the files over several commits.
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names
    ]
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.create_commit(
            repo_id, operations, commit_message="Upload a DELRec model with delrec_hf"
        )
    except (HTTPError, OSError) as error:
        raise InputError(
            f"pushing {folder} to {repo_id} failed: {_reason(error)}; check the name, the token's "
            "right to write and the connection, then push again"
        ) from error
    logger.info("sent %s files to %s", len(names), repo_id)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    token = get_token()
    return text.replace(token, "***") if token else text
