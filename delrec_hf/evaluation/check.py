"""Whether a rerun gives the numbers that were published, each within its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delrec_hf.errors import InputError
from delrec_hf.evaluation.cells import heading
from delrec_hf.evaluation.table import Table, plain_text

SAME = ("dataset", "split", "users", "num_candidates", "history_length", "scoring", "seeds")
"""Facts of the protocol without which numbers are not of the same thing."""


@dataclass(frozen=True)
class Check:
    """One published number beside the rerun's.

    Attributes:
        what: A system, or a difference of two.
        metric: By what it was measured.
        published: The published value.
        bounds: Its published 95 % interval.
        again: The rerun's value.
    """

    what: str
    metric: str
    published: float
    bounds: tuple[float, float]
    again: float

    @property
    def holds(self) -> bool:
        """Whether the rerun lies within the published interval."""
        low, high = self.bounds
        noise = 1e-9  # of sums, where all users have the same value
        return low - noise <= self.again <= high + noise


def check(rerun: Mapping[str, Any], published: Mapping[str, Any]) -> list[Check]:
    """Compare two results.json: every mean, and every difference, that has an interval.

    Args:
        rerun: Content of the rerun's.
        published: Content of the published one.

    Returns:
        The numbers that both have.

    Raises:
        InputError: If they were measured differently, or have no number in common.
    """
    _refuse_others(rerun["protocol"], published["protocol"])
    found = [
        Check(name, metric, one[metric], (low, high), rerun["systems"][name][metric])
        for name, one in published["systems"].items()
        for metric, (low, high) in one.get("ci95", {}).items()
        if metric in rerun["systems"].get(name, {})
    ]
    pairs = {(one["a"], one["b"], one["metric"]): one for one in rerun.get("comparisons", [])}
    for one in published.get("comparisons", []):
        a, b, metric = key = (one["a"], one["b"], one["metric"])
        if key in pairs:
            low, high = one["ci95"]
            again = pairs[key]["difference"]
            found.append(Check(f"{a} - {b}", metric, one["difference"], (low, high), again))
    if not found:
        raise InputError(
            "the rerun has no system in common with the published results; it has "
            f"{', '.join(rerun['systems'])}, they have {', '.join(published['systems'])}"
        )
    return found


def format_checks(
    checks: Sequence[Check], rerun: Mapping[str, Any], published: Mapping[str, Any]
) -> str:
    """Say how many numbers hold, and show those that do not."""
    bad = [one for one in checks if not one.holds]
    lacking = [name for name in published["systems"] if name not in rerun["systems"]]
    farthest = max(checks, key=lambda one: abs(one.again - one.published))
    distance = abs(farthest.again - farthest.published)
    lines = [
        f"{len(checks) - len(bad)} of {len(checks)} numbers, of "
        f"{len(published['systems']) - len(lacking)} systems, lie within their published 95 % "
        "intervals",
        f"farthest off: {farthest.what} by {farthest.metric}, {distance:.4f}"
        if distance
        else "all are the same to the last digit",
    ]
    if lacking:
        lines.append(f"not in the rerun: {', '.join(lacking)}")
    hashes = [one["protocol"].get("candidates", {}).get("sha256") for one in (rerun, published)]
    if all(hashes) and hashes[0] != hashes[1]:
        lines.append("the files of candidates have other bytes: see `candidates` in both protocols")
    if bad:
        rows = [
            [
                one.what,
                heading(one.metric),
                f"{one.published:.4f} [{one.bounds[0]:.4f}, {one.bounds[1]:.4f}]",
                f"{one.again:.4f}",
            ]
            for one in bad
        ]
        headers = ["what", "metric", "published [95 %]", "rerun"]
        lines += ["", plain_text(Table("Outside", headers, rows, left=2))]
    return "\n".join(lines)


def _refuse_others(rerun: Mapping[str, Any], published: Mapping[str, Any]) -> None:
    for name in SAME:
        if name in published and rerun.get(name) != published[name]:
            raise InputError(
                f"the rerun was measured with {name} {rerun.get(name)}, the published results "
                f"with {published[name]}; repeat the command that made the published ones"
            )
