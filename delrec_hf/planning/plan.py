"""What a recipe will cost, before weights are there and before anything starts.

Rows are worded as the stages word them, operations and memory counted from the backbone's config,
and time measured on a few layers, or taken from `--tflops`. Nothing is written.
"""

import resource
import sys
from dataclasses import dataclass

import torch

from delrec_hf.data.interactions import read_interactions
from delrec_hf.data.prepared import PreparedData, build
from delrec_hf.errors import InputError
from delrec_hf.planning.backbone_cost import BackboneCost, read_config, read_tokenizer
from delrec_hf.planning.stage_cost import StageCosts, StagePlan
from delrec_hf.planning.workload import Workload
from delrec_hf.runs.order import STAGES
from delrec_hf.runs.pipeline import check_sections
from delrec_hf.runs.prints import stage_step
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run


@dataclass(frozen=True)
class Plan:
    """What a recipe will cost.

    Attributes:
        stages: Each stage, in order.
        facts: Lines on what the numbers are of.
        seeds: How many times all is run.
    """

    stages: list[StagePlan]
    facts: list[str]
    seeds: int

    @property
    def hours(self) -> float:
        """Hours of all stages that are planned, for all seeds."""
        return self.seeds * sum(one.hours or 0.0 for one in self.stages)


def plan_recipe(
    recipe: Recipe, device_memory: int | None = None, tflops: float | None = None
) -> Plan:
    """Return what a recipe will cost.

    Args:
        recipe: The recipe.
        device_memory: Bytes that the device has; None: nothing is said of what fits.
        tflops: Its rate in large matrix products, in 10^12 operations a second; None: the rate of
            this machine, measured.

    Raises:
        InputError: If the recipe, its data or its backbone's config cannot be used.
    """
    check_sections(recipe, ["data", "instructions", "calibrate", "backbone", "distil", "finetune"])
    folder = recipe.output_dir / f"seed-{recipe.seeds[0]}" if recipe.seeds else recipe.output_dir
    run = Run(Recipe(folder, recipe.sections))
    prepared, taught, source = _data(run)
    loading = run.recipe.settings("backbone")
    config, tokenizer = read_config(loading), read_tokenizer(loading)
    told = device_memory is not None or tflops is not None
    is_gpu = told or torch.accelerator.is_available()
    work = Workload(run, prepared, tokenizer, taught)
    flops = None if tflops is None else tflops * 1e12
    cost = BackboneCost(config, loading, flops, is_gpu, _resident())
    stages = StageCosts(work, cost, device_memory).all()
    read = f"{len(prepared.examples['train'])} training examples, {source}"
    words = "the backbone's own tokenizer" if tokenizer else "bytes / 4, for want of its tokenizer"
    speed = (
        f"{tflops:g} TFLOPS, of which {cost.efficiency:.0%} are reached"
        if tflops is not None
        else "measured on this machine with a few layers of random weights"
    )
    held = "tensors on a GPU" if is_gpu else "the whole process on a CPU"
    facts = [
        f"data: {read}",
        f"backbone: {loading.model_name_or_path}, {config.model_type}, "
        f"{cost.parameters / 1e6:.1f} million parameters, {cost.weights / 1e9:.2f} GB",
        f"tokens: by {words}",
        f"memory: of {held}",
        f"time: {speed}",
    ]
    return Plan(stages, facts, max(1, len(recipe.seeds)))


def parse_memory(text: str) -> int:
    """Return bytes of `24GB`, `24GiB`, `24` (GB), `900MB`.

    >>> parse_memory("24GB"), parse_memory("1.5 GiB")
    (24000000000, 1610612736)
    """
    units = {"": 10**9, "G": 10**9, "GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}
    bare = text.strip()
    number = bare.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = bare[len(number) :].strip().upper()
    try:
        size = float(number) * units[unit]
    except (ValueError, KeyError):
        size = 0
    if not 0 < size < float("inf"):
        raise InputError(f"--device_memory is `{text}`; expected a size such as 24GB or 80GiB")
    return int(size)


def parse_tflops(text: str) -> float:
    """Return the number of `--tflops`."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise InputError(f"--tflops is `{text}`; expected a number above 0, such as 300")
    return found


def as_table(plan: Plan) -> str:
    """Return a plan as text: a table of the stages, then one line for each thing to change."""
    heads = ["stage", "examples", "tokens/epoch", "longest", "trains", "steps", "memory", "hours"]
    rows = [heads, *(_cells(one) for one in plan.stages)]
    sizes = [max(len(row[k]) for row in rows) for k in range(len(heads))]
    lines = [*plan.facts, ""]
    for row in rows:
        first, *rest = (cell.rjust(size) for cell, size in zip(row, sizes, strict=True))
        lines.append("  ".join([first.strip().ljust(sizes[0]), *rest]).rstrip())
    times = f", {plan.seeds} seeds" if plan.seeds > 1 else ""
    lines += ["", f"all planned stages{times}: {_hours(plan.hours)} hours"]
    return "\n".join([*lines, *(line for one in plan.stages for line in one.lines)])


def _cells(one: StagePlan) -> list[str]:
    def whole(number: float | None) -> str:
        return "-" if number is None else f"{number:,.0f}"

    memory = "-" if one.memory is None else f"{one.memory / 1e9:.2f} GB"
    hours = "-" if one.hours is None else _hours(one.hours)
    counts = (one.examples, one.tokens_per_epoch, one.longest, one.trainable, one.steps)
    return [one.name, *map(whole, counts), memory, hours]


def _hours(hours: float) -> str:
    return f"{hours:.3f}" if hours < 1 else f"{hours:.1f}"


def _data(run: Run) -> tuple[PreparedData, bool, str]:
    """Return the data, whether the teacher's predictions are there, and where they are from."""
    prepare, teach = STAGES[:2]
    step = stage_step(prepare, run.recipe, {}, set())
    if not step.is_done(run.folder):
        config = run.recipe.settings("data")
        return build(config, read_interactions(config)), False, "prepared in memory"
    after = stage_step(teach, run.recipe, {"prepare": step.print_}, {"prepare"})
    return run.prepared, after.is_done(run.folder), f"prepared in {run.folder / 'data'}"


def _resident() -> int:
    """Return the most bytes that this process has held so far: libraries and data."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
