"""Where the numbers of a run come from: data, audit, protocol, machine, recipe; what lacks."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from delrec_hf.evaluation.metrics import LOG_LOSS
from delrec_hf.evaluation.slices import HISTORY, ITEMS
from delrec_hf.reporting.reading import FinishedRun, number
from delrec_hf.reporting.tables import Cell, Rows, pairs
from delrec_hf.reporting.wording import UNKNOWN, decimal, printable

_SEEDED = ("teacher", "distil", "finetune")
"""Sections whose seed is each of the recipe's in turn."""

_ABLATIONS = ("delrec/no-ta", "delrec/no-rps", "delrec/random-prompt", "lora-only", "prompt-only")


def protocol(run: FinishedRun) -> Rows | None:
    """Return what was measured on."""
    facts, data = run.protocol, run.data
    return pairs(
        "What was measured on.",
        [
            ("dataset", facts.get("dataset")),
            ("terms", data.get("terms")),
            ("users, items, interactions", _joined(data, ("users", "items", "interactions"))),
            ("left out when reading", _left_out(data)),
            ("split", facts.get("split")),
            ("training examples", _joined(data.get("examples", {}), ("train",))),
            ("test users", _joined(facts, ("users",))),
            ("users that weights are fitted on", _joined(facts, ("fit_users",))),
            ("candidates", facts.get("num_candidates")),
            ("items of a history", facts.get("history_length")),
            ("score of a title", facts.get("scoring")),
            ("ties", facts.get("tie_rule")),
            ("seeds", ", ".join(str(seed) for seed in run.seeds)),
        ],
    )


def audit(run: FinishedRun) -> Rows | None:
    """Return what `delrec audit` found, the worst first."""
    if not run.findings:
        return None
    order = {"error": 0, "warning": 1}
    found = sorted(run.findings, key=lambda one: order.get(str(one.get("severity")), 2))
    names = ("severity", "value", "expected", "explanation")
    rows = [
        (printable(one.get("code", UNKNOWN)), [Cell(_value(one.get(name))) for name in names])
        for one in found
    ]
    return Rows("What `delrec audit` found.", ["finding", *names], rows, words=True)


def environment(run: FinishedRun) -> Rows | None:
    """Return versions and machine."""
    versions, machine = run.record.get("versions", {}), run.record.get("machine", {})
    backbone, teacher = run.settings.get("backbone", {}), run.settings.get("teacher", {})
    return pairs(
        "Models, machine and versions.",
        [
            ("backbone", _joined(backbone, ("model_name_or_path", "model_revision"))),
            ("its dtype", backbone.get("torch_dtype")),
            ("teacher", teacher.get("type")),
            *((name.replace("_", " "), value) for name, value in machine.items()),
            *versions.items(),
        ],
    )


def commands(run: FinishedRun) -> list[tuple[str, str]]:
    """Return what runs the same again: a command, and the recipe that run.json recorded."""
    recipe = _recipe(run)
    if recipe is None:
        return []
    return [
        ("To run it again, with the recipe below", "delrec run --config recipe.yaml"),
        (
            "recipe.yaml, every setting as it was recorded; `data.path` has the name of the data, "
            "so give the place of files of your own by `--data.path`",
            recipe,
        ),
    ]


def missing(run: FinishedRun) -> list[str]:
    """Return what this run does not hold, and what would bring it."""
    lacking = [name for name in _ABLATIONS if name not in run.systems]
    grouped = {str(one.get("by")) for one in run.results.get("slices", [])}
    known = {
        f"the ablations {', '.join(lacking)} (`finetune.controls`)": not lacking,
        "how trainings vary (`--seeds 1 2 3`)": len(run.seeds) > 1,
        "log-loss (`evaluate.fit_users`)": any(LOG_LOSS in one for one in run.systems.values()),
        "groups of users (run `delrec evaluate` again)": HISTORY in grouped,
        "groups by what targets are (`evaluate.slice_columns`)": any(
            one.startswith(ITEMS) for one in grouped
        ),
        "candidates that the teacher retrieves (`evaluate.retrieve`)": "retrieved" in run.results,
        "the whole catalogue (`evaluate.whole_catalogue`)": "whole_catalogue" in run.results,
        "training curves (no `logs` beside these results)": bool(run.logs),
        "faults of the data (`delrec audit`)": run.findings is not None,
        "settings and versions (no `run.json` beside these results)": bool(run.record),
        "the machine (earlier versions did not record it)": "machine" in run.record
        or not run.record,
    }
    return [what for what, there in known.items() if not there]


def _recipe(run: FinishedRun) -> str | None:
    if not run.settings:
        return None
    sections = {name: dict(given) for name, given in run.settings.items()}
    top: dict[str, Any] = {"output_dir": f"runs/{printable(run.path.name, 60)}"}
    if len(run.seeds) > 1:
        top["seeds"] = run.seeds
        for name in _SEEDED:
            sections.get(name, {}).pop("seed", None)
    return yaml.safe_dump({**top, **sections}, sort_keys=False, allow_unicode=True)


def _joined(facts: Mapping[str, Any], names: Sequence[str]) -> str:
    shown = [facts[name] for name in names if facts.get(name) is not None]
    return ", ".join(f"{one:,}" if isinstance(one, int) else str(one) for one in shown)


def _left_out(data: Mapping[str, Any]) -> str:
    held = data.get("left_out")
    if not isinstance(held, dict):
        return ""
    shown = [f"{name.replace('_', ' ')}: {count:,}" for name, count in held.items() if count]
    return "; ".join(shown) or "nothing"


def _value(value: Any) -> str:
    found = number(value)
    if isinstance(found, float):
        return decimal(found)
    return UNKNOWN if value is None else printable(value, 400)
