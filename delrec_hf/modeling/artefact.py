"""The folder that a finished model lives in, and the facts that travel with it."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from delrec_hf.errors import InputError
from delrec_hf.files import read_json, write_json
from delrec_hf.hashes import cached_content_hash
from delrec_hf.instructions.templates import TEMPLATE_VERSION, Domain
from delrec_hf.logging import get_logger

FORMAT_VERSION = 3
_READ = (1, 2, 3)  # 1 recorded no quantisation of the backbone; 1 and 2 held no teacher
CONFIG_FILE = "delrec_config.json"
CATALOGUE_FILE = "catalogue.parquet"
TEACHER_FOLDER = "teacher"
TEACHER_FILES = ("teacher.json", "config.json", "model.safetensors")
INDEX_FILE = "co_occurrence.safetensors"

logger = get_logger(__name__)


@dataclass(frozen=True)
class ArtefactConfig:
    """What `delrec_config.json` holds.

    Attributes:
        base_model: `name`, `revision`, `sha256`, `torch_dtype`, `quantization`, `gguf` of the
            backbone, see `describe_backbone`; the last three are missing where an earlier version
            wrote it.
        teacher: The teacher's `type` and settings.
        domain: How the items are spoken about.
        history_length: How many items a prompt shows at most.
        num_candidates: How many candidates the prompts of training showed.
        scoring: `sum` or `mean` of the log-probabilities of a title's tokens, or `calibrated`: the
            sum less `calibration_weight` times the title's `log_prior` in the catalogue.
        data: Dataset, terms, split, seed and sizes.
        distil: Settings of stage 1.
        finetune: Settings of stage 2.
        versions: Versions of the libraries it was made with.
        candidates: `listed` in the prompts, or `unlisted`.
        turns: Whether prompts tell the history as a chat.
        prompt_teacher: What prompts show of the teacher: `none`, `order` or `list`.
        calibration_weight: See `scoring`.
        fusion: How its scores and those of the teacher in `teacher/`, or of the co-occurrence index
            beside it, are weighed together, as `delrec evaluate` found it on validation users, see
            `Fusion.to_dict`; None: not measured, or neither is there.
        template_version: Version of the prompts' wording.
        format_version: Version of this layout.
    """

    base_model: dict[str, Any]
    teacher: dict[str, Any]
    domain: Domain
    history_length: int
    num_candidates: int
    scoring: Literal["sum", "mean", "calibrated"]
    data: dict[str, Any]
    distil: dict[str, Any]
    finetune: dict[str, Any]
    versions: dict[str, str]
    candidates: str = "listed"
    prompt_teacher: str = "none"
    turns: bool = False
    calibration_weight: float = 0.0
    fusion: dict[str, Any] | None = None
    template_version: int = TEMPLATE_VERSION
    format_version: int = FORMAT_VERSION

    def save(self, folder: Path) -> None:
        """Write `delrec_config.json`."""
        write_json(folder / CONFIG_FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "ArtefactConfig":
        """Read `delrec_config.json`.

        Raises:
            InputError: If it is missing, broken, or of a version that this code cannot read.
        """
        path = folder / CONFIG_FILE
        if not path.is_file():
            raise InputError(f"{folder} is no DELRec model: {CONFIG_FILE} is missing")
        try:
            content = read_json(path)
            version = content["format_version"]
            if version not in _READ:
                raise InputError(
                    f"{path} has format version {version}; this delrec_hf reads "
                    f"{_READ[0]} to {_READ[-1]}, install the version that the model's card "
                    "names"
                )
            content["domain"] = Domain(**content["domain"])
            config = cls(**content)
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        return config

    def warn_of_age(self, folder: Path) -> None:
        """Say in the log what a model of another version may do otherwise here than measured."""
        if self.format_version < 2:
            logger.warning(
                "%s was written by an earlier version, which recorded no quantisation; if it was "
                "trained on a quantised backbone, say so with load_in_4bit (--load_in_4bit)",
                folder,
            )
        if self.template_version != TEMPLATE_VERSION:
            logger.warning(
                "%s was trained on prompts of template version %s; this delrec_hf writes version "
                "%s, so its rankings may be worse than measured",
                folder,
                self.template_version,
                TEMPLATE_VERSION,
            )


def hold_teacher(teacher: Path, folder: Path) -> bool:
    """Copy a neural teacher into an artefact, without its predictions.

    Teachers that count hold the training interactions, and ranked lists know the histories they
    were made for alone: neither goes with the model, and the log says so.

    Args:
        teacher: What `train_teacher` wrote.
        folder: The artefact.

    Returns:
        Whether the model has its teacher now.
    """
    if not all((teacher / name).is_file() for name in TEACHER_FILES):
        logger.info(
            "the model goes without its teacher, which has no weights: it cannot rank as "
            "delrec+teacher"
        )
        return False
    (folder / TEACHER_FOLDER).mkdir()
    for name in TEACHER_FILES:
        shutil.copyfile(teacher / name, folder / TEACHER_FOLDER / name)
    return True


def read_catalogue(folder: Path) -> dict[str, list[Any]]:
    """Return the items of an artefact by column: `item_id`, `title` and, if measured, `log_prior`.

    Raises:
        InputError: If the artefact names none.
    """
    if not (folder / CATALOGUE_FILE).is_file():
        raise InputError(
            f"{folder} holds no {CATALOGUE_FILE}, which names the items; load the folder or "
            "repository that `delrec finetune` wrote"
        )
    columns: dict[str, list[Any]] = pq.read_table(folder / CATALOGUE_FILE).to_pydict()
    return columns


def artefact_folder(model: str | Path, revision: str | None = None) -> Path:
    """Return the folder of an artefact, from disk or downloaded from the Hub.

    Args:
        model: Folder or Hub id.
        revision: Commit, tag or branch on the Hub.

    Raises:
        InputError: If there is no such folder and no such repository.
    """
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(str(model), revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"model `{model}` is neither a folder nor a repository that can be reached: {reason}"
        ) from error


def resolve_base_model(
    config: ArtefactConfig, folder: Path, override: str | None = None
) -> tuple[str, str | None]:
    """Return the backbone's Hub id or path, and its revision.

    Args:
        config: The artefact's facts.
        folder: The artefact's folder; a local backbone's path starts there.
        override: Another place of the backbone, in place of the recorded one.

    Raises:
        InputError: If a local backbone is missing or its weights are not the recorded ones.
    """
    wanted = config.base_model
    if wanted["sha256"] is None:
        return (override, None) if override else (wanted["name"], wanted["revision"])
    place = Path(override) if override else folder / wanted["name"]
    if override and not place.is_dir():
        return override, None
    if not place.is_dir():
        raise InputError(
            f"the backbone of {folder} is not at {place}; give its folder with base_model "
            "(--base_model on the command line)"
        )
    if weights_hash(place) != wanted["sha256"]:
        raise InputError(
            f"the weights in {place} are not those that {folder} was trained on (their sha256 "
            "differs); give the right folder with base_model (--base_model on the command line)"
        )
    return str(place), None


def weights_hash(folder: Path) -> str:
    """Return the sha256 of the safetensors files of a folder, with their names."""
    return cached_content_hash(*sorted(folder.glob("*.safetensors")))
