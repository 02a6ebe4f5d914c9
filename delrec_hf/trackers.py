"""Where a training's curves are shown: TensorBoard, trackio, W&B, and what the Trainer knows."""

from pathlib import Path
from typing import Any

from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    TensorBoardCallback,
    WandbCallback,
    get_available_reporting_integrations,
)

from delrec_hf.errors import InputError, suggest


def check_trackers(config: TrainingArguments, section: str) -> None:
    """Refuse trackers that are unknown or not installed.

    Args:
        config: Settings whose `report_to` is a list already.
        section: The recipe's section, for the message.

    Raises:
        InputError: With the cure.
    """
    if not config.report_to:
        return
    known = ("none", "all", *INTEGRATION_TO_CALLBACK)
    installed = get_available_reporting_integrations()
    for name in config.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise InputError(
                f"`{section}.report_to` names `{name}`; expected one of {', '.join(known)}"
                f"{suggest(str(name), known)}"
            )
        if name not in installed:
            raise InputError(
                f"`{section}.report_to` names {name}, which is not installed: `pip install {name}`"
                f", or set `{section}.report_to: none`"
            )


def follow(trainer: Trainer, folder: str | Path | None) -> None:
    """Let each training of a process be a run of its own in the trackers that it reports to.

    Args:
        trainer: Before it trains.
        folder: For TensorBoard's files; None: where the Trainer puts them, beside its checkpoints.
    """
    if folder is not None and trainer.pop_callback(TensorBoardCallback) is not None:
        trainer.add_callback(_TensorBoard(folder))
    wandb = trainer.pop_callback(WandbCallback)
    if wandb is not None:
        trainer.add_callback(wandb)
        if wandb._wandb.run is None:  # else it is the caller's own
            trainer.add_callback(_EndsRun(wandb._wandb))


class _EndsRun(TrainerCallback):
    """Ends the run of W&B with the training: the Trainer would go on in it with the next one."""

    def __init__(self, wandb: Any) -> None:
        self._wandb = wandb

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._wandb.finish()


class _TensorBoard(TensorBoardCallback):
    """The Trainer's, in a folder; a training that goes on hides what it had logged beyond."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.logging_dir = str(folder)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            # One that begins anew takes the place of all that was there.
            again = state.global_step + 1 if state.global_step else 0
            self.tb_writer = self._SummaryWriter(log_dir=self.logging_dir, purge_step=again)
        super().on_train_begin(args, state, control, **kwargs)
