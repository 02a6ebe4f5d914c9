"""The audit of a recipe's data and of what its finished stages made of it, and of bare files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from delrec_hf.data.audit.checks import DATA_CHECKS, EXAMPLE_CHECKS, Check, look, worst_first
from delrec_hf.data.audit.evidence import Evidence
from delrec_hf.data.audit.finding import Finding
from delrec_hf.data.config import DataConfig
from delrec_hf.data.interactions import Source, read_interactions
from delrec_hf.data.prepared import PreparedData, build
from delrec_hf.errors import InputError
from delrec_hf.files import write_json
from delrec_hf.instructions.audit import shown_in_prompts
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.lsr import lsr_rows
from delrec_hf.instructions.rps import rps_rows
from delrec_hf.instructions.ta import ta_rows
from delrec_hf.instructions.templates import load_domain
from delrec_hf.logging import get_logger
from delrec_hf.runs.recipe import Recipe
from delrec_hf.teachers.audit import CODES, audit_teacher
from delrec_hf.teachers.predictions import read_predictions

logger = get_logger(__name__)

FILE = "audit.json"
"""What the findings are kept in, in a run's folder."""

_SEED = 42
_PROMPTS = 500


def audit_files(config: DataConfig) -> tuple[list[Finding], list[str]]:
    """Audit interactions and items that no run has prepared.

    Candidates are drawn as `prepare` would draw them, fewer where there are few items.

    Returns:
        What was found, the worst first, and the codes of all checks.

    Raises:
        InputError: Whatever `prepare` would refuse.
    """
    source = read_interactions(config)
    fitting = replace(config, num_candidates=_num_candidates(config, source))
    return worst_first(look(DATA_CHECKS, Evidence(source, build(fitting, source)))), _codes(
        DATA_CHECKS
    )


def audit_run(recipe: Recipe) -> tuple[list[Finding], list[str]]:
    """Audit a recipe's data and what is there of its run, and keep the findings in `audit.json`.

    Returns:
        What was found, the worst first, and the codes of all checks that were made.

    Raises:
        InputError: If the data cannot be used, or are others than those that were prepared.
    """
    folder, config = recipe.output_dir, recipe.settings("data")
    if recipe.seeds:  # the data are one; of the teachers the first is looked at
        folder = folder / f"seed-{recipe.seeds[0]}"
    source = read_interactions(config)
    if not (folder / "data" / "info.json").is_file():
        logger.info("audit: %s holds no prepared data; the data alone are audited", folder)
        evidence = Evidence(source, build(config, source))
        found, codes = look(DATA_CHECKS, evidence), _codes(DATA_CHECKS)
    else:
        prepared = PreparedData.load(folder / "data")
        _refuse_other_items(source, prepared, folder)
        checks = (*DATA_CHECKS, *EXAMPLE_CHECKS)
        found, codes = look(checks, Evidence(source, prepared)), _codes(checks)
        found += [one for one in [_in_prompts(recipe, prepared, folder)] if one is not None]
        if (folder / "teacher" / "predictions").is_dir():
            found += audit_teacher(folder / "teacher", prepared)
            codes += CODES
    found = worst_first(found)
    write_findings(recipe.output_dir, found)
    return found, codes


def audit_prepared(source: Source, prepared: PreparedData, folder: Path) -> None:
    """Audit data that were prepared just now: keep all findings, and log the bad ones.

    Args:
        source: What was read.
        prepared: What was made of it.
        folder: The run's folder.
    """
    found = worst_first(look(DATA_CHECKS, Evidence(source, prepared)))
    for one in found:
        if one.severity != "info":
            logger.warning("audit: %s: %s", one.severity, one)
    write_findings(folder, found)


def write_findings(folder: Path, findings: list[Finding]) -> None:
    """Write findings to a run's `audit.json`."""
    write_json(folder / FILE, as_json(findings))


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Return findings as `--json` prints them."""
    return {"findings": [one.to_dict() for one in findings]}


def _codes(checks: tuple[Check, ...]) -> list[str]:
    return [check.code for check in checks]


def _num_candidates(config: DataConfig, source: Source) -> int:
    """Return how many candidates nine of ten users leave enough items for."""
    met = np.unique(source.interactions["user_id"][:], return_counts=True)[1]
    unmet = len(source.items) - int(np.quantile(met, 0.9, method="lower"))
    return max(2, min(config.num_candidates, unmet + 1))


def _refuse_other_items(source: Source, prepared: PreparedData, folder: Path) -> None:
    if source.items["item_id"][:] != prepared.items["item_id"][:]:
        raise InputError(
            f"{folder / 'data'} was prepared from other items than the recipe's data holds now; "
            "run `delrec prepare` again, or give the data that the run was made of"
        )


def _in_prompts(recipe: Recipe, prepared: PreparedData, folder: Path) -> Finding | None:
    """Look for the target in prompts of some test examples, worded without a tokenizer."""
    examples = prepared.examples["test"]
    some = np.random.default_rng(_SEED).permutation(len(examples))[:_PROMPTS]
    examples = examples.select(np.sort(some))
    given = recipe.settings("instructions")
    config = InstructionsConfig(candidates=given.candidates, turns=given.turns)
    items, domain = prepared.items, load_domain(prepared.info["domain"])
    titles = items["title"][:]
    rows = [
        lsr_rows(examples, items, titles, domain, config),
        ta_rows(examples, prepared.sequences, items, titles, domain, config, _SEED),
    ]
    if (folder / "teacher" / "predictions").is_dir():
        predictions = read_predictions(folder / "teacher" / "predictions", "test")
        rows.append(rps_rows(examples, predictions, items, titles, domain, config, _SEED))
    return shown_in_prompts(rows, dict(zip(items["item_id"][:], titles, strict=True)))
