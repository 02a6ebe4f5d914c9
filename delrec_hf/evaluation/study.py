"""What a study shows: each variant beside its recipe, user by user and seed by seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from delrec_hf.evaluation.cells import heading
from delrec_hf.evaluation.claims import LEVEL, claim, p_value
from delrec_hf.evaluation.kept import of_users
from delrec_hf.evaluation.metrics import EXPECTED_HR
from delrec_hf.evaluation.results import COMPARED_METRICS, means
from delrec_hf.evaluation.statistics import Estimate, estimate, holm
from delrec_hf.evaluation.table import Table, plain_text
from delrec_hf.files import read_json

STUDY_FILE = "study.json"
"""What a study found, in the folder of its recipe's run."""

SHOWN = ("teacher", "zero-shot", "prompt-only", "lora-only", "delrec", "delrec+teacher")
"""The systems of a variant; those of the recipe stand all in its own results."""

PerUser = Mapping[str, Mapping[str, npt.NDArray[Any]]]


def summarise_study(
    recipe: Sequence[Path],
    variants: Sequence[tuple[str, dict[str, Any], Sequence[Path]]],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Return the content of study.json.

    Args:
        recipe: Folders of the recipe's runs, one for each seed.
        variants: Name, changes and folders of each variant.
        seeds: The seeds; none: one run with the sections' own.

    Returns:
        `protocol` and `systems` of the recipe; `variants`, each with `name`, `changes`, `systems`
        and `comparisons`: DELRec as it is there (`a`) with the recipe's (`b`), and with LoRA alone
        as it is there. `p_holm` is corrected for all variants and metric by metric; a variant that
        other users were ranked in has none with the recipe.
    """
    users, base = of_users(recipe)
    found: list[dict[str, Any]] = []
    paired: dict[tuple[str, str, str], Estimate] = {}
    for name, changes, folders in variants:
        theirs, per_user = of_users(folders)
        found.append({"name": name, "changes": changes, "systems": _systems(per_user)})
        for against, other in (("delrec", base), ("lora-only", per_user)):
            if other is base and theirs["user_id"] != users["user_id"]:
                continue
            paired |= {
                (name, against, metric): one
                for metric, one in _paired(per_user, other, against).items()
            }
    compared = _corrected(paired)
    for one in found:
        one["comparisons"] = [
            entry for (name, *_), entry in compared.items() if name == one["name"]
        ]
    first = read_json(recipe[0] / "results.json")["protocol"]
    return {
        "protocol": {**first, **({"seeds": list(seeds)} if seeds else {})},
        "systems": _systems(base),
        "variants": found,
    }


def format_study(found: Mapping[str, Any]) -> str:
    """Return a study as a table: NDCG@10, or the expected HR@1 where the data have one."""
    metric = EXPECTED_HR if EXPECTED_HR in found["systems"]["delrec"] else "ndcg@10"
    rows = [["recipe", *_values(found["systems"], metric), ""]]
    for one in found["variants"]:
        against = [
            entry
            for entry in one["comparisons"]
            if (entry["b"], entry["metric"]) == ("delrec", metric)
        ]
        said = [
            f"{entry['difference']:+.3f} [{entry['ci95'][0]:+.3f}, {entry['ci95'][1]:+.3f}] "
            f"{p_value(entry['p_holm'])}"
            for entry in against
        ]
        rows.append([one["name"], *_values(one["systems"], metric), *(said or [""])])
    headers = ["variant", *SHOWN, "delrec, to the recipe's [95 %] Holm p"]
    return plain_text(Table(f"{heading(metric)} over seeds and users", headers, rows))


def _values(systems: Mapping[str, Mapping[str, Any]], metric: str) -> list[str]:
    return [f"{systems[name][metric]:.3f}" if name in systems else "" for name in SHOWN]


def _systems(per_user: PerUser) -> dict[str, Any]:
    return {
        name: {
            **means(metrics),
            "by_seed": {metric: values.mean(axis=1).tolist() for metric, values in metrics.items()},
        }
        for name, metrics in per_user.items()
        if name in SHOWN or name.startswith("delrec/")
    }


def _paired(mine: PerUser, other: PerUser, against: str) -> dict[str, Estimate]:
    """Return the paired differences of DELRec here and a system there, by metric."""
    if "delrec" not in mine or against not in other:
        return {}
    return {
        metric: estimate(mine["delrec"][metric] - other[against][metric])
        for metric in COMPARED_METRICS
        if metric in mine["delrec"] and metric in other[against]
    }


def _corrected(paired: Mapping[tuple[str, str, str], Estimate]) -> dict[Any, dict[str, Any]]:
    """Return comparisons as results.json holds them, corrected by what is compared and metric."""
    found = {}
    for against, metric in dict.fromkeys((key[1], key[2]) for key in paired):
        keys = [key for key in paired if key[1:] == (against, metric)]
        for key, p_holm in zip(keys, holm([paired[key].p for key in keys]), strict=True):
            one = paired[key]
            entry = {
                "a": f"delrec, {key[0]}",
                "b": against,
                "metric": metric,
                "difference": one.mean,
                "ci95": list(one.interval()),
                "p": one.p,
                "p_holm": p_holm,
                "detectable": one.detectable(level=LEVEL / len(keys)),
                "seeds": one.seeds,
                "users": one.users,
            }
            found[key] = {**entry, "claim": claim(entry)}
    return found
