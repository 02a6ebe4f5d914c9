"""The recipe section `instructions`."""

from dataclasses import dataclass, field
from typing import Literal

from delrec_hf.errors import InputError


@dataclass
class InstructionsConfig:
    """What a prompt shows, of all three tasks; the recipe section `instructions`."""

    candidates: Literal["listed", "unlisted"] = field(
        default="unlisted",
        metadata={
            "help": "compare the candidates as answers alone, so that their order and number "
            "cannot matter, or name them in the prompt"
        },
    )

    teacher: Literal["none", "order", "list"] = field(
        default="none",
        metadata={
            "help": "what stage 2 shows of the teacher: nothing, the candidates in its order, or a "
            "list of its best items (`teacher.top_h`); its labels must be out of fold"
        },
    )

    turns: bool = field(
        default=False,
        metadata={
            "help": "stage 2 tells the history as a chat, an item an answer; with `loss: title` it "
            "learns every answer, so that one row teaches as many next items as it shows"
        },
    )

    def __post_init__(self) -> None:
        """Refuse what a prompt cannot show together."""
        if self.teacher == "order" and not self.listed:
            raise InputError(
                "`instructions.teacher: order` is the order in which prompts list the candidates, "
                "and `instructions.candidates` is unlisted; set it to listed, or `teacher: list`"
            )
        if self.turns and (self.listed or self.teacher != "none"):
            raise InputError(
                "`instructions.turns` asks one question after the other and shows nothing but the "
                f"answers; set `candidates: unlisted` (is {self.candidates}) and `teacher: none` "
                f"(is {self.teacher})"
            )

    @property
    def listed(self) -> bool:
        """Whether prompts name the candidates."""
        return self.candidates == "listed"
