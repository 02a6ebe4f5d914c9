"""How often the stages of a recipe step, validate and rank, and what they would refuse."""

import math

from delrec_hf.evaluation.evaluator import EvaluateConfig
from delrec_hf.evaluation.systems import SYSTEMS
from delrec_hf.planning.lengths import Lengths
from delrec_hf.training.common import StageConfig
from delrec_hf.training.recommendation import CONTROLS


def language_models(config: EvaluateConfig, controls: list[str]) -> list[str]:
    """Return the language models that `evaluate` ranks with."""
    made = set(CONTROLS) - set(controls)
    known = [one for one in SYSTEMS if {"backbone", "distil", "finetune"} & set(one.needs)]
    wanted = config.systems
    return [
        one.name
        for one in known
        if one.folder not in made and (not one.on_request if wanted is None else one.name in wanted)
    ]


def steps_of(config: StageConfig, found: dict[str, Lengths]) -> tuple[int, float, int]:
    """Return a training's optimizer steps, its epochs, and how often it validates."""
    rows = max(one.number for one in found.values())
    batches = math.ceil(rows / config.per_device_train_batch_size)
    accumulated = config.gradient_accumulation_steps
    each = max(1, math.ceil(batches / accumulated))
    steps = config.max_steps if config.max_steps > 0 else math.ceil(each * config.num_train_epochs)
    epochs = steps * accumulated / max(1, batches)
    strategy = str(getattr(config.eval_strategy, "value", config.eval_strategy))
    validations = {"no": 0, "epoch": math.ceil(epochs)}.get(strategy)
    if validations is None:
        every = config.eval_steps or config.logging_steps
        validations = steps // max(1, int(every if every >= 1 else every * steps))
    if config.load_best_model_at_end and strategy != "no":
        validations += 1  # the start counts as a checkpoint
    return steps, epochs, validations


def too_long(
    name: str,
    config: StageConfig,
    found: dict[str, Lengths],
    virtual: int,
    positions: int | None,
) -> list[str]:
    """Return the line on rows that a stage would refuse, if there are any: none is ever cut.

    Args:
        name: The stage.
        config: Its settings.
        found: Task to rows.
        virtual: Virtual tokens in front of each.
        positions: How many tokens the backbone takes, if there is a limit.
    """
    limits = [config.max_length, None if positions is None else positions - virtual]
    limit = min((one for one in limits if one is not None), default=None)
    if limit is None:
        return []
    over = {task: int((one.longest > limit).sum()) for task, one in found.items()}
    rows = ", ".join(f"{n} of {len(found[t].longest)} {t} rows" for t, n in over.items() if n)
    if not rows:
        return []
    return [
        f"{name}: would be refused: {rows} have more than the {limit} tokens that max_length and "
        "the backbone's positions leave; set data.history_length, data.num_candidates or "
        "data.max_title_characters to less"
    ]
