"""Folders of finished runs, written by hand: small, and with every part that a report shows."""

import json
from pathlib import Path
from typing import Any

SYSTEMS = {
    "random": 0.10,
    "co-occurrence": 0.42,
    "teacher/sasrec": 0.40,
    "zero-shot": 0.25,
    "lora-only": 0.47,
    "delrec/no-ta": 0.46,
    "delrec": 0.48,
    "delrec+teacher": 0.52,
}
PAIRS = (
    ("delrec", "delrec/no-ta", -0.01),
    ("delrec", "lora-only", -0.01),
    ("delrec", "teacher/sasrec", 0.05),
    ("delrec+teacher", "delrec", 0.02),
)
"""First, second, and the lower end of the interval, which is .06 wide."""

NASTY = "<script>alert('x')</script> $a$ & \u202e\x07{{ 7*7 }}"


def results(shift: float = 0.0, **protocol: Any) -> dict[str, Any]:
    """Return the content of a results.json."""
    systems = {name: _system(value + shift) for name, value in SYSTEMS.items()}
    scale = {"kind": "log", "smoothing": 1.0, "floor": 0.0}
    part = {"weight": 0.0456, "ci95": [0.0123, 0.0789], "scale": scale}
    systems["delrec"] |= {"order_sensitivity": 0.2468, "sd": {"order_sensitivity": 0.0135}}
    systems["delrec+teacher"]["weights"] = {"delrec": part, "teacher": part}
    return {
        "protocol": {
            "dataset": NASTY,
            "split": "leave-one-out",
            "users": 600,
            "num_candidates": 10,
            "history_length": 8,
            "seeds": [42],
            "tie_rule": "expected value under random tie-breaking",
            **protocol,
        },
        "systems": systems,
        "comparisons": [
            {"a": a, "b": b, "metric": metric, "difference": low + 0.03, "p": 0.0321}
            | {"ci95": [low, low + 0.06]}
            for a, b, low in PAIRS
            for metric in ("hr@1", "ndcg@10", "log_loss")
        ],
        "slices": [
            *(
                {"seen": seen, "users": users, "systems": systems}  # as earlier versions wrote them
                for seen, users in (("0", 100), ("1-4", 500))
            ),
            *(_genre(name, users, systems) for name, users in ((NASTY, 588), ("war", 12))),
        ],
        "retrieved": {
            "protocol": {"num_candidates": 100, "retriever": "teacher/sasrec", "users": 600},
            "recall_ceiling": 0.6543,
            "sd": {"recall_ceiling": 0.0123},
            "systems": {name: {**one, "sd": {"ndcg@10": 0.0456}} for name, one in systems.items()},
            "lists": {
                "length": 10,
                "diversity_column": NASTY,
                "systems": {"delrec": {"gini": 0.3579, "sd": {"gini": 0.0135}}},
            },
        },
        "distillation": {
            "no prompt": {"agreement": 0.5551, "ci95": [0.5, 0.6], "users": 600}
            | {"sd": {"agreement": 0.0246}}
        },
    }


def _genre(name: str, users: int, systems: dict[str, Any]) -> dict[str, Any]:
    """Return a group of users, who are many or few."""
    pair = {"a": "delrec", "b": "teacher/sasrec", "metric": "ndcg@10", "difference": 0.0777}
    interval = {"ci95": [0.0111, 0.1444]} if users >= 30 else {}
    kind = {"by": f"items.{NASTY}", "group": name, "users": users}
    return {**kind, "systems": systems, "comparisons": [{**pair, **interval}]}


def _system(value: float) -> dict[str, Any]:
    metrics = {"hr@1": value, "hr@5": value + 0.3, "hr@10": 1.0, "ndcg@10": value + 0.2}
    metrics |= {"mrr": value + 0.15, "log_loss": 3 - value}
    bounds = {name: [one - 0.031, one + 0.029] for name, one in metrics.items()}
    return {**{name: round(one, 4) for name, one in metrics.items()}, "ci95": bounds, "seconds": 2}


def write_run(folder: Path, shift: float = 0.0, **settings: Any) -> Path:
    """Write a run of both stages; settings are of stage 1."""
    write(folder / "results.json", results(shift))
    stages = {
        "prepare": {"settings": {"data": {"path": "films", "seed": 1}}, "seconds": 3.2},
        "distil": {"settings": {"distil": {"num_virtual_tokens": 24, **settings}}, "seconds": 258},
    }
    machine = {"device": "NVIDIA H200", "processes": 1, "python": "3.11.2"}
    record = {"stages": stages, "versions": {"torch": "2.13.0"}, "machine": machine}
    write(folder / "run.json", record)
    write(folder / "data" / "info.json", {"users": 600, "left_out": {"broken_lines": 7}})
    write(folder / "logs" / "distil.json", _stage_1())
    for name in ("model", "lora-only"):
        write(folder / "logs" / f"{name}.json", _stage_2())
    write(folder / "study.json", study())
    finding = {"code": "sorted-by-id", "severity": "error", "value": 0.91, "expected": 0.5}
    write(folder / "audit.json", {"findings": [{**finding, "explanation": f"Mind {NASTY}"}]})
    return folder


def study() -> dict[str, Any]:
    """Return the content of a study.json: three lengths of the prompt, and a thing by hand."""
    found = results()
    changes = {f"distil.num_virtual_tokens={one}": one for one in (4, 96)}
    variants = [
        *(
            {"name": name, "changes": {"distil.num_virtual_tokens": changes[name]}}
            for name in changes
        ),
        {"name": f"other titles {NASTY}", "changes": {"data.path": "b", "data.seed": 3}},
    ]
    for place, one in enumerate(variants):
        shift = 0.1234 * place
        one |= {"systems": results(shift)["systems"], "seconds": 3600.0, "comparisons": []}
        for metric in ("hr@1", "ndcg@10", "log_loss"):
            entry = {"a": f"delrec, {one['name']}", "b": "delrec", "metric": metric}
            entry |= {"difference": shift, "ci95": [shift - 0.01, shift + 0.02], "p": 0.01}
            entry |= {"p_holm": 0.04 if place else 0.9, "users": 600, "seeds": 1}
            one["comparisons"] += [entry, {**entry, "b": "lora-only"}]
    return {"systems": found["systems"], "variants": variants, "seconds": 1.0}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _stage_1() -> list[dict[str, Any]]:
    steps = range(10, 50, 10)
    trained = [
        {"step": step, "ta_loss": 2 / step, "rps_loss": 1 / step}
        | {"ta_weight": 0.4, "rps_weight": 0.6}
        for step in steps
    ]
    validated = [
        {"step": step, "eval_ta_loss": 2.1 / step, "eval_rps_loss": 1.1 / step}
        | {"eval_rps_agreement": 0.6, "eval_ta_ndcg@10": 0.7}
        for step in steps
    ]
    return [*trained, *validated]


def _stage_2() -> list[dict[str, Any]]:
    return [
        {"step": step, "loss": 1 / step, "eval_loss": 1.1 / step, "eval_ndcg@10": 0.8}
        for step in range(10, 50, 10)
    ]
