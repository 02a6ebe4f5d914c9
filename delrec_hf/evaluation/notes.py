"""What a reader of the report must know beside its tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from delrec_hf.evaluation.cells import over_seeds
from delrec_hf.evaluation.claims import (
    CLAIMED,
    LEAST_USERS,
    LEVEL,
    ONE_TRAINING,
    by,
    p_value,
    side,
)
from delrec_hf.evaluation.slices import by_kind

_LISTS_NOTE = (
    "Lists: share of the catalogue that they cover; Gini of how often items stand in them (0: all "
    "alike); training interactions of their items (popularity); bits of surprise (novelty)."
)

FEW = " *"
"""Marks a group of fewer than `LEAST_USERS` users."""

GROUPS_NOTE = (
    f"Groups:{FEW} fewer than {LEAST_USERS} users, too few to claim anything about. Differences in "
    "groups are not corrected for their number; a target with several values counts in each."
)


def notes(results: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know beside the tables."""
    found = []
    if results.get("protocol", {}).get("split") == "leave-one-out":
        found.append(
            "Leave-one-out: training saw what other users did after a test target's time; "
            "`data.split: time` keeps that out."
        )
    best = results.get("protocol", {}).get("best_hr_at_1")
    if best is not None:
        found.append(
            "Expected HR@1: the chance, by the rule of this made-up world, that what a system "
            "ranks first is the target. No ranker can expect more than the limit."
        )
    systems = results.get("systems", {})
    if any("log_loss" in system for system in systems.values()):
        found.append(
            "LOG-LOSS: minus the log-chance of the target among the candidates, in nats; lower is "
            "better. The weights that make chances of scores are fitted on validation users."
        )
    if changed := changed_choices(systems):
        found.append(changed)
    found += [
        f"{name} = {weighed(one['weights'])}." for name, one in systems.items() if _fuses(one)
    ]
    if any(len(groups) > 1 for groups in by_kind(results.get("slices", [])).values()):
        found.append(GROUPS_NOTE)
    if any(results.get(block, {}).get("lists") for block in ("retrieved", "whole_catalogue")):
        found.append(_LISTS_NOTE)
    if any("ci95" in system for system in systems.values()):
        found.append(_brackets(results.get("protocol", {})))
    return found + _claims(results.get("comparisons", []))


def changed_choices(systems: Mapping[str, Mapping[str, Any]]) -> str:
    """Say how much rankings hang on the order of their candidates; nothing where none does.

    >>> changed_choices({"delrec": {"order_sensitivity": 0.25}, "random": {"hr@1": 0.1}})
    'Share of first choices that change when candidates are listed in another order: delrec 0.250.'
    """
    shown = [
        f"{name} {over_seeds(one, 'order_sensitivity')}"
        for name, one in systems.items()
        if "order_sensitivity" in one
    ]
    words = "Share of first choices that change when candidates are listed in another order"
    return f"{words}: {', '.join(shown)}." if shown else ""


def weighed(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what a fusion weighs its parts with, to three digits: scores come in any unit.

    >>> scale = {"kind": "log", "smoothing": 1.0, "floor": 0.0}
    >>> weighed({"popularity": {"weight": 0.5, "ci95": [0.25, 0.75], "scale": scale}})
    '0.5 [0.25, 0.75] x log popularity'
    """
    shown = []
    for part, one in parts.items():
        low, high = one["ci95"]
        unit = "log " if one["scale"]["kind"] == "log" else ""
        shown.append(f"{one['weight']:.3g} [{low:.3g}, {high:.3g}] x {unit}{part}")
    return " + ".join(shown)


def _fuses(system: Mapping[str, Any]) -> bool:
    return len(system.get("weights", {})) > 1


def _brackets(protocol: Mapping[str, Any]) -> str:
    """Say what the intervals hold; results of earlier versions do not say it."""
    over = protocol.get("intervals")
    if over is None:
        return "Brackets: 95 % interval, percentile bootstrap over users."
    return f"Brackets: 95 % interval over {over}. Holm p: corrected for all pairs of that metric."


def _claims(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what may be claimed by one metric, and what may not."""
    told = [one for one in comparisons if one["metric"] == CLAIMED and "claim" in one]
    if not told:
        return []
    seeds, users = told[0]["seeds"], told[0]["users"]
    over = f"{seeds} seeds and {users} users" if seeds > 1 else ONE_TRAINING
    if users < LEAST_USERS:
        return [f"{users} users are too few to claim anything about systems."]
    shown = [
        f"{one['a']} {side(one)} {one['b']} by {by(one)} (Holm p {p_value(one['p_holm'])})"
        for one in told
        if one["p_holm"] < LEVEL
    ]
    hidden = [
        f"{one['a']} and {one['b']} ({one['detectable']:.3f})"
        for one in told
        if one["p_holm"] >= LEVEL
    ]
    name = CLAIMED.upper()
    found = [f"What may be claimed by {name}, {over}: {'; '.join(shown) or 'nothing'}."]
    if hidden:
        found.append(
            f"No difference by {name} is shown between (in brackets what this study could have "
            f"shown): {'; '.join(hidden)}."
        )
    return found
