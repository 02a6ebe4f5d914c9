"""One table out of several seeds' runs: what varies with the seed, and what with the users."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from delrec_hf.evaluation.kept import PerUser, facts_of, of_users
from delrec_hf.evaluation.results import OVER_USERS, agreement, comparisons, means
from delrec_hf.evaluation.slices import slices
from delrec_hf.files import read_json
from delrec_hf.logging import get_logger

FloatArray = npt.NDArray[np.float64]

logger = get_logger(__name__)


def summarise_seeds(folders: Sequence[Path], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the content of a results.json over seeds.

    A metric is the mean over seeds and users. `sd` is the standard deviation of the seeds' means;
    intervals and comparisons are over seeds and users both, paired by seed and user.

    Args:
        folders: The seeds' runs, all of the same users.
        seeds: Their seeds.

    Returns:
        As each seed's, with `sd` beside what is a mean over seeds, and the fitted `weights` of each
        seed.

    Raises:
        InputError: If the runs measured different users.
    """
    results = [read_json(folder / "results.json") for folder in folders]
    table, per_user = of_users(folders)
    teacher = next((name for name in results[0]["systems"] if name.startswith("teacher/")), "")
    names = {name: teacher if name == "teacher" else name for name in per_user}
    over = {**OVER_USERS, **({"intervals": "seeds and users"} if len(seeds) > 1 else {})}
    facts = facts_of(table)
    found = {
        "protocol": {
            **results[0]["protocol"],
            **_candidates([one["protocol"] for one in results]),
            "seeds": list(seeds),
            **over,
        },
        "systems": _systems(per_user, names, results),
        "comparisons": comparisons(per_user, names),
        **({"slices": slices(per_user, facts, names)} if facts else {}),
    }
    for block in ("retrieved", "whole_catalogue"):
        if _all_have(block, results):
            _, measured = of_users(folders, block)
            found[block] = _elsewhere(measured, names, [one[block] for one in results])
    if _all_have("distillation", results):
        found["distillation"] = _distillation(of_users(folders, "distillation")[1])
    return found


def _systems(
    per_user: PerUser, names: Mapping[str, str], results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the systems of a block: metrics of users, and what each seed's results have beside."""
    found = {}
    for name, metrics in per_user.items():
        ones = [one["systems"][names[name]] for one in results]
        order = _over_seeds([_only(one, "order_sensitivity") for one in ones])
        spread = {metric: _sd(values.mean(axis=1)) for metric, values in metrics.items()}
        found[names[name]] = {
            **means(metrics),
            **order,
            "sd": {**spread, **order.get("sd", {})},
            **_of_each_seed(ones),
        }
    return found


def _elsewhere(
    per_user: PerUser, names: Mapping[str, str], results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a block of other candidates."""
    lists = [one["lists"] for one in results]
    ceiling = _over_seeds([_only(one, "recall_ceiling") for one in results])
    return {
        "protocol": _protocol([one["protocol"] for one in results]),
        **ceiling,
        "systems": _systems(per_user, names, results),
        "comparisons": comparisons(per_user, names),
        "lists": {
            **_protocol([{name: one[name] for name in one if name != "systems"} for one in lists]),
            "systems": {
                names[name]: _over_seeds([one["systems"][names[name]] for one in lists])
                for name in per_user
            },
        },
    }


def _distillation(per_user: PerUser) -> dict[str, Any]:
    agreed = {name: metrics["agreement"] for name, metrics in per_user.items()}
    return {
        name: {**one, "sd": {"agreement": _sd(agreed[name].mean(axis=1))}}
        for name, one in agreement(agreed).items()
    }


def _all_have(block: str, results: Sequence[Mapping[str, Any]]) -> bool:
    having = sum(block in one for one in results)
    if 0 < having < len(results):
        logger.warning(
            "evaluate: %d of %d seeds have `%s`; left out of the summary over seeds",
            having,
            len(results),
            block,
        )
    return having == len(results)


def _over_seeds(ones: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the mean of numbers that all seeds have, and their `sd`; of none nothing."""
    shared = [name for name in ones[0] if all(name in one for one in ones)]
    values = {name: np.array([one[name] for one in ones]) for name in shared}
    found: dict[str, Any] = {name: float(one.mean()) for name, one in values.items()}
    return {**found, "sd": {name: _sd(one) for name, one in values.items()}} if found else {}


def _sd(of_seeds: FloatArray) -> float:
    return float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else 0.0


def _only(one: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name: one[name]} if name in one else {}


def _protocol(ones: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return facts that all seeds share as they are, and the others of each seed."""
    return {
        name: value if all(one.get(name) == value for one in ones) else [one[name] for one in ones]
        for name, value in ones[0].items()
    }


def _candidates(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the candidates are; a teacher's differ between seeds, and so do their files."""
    found = [one["candidates"] for one in protocols if "candidates" in one]
    hashes = [one["sha256"] for one in found]
    if len(set(hashes)) < 2:
        return {}
    return {"candidates": {**found[0], "sha256": hashes}}


def _of_each_seed(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the seconds together, and the weights of each seed."""
    kept: dict[str, Any] = {}
    if all("seconds" in one for one in found):
        kept["seconds"] = round(sum(one["seconds"] for one in found), 1)
    if all("weights" in one for one in found):
        kept["weights_by_seed"] = [one["weights"] for one in found]
    return kept
