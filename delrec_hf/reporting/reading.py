"""What the folders of finished runs hold for a report."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from delrec_hf.errors import InputError
from delrec_hf.evaluation.study import STUDY_FILE
from delrec_hf.files import read_json

RESULTS_FILE = "results.json"
PICTURE_FILE = "results.png"
"""The results as a picture, in a model's folder: `delrec report` draws it, the card shows it."""

Logs = dict[str, list[list[dict[str, Any]]]]


@dataclass(frozen=True)
class FinishedRun:
    """A run as a report reads it; what a bare results.json does not come with is empty.

    Attributes:
        name: What the report calls it: its folder's name, longer where two are alike.
        path: Folder, or file of results.
        results: Content of results.json.
        record: Content of run.json, the first seed's if there are several.
        logs: Name of a training to its history of each seed, a list of what was logged.
        data: Content of data/info.json.
        findings: What `delrec audit` found; None: it was not run.
        study: Content of study.json, what `delrec study` found; empty: it was not run.
    """

    name: str
    path: Path
    results: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    logs: Logs = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    findings: list[dict[str, Any]] | None = None
    study: dict[str, Any] = field(default_factory=dict)

    @property
    def systems(self) -> dict[str, dict[str, Any]]:
        """The measured systems, in the order of the report."""
        return self.results["systems"]

    @property
    def protocol(self) -> dict[str, Any]:
        """What was measured on."""
        return self.results.get("protocol", {})

    @property
    def seeds(self) -> list[Any]:
        """The seeds of its trainings."""
        seeds = self.protocol.get("seeds", [])
        return seeds if isinstance(seeds, list) else [seeds]

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Settings by section, as the record of its stages has them."""
        found: dict[str, dict[str, Any]] = {}
        for stage in self.record.get("stages", {}).values():
            for section, given in stage.get("settings", {}).items():
                found[section] = {**found.get(section, {}), **given}
        return found


def read_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """Read runs, and give each a name of its own.

    Args:
        paths: Folders of runs, or files of results.

    Raises:
        InputError: If one of them is no finished run, or stands there twice.
    """
    places = [path.parent if path.name == RESULTS_FILE else path for path in paths]
    for place, times in Counter(place.resolve() for place in places).items():
        if times > 1:
            raise InputError(f"{place} stands there {times} times; expected each run once")
    runs = [_read(path, place) for path, place in zip(paths, places, strict=True)]
    return [replace(run, name=name) for run, name in zip(runs, _names(places), strict=True)]


def number(value: Any) -> float | None:
    """Return a finite number as it is, and None for everything else.

    >>> number(0.5), number(True), number("0.5")
    (0.5, None, None)
    """
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return value if usable and math.isfinite(value) else None


def interval(of: Any, metric: str | None = None) -> tuple[float, float] | None:
    """Return the bounds of an entry's `ci95`, of one metric if it has several.

    >>> interval({"ci95": [0.25, 0.75]}), interval({"ci95": {"mrr": [0, 1]}}, "mrr"), interval({})
    ((0.25, 0.75), (0, 1), None)
    """
    bounds = of.get("ci95")
    if metric is not None:
        bounds = bounds.get(metric) if isinstance(bounds, dict) else None
    if not isinstance(bounds, list) or len(bounds) != 2:
        return None
    low, high = number(bounds[0]), number(bounds[1])
    return None if low is None or high is None else (low, high)


def _read(path: Path, place: Path) -> FinishedRun:
    file = path if path.is_file() else path / RESULTS_FILE
    if not path.exists():
        raise InputError(f"{path} is not there; give the folder of a run, or a results.json")
    if not file.is_file():
        raise InputError(
            f"{path} holds no {RESULTS_FILE}: nothing was measured; run `delrec evaluate` first, "
            "or give the folder of a finished run"
        )
    results = _checked(read_json(file), file)
    if path.is_file() and path.name != RESULTS_FILE:  # what lies beside it is not of this run
        return FinishedRun(file.stem, path, results)
    seeds = sorted(place.glob("seed-*"), key=lambda one: (len(one.name), one.name))
    ones = [one for one in seeds if (one / "run.json").is_file()]
    first = place if (place / "run.json").is_file() or not ones else ones[0]
    return FinishedRun(
        place.name,
        path,
        results,
        record=_mapping(first / "run.json"),
        logs=_logs(ones or [place]),
        data=_mapping(first / "data" / "info.json"),
        findings=_findings(place / "audit.json") or _findings(first / "audit.json"),
        study=_study(place / STUDY_FILE),
    )


def _checked(results: Any, file: Path) -> dict[str, Any]:
    """Refuse what is no results.json; single numbers may lack."""
    lists = ("comparisons", "slices", "claims")
    if (
        isinstance(results, dict)
        and isinstance(results.get("systems"), dict)
        and results["systems"]
        and all(isinstance(one, dict) for one in results["systems"].values())
        and isinstance(results.get("protocol", {}), dict)
        and all(isinstance(results.get(name, []), list) for name in lists)
        and all(
            isinstance(one, dict) and {"a", "b", "metric"} <= set(one)
            for one in results.get("comparisons", [])
        )
        and all(isinstance(one, dict) for one in results.get("slices", []))
    ):
        return results
    raise InputError(
        f"{file} is not the results of a run: expected `protocol`, `systems` and `comparisons` as "
        "`delrec evaluate` writes them"
    )


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no keys and values; restore it, or run the stage again")
    return content


def _logs(folders: Sequence[Path]) -> Logs:
    """Return the histories of all trainings, of each folder that has one."""
    found: Logs = {}
    for folder in folders:
        for path in sorted((folder / "logs").glob("*.json")):
            history = read_json(path)
            if not isinstance(history, list) or not all(isinstance(one, dict) for one in history):
                raise InputError(f"{path} is no training's history; run that stage again")
            found.setdefault(path.stem, []).append(history)
    return found


def _findings(path: Path) -> list[dict[str, Any]] | None:
    content = _mapping(path)
    if not content:
        return None
    findings = content.get("findings")
    if not isinstance(findings, list) or not all(isinstance(one, dict) for one in findings):
        raise InputError(f"{path} holds no `findings`; run `delrec audit` again")
    return findings


def _study(path: Path) -> dict[str, Any]:
    content = _mapping(path)
    variants = content.get("variants", [])
    if isinstance(variants, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("name"), str)
        and all(isinstance(one.get(name), dict) for name in ("changes", "systems"))
        and isinstance(one.get("comparisons"), list)
        for one in variants
    ):
        return content
    raise InputError(f"{path} is not what a study found; run `delrec study` again")


def _names(places: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell all of them apart."""
    whole = [place.resolve() for place in places]
    parts = [(one.with_suffix("") if one.suffix == ".json" else one).parts for one in whole]
    length = 1
    while len({one[-length:] for one in parts}) < len(parts) and length < max(map(len, parts)):
        length += 1
    return ["/".join(one[-length:]) for one in parts]
