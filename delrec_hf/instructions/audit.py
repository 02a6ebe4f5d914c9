"""Whether prompts show the title that they ask for."""

from collections.abc import Iterable

import numpy as np
from datasets import Dataset

from delrec_hf.data.audit.finding import ALPHA, Finding, binomial_tail


def shown_in_prompts(rows: Iterable[Dataset], titles: dict[str, str]) -> Finding | None:
    """Say whether prompts show the target's title more often than those of other candidates.

    The null has the target a candidate like the others: of C candidates, it stands in the prompt
    more often than each other one with chance 1/C at most; rows are binomial. That holds whether
    prompts list their candidates or not, and where one title is part of another.

    Args:
        rows: Instruction rows of each task, made without what the teacher says.
        titles: Item id to the title that stands in prompts.
    """
    found = number = 0
    chances = []
    for prompts in rows:
        for prompt, candidates, target in zip(
            prompts["prompt"][:], prompts["candidates"][:], prompts["target"][:], strict=True
        ):
            text = "\n".join(message["content"] for message in prompt)
            counts = {one: text.count(titles[one]) for one in candidates}
            own = counts.pop(target)
            found += own > max(counts.values(), default=own)
            chances.append(1 / len(candidates))
        number += len(prompts)
    if not number or binomial_tail(found, number, float(np.mean(chances))) > ALPHA:
        return None
    return Finding(
        "leaked-target",
        "error",
        found / number,
        0.0,
        f"{found} of {number} prompts show the title that they ask for more often than any other "
        "candidate's: the answer stands in the question. Look for the target under another id in "
        "the history, and for wording that names it",
    )
