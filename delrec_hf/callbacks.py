"""What every training shows on the terminal."""

from transformers import PrinterCallback, ProgressCallback, Trainer


class _Bar(ProgressCallback):
    """The Trainer's progress bar without its dictionaries."""

    def on_log(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        pass


def show_bar_alone(trainer: Trainer) -> None:
    """Take the dictionaries that the Trainer prints off the terminal; its bar, if any, stays."""
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_Bar())
