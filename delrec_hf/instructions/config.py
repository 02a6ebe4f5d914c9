"""The recipe section `instructions`."""

from dataclasses import dataclass, field
from typing import Literal

from delrec_hf.errors import InputError


@dataclass
class InstructionsConfig:
    """What a prompt shows, of all three tasks; the recipe section `instructions`."""

    candidates: Literal["listed", "unlisted"] = field(
        default="listed",
        metadata={
            "help": "name the candidates in the prompt, or compare them as answers alone: then "
            "their order and number cannot matter, and the prompt is shorter"
        },
    )

    teacher: Literal["none", "order", "list"] = field(
        default="none",
        metadata={
            "help": "what stage 2 shows of the teacher: nothing, the candidates in its order, or a "
            "list of its best items (`teacher.top_h`); its labels must be out of fold"
        },
    )

    def __post_init__(self) -> None:
        """Refuse an order of what no prompt lists."""
        if self.teacher == "order" and not self.listed:
            raise InputError(
                "`instructions.teacher: order` is the order in which prompts list the candidates, "
                "and `instructions.candidates` is unlisted; set it to listed, or `teacher: list`"
            )

    @property
    def listed(self) -> bool:
        """Whether prompts name the candidates."""
        return self.candidates == "listed"
