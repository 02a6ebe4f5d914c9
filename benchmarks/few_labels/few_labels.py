"""How much the distilled prompt helps where stage 2 may see the true items of few users.

For each share of the users, stage 2 trains delrec and its control lora-only on their true next
items alone; data, teacher and prompt are the same for all shares. Writes a table (csv) and a
picture; repeated, it goes on where it was.
"""

import argparse
import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from delrec_hf.files import read_json
from delrec_hf.logging import configure
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe, load_recipe

UNTRAINED = ("teacher", "zero-shot", "prompt-only")
TRAINED = ["teacher", "lora-only", "delrec", "lora-only+teacher", "delrec+teacher"]
METRICS = ("hr@1", "expected_hr@1", "ndcg@10", "log_loss")


def run_share(recipe: Recipe, users: int | None) -> dict[str, Any]:
    """Run the recipe with so many users' true items, or all; all users' run lends data and prompt.

    The checkpoint is chosen on the same 300 users' validation items for every share.
    """
    whole = recipe.output_dir / "all-users"
    if users is None:
        run_recipe(replace(recipe, output_dir=whole))
        return read_json(whole / "results.json")
    folder = recipe.output_dir / f"{users}-users"
    if not folder.is_dir():
        shutil.copytree(whole, folder)
    changes = {
        "finetune": {
            "max_train_users": users,
            "controls": ["lora-only"],
            "max_steps": 120,
            "eval_steps": 30,  # with few rows a training is at its best early
            "save_steps": 30,
            "max_validation_users": 300,
        },
        "evaluate": {"systems": TRAINED},
    }
    sections = {name: {**given, **changes.get(name, {})} for name, given in recipe.sections.items()}
    run_recipe(replace(recipe, output_dir=folder, sections=sections))
    return read_json(folder / "results.json")


def rows_of(
    share: float, users: int, results: dict[str, Any], whole: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the table's rows of one share: each system, and delrec against lora-only."""
    systems = {**whole["systems"], **results["systems"]}  # what no share trains stays as it is
    rows = []
    for name in (*UNTRAINED, *TRAINED[1:]):
        key = name if name in systems else next(one for one in systems if one.startswith(name))
        row: dict[str, Any] = {"share": share, "users": users, "system": key}
        for metric in METRICS:
            if metric in systems[key]:
                spread = systems[key].get("sd", {}).get(metric)
                row |= {metric: systems[key][metric], f"sd of {metric}": spread}
        rows.append(row)
    for one in results["comparisons"]:
        if (one["a"], one["b"]) == ("delrec", "lora-only"):
            row = next(r for r in rows if r["system"] == "delrec")
            low, high = one["ci95"]
            row[f"{one['metric']} - lora-only"] = (
                f"{one['difference']:+.3f} [{low:+.3f}, {high:+.3f}] p {one['p']:.3f}"
            )
    return rows


def draw(rows: list[dict[str, Any]], metric: str, path: Path) -> None:
    """Draw each system's metric over the share of users."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "delrec"  # the same picture has the same bytes
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4))
    for name in dict.fromkeys(row["system"] for row in rows):
        points = [(100 * row["share"], row[metric]) for row in rows if row["system"] == name]
        trained = name in ("lora-only", "delrec")
        axes.plot(*zip(*points, strict=True), "o-" if trained else "--", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("users whose true next items stage 2 sees, %")
    axes.set_ylabel(metric.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run all shares of a recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="recipe")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        help="below 1; all users come besides",
        default=[0.01, 0.03, 0.1, 0.3],
    )
    parser.add_argument(
        "--table", required=True, help="where the table goes: a path without suffix"
    )
    parser.add_argument("--picture", help="where the picture goes (.svg); needs matplotlib")
    known, flags = parser.parse_known_args()
    configure()
    recipe = load_recipe(known.config, flags)
    whole = run_share(recipe, None)
    users = whole["protocol"]["users"]
    rows: list[dict[str, Any]] = []
    for share in sorted(known.shares):
        some = max(1, round(share * users))
        rows += rows_of(share, some, run_share(recipe, some), whole)
    rows += rows_of(1.0, users, whole, whole)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with Path(f"{known.table}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    if known.picture:
        metric = "expected_hr@1" if "expected_hr@1" in names else "hr@1"
        draw(rows, metric, Path(known.picture))


if __name__ == "__main__":
    main()
