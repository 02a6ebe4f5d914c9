"""Whether a training is still the same one, and the checkpoint that a killed one goes on from."""

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from huggingface_hub.errors import HfHubHTTPError
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

from delrec_hf.errors import InputError
from delrec_hf.files import naming, read_json, to_disk, write_json, write_text
from delrec_hf.hashes import content_hash
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

_SEAL = "seal.json"
_PUSHED = "last-checkpoint"  # what the Trainer calls it on the Hub
_TORCH_CANNOT_WRITE = ("iostream error", "PytorchStreamWriter", "inline_container")
_NO_ROOM = 2**20  # bytes; what is left of a disk that torch could not write to

_SHOWN_ONLY = (
    "disable_tqdm report_to logging_dir logging_steps logging_strategy logging_first_step "
    "logging_nan_inf_filter log_level log_level_replica log_on_each_node run_name project "
    "trackio_bucket_id trackio_space_id trackio_static_space_id push_to_hub hub_always_push "
    "hub_model_id hub_private_repo hub_revision hub_strategy hub_token "
    "include_num_input_tokens_seen skip_memory_metrics debug"
)
_PLACE_ONLY = (
    "output_dir use_cpu local_rank ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb "
    "ddp_find_unused_parameters ddp_static_graph ddp_timeout deepspeed fsdp fsdp_config "
    "parallelism_config dataloader_in_order dataloader_multiprocessing_context "
    "dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory "
    "dataloader_prefetch_factor dataset_num_proc save_on_each_node save_total_limit "
    "save_only_model enable_jit_checkpoint resume_from_checkpoint"
)
# Newer keys, with the value that changes no finished training.
_AS_BEFORE = {"lora_type": "lora", "prompt_type": "prompt_tuning"}
_WITHOUT_EFFECT = frozenset(f"{_SHOWN_ONLY} {_PLACE_ONLY}".split())


def deciding_settings(config: TrainingArguments, given: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings that decide what a training makes, defaults filled in.

    What only shows things, and where and over how many machines it runs, is left out. So is what
    is not set (None): a library's new key changes no training; nor does a new key of our own that
    says what was so before. `bf16` counts where it was given
    alone: its default depends on the machine.

    Args:
        config: The settings of a training.
        given: The keys that the user has set.
    """
    left_out = _WITHOUT_EFFECT if "bf16" in given else _WITHOUT_EFFECT | {"bf16"}
    return {
        name: value
        for name, value in config.to_dict().items()
        if value is not None and name not in left_out and _AS_BEFORE.get(name) != value
    }


class CheckpointingTrainer(Trainer):
    """A `Trainer` whose checkpoints tell whether they are whole, and are never rotated too early.

    Each holds the hashes of its files in `seal.json`, written last and before older checkpoints are
    removed. Which ones are older is told by their steps: the Trainer itself asks the clock, which
    may have been set back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_Best())

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self._is_over():  # killed behind its last step: the Trainer would take one more
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _is_over(self) -> bool:
        """Say whether the checkpoint that was gone on from is that of the last step."""
        told = self.state.stateful_callbacks.get("TrainerControl", {})
        control = told[-1] if isinstance(told, list) else told
        stopped = control.get("args", {}).get("should_training_stop", False)
        resumed = 0 < self.state.global_step == self._initial_global_step
        return resumed and (stopped or self.state.global_step >= self.state.max_steps)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial))
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with _naming_weights(checkpoint):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # each process has a file of its own there
        if self.args.should_save:
            _seal(checkpoint)
            best = self.state.best_model_checkpoint
            rotate_checkpoints(str(folder), limit, best, use_mtime=False)

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """Make the repository of `push_to_hub`.

        Raises:
            InputError: If it cannot be reached.
        """
        try:
            super().init_hf_repo(*args, **kwargs)
        except (HfHubHTTPError, OSError) as error:
            raise InputError(
                f"`push_to_hub` cannot make the repository {self.args.hub_model_id}: "
                f"{' '.join(str(error).split())}; check its name, the token's right to write and "
                "the connection, or set `push_to_hub: false`"
            ) from error

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.is_world_process_zero():
            checkpoint = Path(checkpoint_folder)
            _seal(checkpoint)  # also where it goes to
            if (checkpoint / "prompt").is_dir():  # the Trainer knows of adapters at the root alone
                beside = Path(self.args.output_dir) / "prompt"
                shutil.copytree(checkpoint / "prompt", beside, dirs_exist_ok=True)
        super()._push_from_checkpoint(checkpoint_folder)

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        pushed = getattr(self, "push_in_progress", None)
        for job in [] if pushed is None else pushed.jobs:
            if job.exception() is not None:
                logger.warning("a checkpoint was not pushed: %s", job.exception())


class _Best(TrainerCallback):
    """Finds the best checkpoint where it lies now: the Trainer forgets one that was moved."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if best.is_dir():
            state.best_model_checkpoint = str(best)


@contextmanager
def _naming_weights(checkpoint: Path) -> Iterator[None]:
    """Name a checkpoint that cannot be written; torch says no more than that it failed."""
    with naming(checkpoint):
        try:
            yield
        except RuntimeError as fault:
            if not any(words in str(fault) for words in _TORCH_CANNOT_WRITE):
                raise
            full = shutil.disk_usage(checkpoint.parent).free < _NO_ROOM
            raise OSError(errno.ENOSPC if full else errno.EIO, "") from fault


def last_checkpoint(folder: str | Path, fingerprint: str) -> str | None:
    """Return the last whole checkpoint of a training with the same inputs and settings.

    Checkpoints that were cut short, which a line names, and those of another training are removed.
    One that `hub_strategy: checkpoint` had pushed, downloaded into the folder, is one like others.
    With several processes the first one does this and the others wait.

    Args:
        folder: The training's `output_dir`.
        fingerprint: Stands for the inputs and settings.
    """
    state = PartialState()
    place = Path(folder)
    if state.is_main_process:
        _take_up(place / _PUSHED)
        mark = place / "fingerprint"
        same = mark.is_file() and mark.read_text(encoding="utf-8") == fingerprint
        faults = {one: _fault(one) for one in place.glob("checkpoint-*")} if same else {}
        for checkpoint in place.glob("checkpoint-*"):
            if not same or faults[checkpoint] is not None:
                shutil.rmtree(checkpoint)
        write_text(mark, fingerprint)
        left = get_last_checkpoint(str(place))
        instead = f"goes on from {Path(left).name}" if left else "starts anew"
        for checkpoint, fault in faults.items():
            if fault is not None:
                logger.warning("%s %s; removed, the training %s", checkpoint, fault, instead)
    state.wait_for_everyone()
    found: str | None = get_last_checkpoint(str(place))
    if found:
        logger.info("continues from %s", found)
    return found


def _take_up(pushed: Path) -> None:
    """Give a checkpoint that was downloaded the name that it had before it was pushed."""
    if pushed.is_dir() and _own_fault(pushed) is None:
        step = read_json(pushed / "trainer_state.json")["global_step"]
        named = pushed.with_name(f"checkpoint-{step}")
        shutil.rmtree(named, ignore_errors=True)
        pushed.rename(named)


def _seal(checkpoint: Path) -> None:
    files = [one for one in sorted(checkpoint.rglob("*")) if one.is_file() and one.name != _SEAL]
    to_disk(files)
    hashes = {one.relative_to(checkpoint).as_posix(): content_hash(one) for one in files}
    write_json(checkpoint / _SEAL, hashes)


def _fault(checkpoint: Path) -> str | None:
    """Say why a checkpoint cannot be gone on from; None if it can."""
    fault = _own_fault(checkpoint)
    if fault is None:
        best = read_json(checkpoint / "trainer_state.json")["best_global_step"]
        of_best = None if best is None else _own_fault(checkpoint.with_name(f"checkpoint-{best}"))
        if of_best is not None:
            fault = f"needs the best one, checkpoint-{best}, which {of_best}"
    return fault


def _own_fault(checkpoint: Path) -> str | None:
    if not (checkpoint / _SEAL).is_file():
        return "was never finished"
    try:
        sealed = read_json(checkpoint / _SEAL)
    except InputError:
        return f"holds a {_SEAL} that was cut short"
    for name, expected in sealed.items():
        file = checkpoint / name
        if not file.is_file():
            return f"lacks {name}"
        if content_hash(file) != expected:
            return f"holds a {name} that was cut short or changed"
    return None
