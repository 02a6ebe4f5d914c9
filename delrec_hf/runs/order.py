"""The stages of a recipe in their order: what each is called, reads and writes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One step from interactions to results.

    Attributes:
        name: Its name in records and logs; what it does is the function of that name in `stages`.
        command: What the command line calls it.
        description: What it does, in a line.
        sections: Sections of the recipe whose keys change its outcome, its own one last.
        after: Stages that must be finished before it.
        uses: Stages whose output it reads as well, where they are finished.
        writes: What it leaves in the run's folder.
    """

    name: str
    command: str
    description: str
    sections: tuple[str, ...]
    after: tuple[str, ...]
    writes: tuple[str, ...]
    uses: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        """The section of the recipe that a bare flag of its command goes to."""
        return self.sections[-1]


STAGES = (
    Stage(
        name="prepare",
        command="prepare",
        description="read the data, split it, draw candidates",
        sections=("data",),
        after=(),
        writes=("data",),
    ),
    Stage(
        name="teach",
        command="teach",
        description="train the teacher and keep its predictions",
        sections=("teacher",),
        after=("prepare",),
        writes=("teacher",),
    ),
    Stage(
        name="calibrate",
        command="calibrate",
        description="weigh the untrained backbone's scores on validation",
        sections=("instructions", "backbone", "calibrate"),
        after=("prepare",),
        writes=("calibration",),
    ),
    Stage(
        name="distil",
        command="distill",
        description="stage 1: distil the teacher into a soft prompt",
        sections=("instructions", "backbone", "distil"),
        after=("prepare", "teach", "calibrate"),
        writes=("distil",),
    ),
    Stage(
        name="finetune",
        command="finetune",
        description="stage 2: train LoRA on top of the frozen prompt",
        sections=("instructions", "backbone", "finetune"),
        after=("prepare", "calibrate", "distil"),
        writes=("model",),
    ),
    Stage(
        name="evaluate",
        command="evaluate",
        description="rank with every system whose stages are finished, and report",
        sections=("instructions", "evaluate"),
        after=("prepare",),
        uses=("teach", "calibrate", "distil", "finetune"),
        writes=("results.json",),
    ),
)


def stage_of_command(command: str) -> Stage | None:
    """Return the stage that a command of the command line runs, if it runs a single one."""
    return next((stage for stage in STAGES if stage.command == command), None)
