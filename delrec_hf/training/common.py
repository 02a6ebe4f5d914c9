"""What both stages' trainers share: refusals, and ranking on validation rows."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from peft import PeftModel
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig

from delrec_hf.callbacks import show_bar_alone
from delrec_hf.errors import InputError
from delrec_hf.logging import duration, get_logger
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.shards import cut_up_by
from delrec_hf.trackers import check_trackers

logger = get_logger(__name__)


@dataclass
class StageConfig(SFTConfig):
    """What the settings of both stages share: SFTConfig with other defaults, and one more key."""

    loss: Literal["title", "listwise"] = field(
        default="listwise",
        metadata={
            "help": "learn to rank the target above the other candidates, or its title token by "
            "token"
        },
    )
    title_weight: float = field(
        default=0.0, metadata={"help": "how much of the title's own loss `listwise` mixes in"}
    )
    temperature: float | None = field(
        default=None,
        metadata={
            "help": "`listwise` divides scores by it; default: what makes the untrained model's "
            "scores likeliest on validation"
        },
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "recompute activations: less memory, a third more time"}
    )
    load_best_model_at_end: bool = field(default=True, metadata={"help": "keep the best one"})
    eval_strategy: str = field(default="epoch", metadata={"help": "when to validate"})
    save_strategy: str = field(default="epoch", metadata={"help": "when to save"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints to keep"})
    max_validation_users: int | None = field(
        default=1000, metadata={"help": "validate on so many users, drawn by seed"}
    )
    max_length: int | None = field(default=None, metadata={"help": "longer rows are refused"})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "of no use: a loss that is not finite ends the training"}
    )
    logging_dir: str | None = field(
        default=None,
        metadata={"help": "TensorBoard's files; default: the run's logs/tensorboard/TRAINING"},
    )


def check_trainer_config(config: StageConfig, section: str) -> None:
    """Refuse keys that a soft prompt cannot bear, numbers that make no loss, absent trackers.

    Raises:
        InputError: With the key and the reason.
    """
    check_trackers(config, section)
    for key in ("packing", "eval_packing", "padding_free"):
        if getattr(config, key):
            raise InputError(
                f"`{section}.{key}` is true; the soft prompt stands in front of each row, so "
                f"packed rows would read their neighbours: set `{section}.{key}: false`"
            )
    if config.temperature is not None and not config.temperature > 0:
        raise InputError(
            f"`{section}.temperature` is {config.temperature}; expected a number above 0"
        )
    if config.title_weight < 0:
        raise InputError(f"`{section}.title_weight` is {config.title_weight}; expected 0 or more")
    if config.assistant_only_loss or config.completion_only_loss is False:
        raise InputError(
            f"`{section}` learns from the answer alone; leave completion_only_loss and "
            "assistant_only_loss out"
        )


def check_cartridge(model: PeftModel, config: SFTConfig, section: str) -> None:
    """Refuse what loses a cartridge's keys and values on their way into the layers.

    Args:
        model: Any model; those without a cartridge pass.
        config: What it is trained with.
        section: The recipe's section, for the message.

    Raises:
        InputError: With the reason and the cure.
    """
    if not (isinstance(model, DelRecModel) and model.is_cartridge):
        return
    check_keeps_cache(config, section)
    if cut_up_by(config):
        raise InputError(
            f"FSDP and DeepSpeed cut weights up, and `{section}` hands the keys and values of a "
            "cartridge to layers whole; launch it with ddp, or distil with "
            "`distil.prompt_type: prompt_tuning`"
        )


def check_keeps_cache(config: SFTConfig, section: str) -> None:
    """Refuse settings with which layers drop a cartridge.

    Raises:
        InputError: With the key and the cure.
    """
    if config.gradient_checkpointing:
        raise InputError(
            f"`{section}.gradient_checkpointing` is true, and transformers' layers drop the keys "
            "and values of a cartridge then; set it to false and per_device_train_batch_size to "
            "less, or leave cartridges out of `distil.prompt_type` and `finetune.controls`"
        )


def check_lengths(rows: Dataset, model: PeftModel, config: SFTConfig, section: str) -> None:
    """Refuse rows that would be cut: the answer stands at their end.

    Args:
        rows: Encoded rows, with `input_ids`, or with `prompt_ids` and `candidate_ids`.
        model: The model that will read them.
        config: Its `max_length`, if set, is a limit besides the backbone's.
        section: The recipe's section, for the message.

    Raises:
        InputError: With both numbers and the cure.
    """
    virtual = len(model.soft_prompt) if isinstance(model, DelRecModel) else 0
    text_config = model.get_base_model().config.get_text_config()
    positions = getattr(text_config, "max_position_embeddings", None)
    limits = [config.max_length, None if positions is None else positions - virtual]
    limit = min((one for one in limits if one is not None), default=None)
    longest = max(map(_longest, rows.with_format("arrow").iter(batch_size=1000)), default=0)
    if limit is not None and longest > limit:
        raise InputError(
            f"the longest row of `{section}` has {longest} tokens, more than the {limit} that "
            "max_length and the backbone's positions leave beside the soft prompt; set "
            "data.history_length, data.num_candidates or data.max_title_characters to less"
        )


def _longest(batch: pa.Table) -> int:
    """Return the length of the longest row, or of the longest prompt and candidate in one row."""
    if "input_ids" in batch.column_names:
        lengths = pc.list_value_length(batch["input_ids"])
    else:
        candidates = batch["candidate_ids"].combine_chunks()
        sizes = pc.list_value_length(candidates.flatten())
        owners = pc.list_parent_indices(candidates)
        table = (
            pa.table({"owner": owners, "size": sizes})
            .group_by("owner")
            .aggregate([("size", "max")])
        )
        lengths = pc.add(
            pc.list_value_length(batch["prompt_ids"]), table.sort_by("owner")["size_max"]
        )
    longest: int = pc.max(lengths).as_py()
    return longest


def widths(rows: Dataset) -> list[int]:
    """Return how many tokens each row holds, those of all its candidates and tasks together."""
    total: pa.Array = pa.array([0] * len(rows))
    table = rows.with_format("arrow")[:]
    for name in rows.column_names:
        tokens = table[name].combine_chunks()
        if name.endswith("candidate_ids"):
            sizes = pa.table({"row": pc.list_parent_indices(tokens)})
            sizes = sizes.append_column("size", pc.list_value_length(tokens.flatten()))
            sums = sizes.group_by("row").aggregate([("size", "sum")]).sort_by("row")["size_sum"]
            total = pc.add(total, sums.combine_chunks())
        elif name.endswith(("prompt_ids", "input_ids")):
            total = pc.add(total, pc.list_value_length(tokens))
    found: list[int] = total.to_pylist()
    return found


_SHOWN = ("loss", "_weight", "_agreement", "hr@1", "ndcg@10")


class _Lines(TrainerCallback):
    """Puts losses, weights and what is measured on validation into the log, a line each time.

    Lines of a loss say the time that is left, by the steps behind the first one of this start,
    which is longer than others: what was compiled or read for it is there afterwards.
    """

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._first = None

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        self._first = self._first or (state.global_step, time.monotonic())

    def _left(self, state: TrainerState) -> str:
        step, begun = self._first or (state.global_step, 0.0)
        done, to_do = state.global_step - step, state.max_steps - state.global_step
        if done <= 0 or to_do <= 0:
            return ""
        return f", {duration((time.monotonic() - begun) / done * to_do)} left"

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        *,
        logs: Mapping[str, float],
        **_: Any,
    ) -> None:
        shown = {
            name.removeprefix("eval_"): value
            for name, value in logs.items()
            if name.endswith(_SHOWN) and name != "train_loss"
        }
        if shown and state.is_world_process_zero:
            validated = any(name.startswith("eval_") for name in logs)
            part = ", validation" if validated else self._left(state)
            values = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
            logger.info("step %d of %d%s: %s", state.global_step, state.max_steps, part, values)


def log_in_lines(trainer: Trainer) -> None:
    """Replace the dictionaries that the Trainer prints by lines in the log; its bar stays."""
    show_bar_alone(trainer)
    trainer.add_callback(_Lines())


def shown_settings(config: SFTConfig) -> dict[str, Any]:
    """Return the settings that made an adapter what it is, for the artefact and its card."""
    own = type(config).__annotations__
    shared = (
        "loss",
        "title_weight",
        "max_validation_users",
        "optim",
        "lr_scheduler_type",
        "num_train_epochs",
        "max_steps",
        "seed",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
    )
    given = config.to_dict()
    return {name: given[name] for name in (*own, *shared)}
