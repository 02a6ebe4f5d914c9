"""The recipe section `instructions`."""

from dataclasses import dataclass, field
from typing import Literal


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

    @property
    def listed(self) -> bool:
        """Whether prompts name the candidates."""
        return self.candidates == "listed"
