"""Whether a training is still the same one, and the checkpoint that a killed one goes on from."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from delrec_hf.files import write_text
from delrec_hf.logging import get_logger

logger = get_logger(__name__)

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
_WITHOUT_EFFECT = frozenset(f"{_SHOWN_ONLY} {_PLACE_ONLY}".split())


def deciding_settings(config: TrainingArguments, given: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings that decide what a training makes, defaults filled in.

    What only shows things, and where and over how many machines it runs, is left out. So is what
    is not set (None): a library's new key changes no training. `bf16` counts where it was given
    alone: its default depends on the machine.

    Args:
        config: The settings of a training.
        given: The keys that the user has set.
    """
    left_out = _WITHOUT_EFFECT if "bf16" in given else _WITHOUT_EFFECT | {"bf16"}
    return {
        name: value
        for name, value in config.to_dict().items()
        if value is not None and name not in left_out
    }


def last_checkpoint(folder: str | Path, fingerprint: str) -> str | None:
    """Return the last complete checkpoint of a training with the same inputs and settings.

    Checkpoints that a killed process left half-written, and those of another training, are
    removed. With several processes the first one does this and the others wait.

    Args:
        folder: The training's `output_dir`.
        fingerprint: Stands for the inputs and settings.
    """
    state = PartialState()
    place = Path(folder)
    mark = place / "fingerprint"
    if state.is_main_process:
        same = mark.is_file() and mark.read_text(encoding="utf-8") == fingerprint
        for checkpoint in place.glob("checkpoint-*"):
            # The Trainer writes this file last.
            if not (same and (checkpoint / "trainer_state.json").is_file()):
                shutil.rmtree(checkpoint)
        write_text(mark, fingerprint)
    state.wait_for_everyone()
    found: str | None = get_last_checkpoint(str(place))
    if found:
        logger.info("continues from %s", found)
    return found
