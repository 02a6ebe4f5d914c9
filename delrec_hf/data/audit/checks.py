"""All checks of the data, and the audit that runs them."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from delrec_hf.data.audit.candidates import (
    malformed_candidates,
    shown_target,
    telling_candidates,
    telling_place,
)
from delrec_hf.data.audit.catalogue import (
    duplicate_titles,
    popularity_coded_ids,
)
from delrec_hf.data.audit.evidence import Evidence
from delrec_hf.data.audit.finding import SEVERITIES, Finding
from delrec_hf.data.audit.order import (
    order_coded_ids,
    sorted_by_id,
    sorted_by_popularity,
    sorted_by_title,
)
from delrec_hf.data.audit.times import order_lost, shared_timestamps
from delrec_hf.data.audit.trivial import trivial_baseline
from delrec_hf.data.audit.twins import near_duplicate_items
from delrec_hf.data.audit.users import (
    duplicate_users,
    leaked_target,
    repeated_interactions,
    short_histories,
    test_only_items,
    test_only_users,
)


class Check(NamedTuple):
    """A question to the data.

    Attributes:
        code: What its finding is called.
        look: Returns the finding, or None where chance explains what it sees.
        tests: How often it compares with chance.
    """

    code: str
    look: Callable[[Evidence], Finding | None]
    tests: int


DATA_CHECKS = (
    Check("sorted-by-id", sorted_by_id, 2),
    Check("sorted-by-title", sorted_by_title, 2),
    Check("sorted-by-popularity", sorted_by_popularity, 1),
    Check("order-coded-ids", order_coded_ids, 1),
    Check("popularity-coded-ids", popularity_coded_ids, 2),
    Check("shared-timestamps", shared_timestamps, 1),
    Check("order-lost", order_lost, 1),
    Check("duplicate-titles", duplicate_titles, 0),
    Check("near-duplicate-items", near_duplicate_items, 1),
    Check("repeated-interactions", repeated_interactions, 2),
    Check("leaked-target", leaked_target, 1),
    Check("duplicate-users", duplicate_users, 1),
    Check("short-histories", short_histories, 0),
    Check("test-only-items", test_only_items, 1),
    Check("test-only-users", test_only_users, 0),
    Check("trivial-baseline", trivial_baseline, 0),
)
"""What is asked of the data, in the order of the documentation."""

EXAMPLE_CHECKS = (
    Check("leaked-target", shown_target, 0),
    Check("candidates-give-away-target", malformed_candidates, 0),
    Check("candidates-give-away-target", telling_place, 1),
    Check("candidates-give-away-target", telling_candidates, 10),
)
"""What is asked of stored examples; those that were drawn just now cannot fail it."""


def look(checks: Iterable[Check], data: Evidence) -> list[Finding]:
    """Return what checks find, in their order."""
    return [found for check in checks if (found := check.look(data)) is not None]


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in order of severity, those of one severity in their order."""
    return sorted(findings, key=lambda one: -SEVERITIES.index(one.severity))


def table(findings: Sequence[Finding], checked: Iterable[str]) -> str:
    """Return findings as people read them, the worst first, and what was found clean.

    Args:
        findings: All of them.
        checked: Codes of the checks that were made.
    """
    lines = []
    for one in worst_first(findings):
        told = one.to_dict()
        numbers = f"{told['value']:g} (expected {told['expected']:g})"
        lines.append(f"{one.severity:<8} {one.code:<28} {numbers}")
        lines += textwrap.wrap(one.explanation, 96, initial_indent="  ", subsequent_indent="  ")
    codes = {one.code for one in findings}
    clean = ", ".join(code for code in dict.fromkeys(checked) if code not in codes)
    lines.append(f"checked and found clean: {clean or 'nothing'}")
    return "\n".join(lines)
