"""What a comparison may claim, in words."""

from collections.abc import Mapping
from typing import Any

from delrec_hf.evaluation.metrics import LOG_LOSS

LEVEL = 0.05
"""Of the two-sided tests, after Holm's correction."""

CLAIMED = "ndcg@10"
"""The metric whose claims the report prints; checkpoints are chosen by it, too."""

LEAST_USERS = 30
"""With fewer, a mean over users is not near enough to a normal distribution for its test."""

ONE_TRAINING = "over users of this one training; training noise is not in it"


def claim(comparison: Mapping[str, Any]) -> str:
    """Say in a sentence what a comparison shows, or could have shown.

    Args:
        comparison: An entry of `comparisons`: `a`, `b`, `metric`, `difference`, `ci95`, `p`,
            `p_holm`, `detectable`, and how many `seeds` and `users` it is over.

    >>> found = {"a": "delrec", "b": "lora-only", "metric": "ndcg@10", "difference": 0.02}
    >>> found |= {"ci95": [0.012, 0.031], "p": 0.001, "p_holm": 0.004, "detectable": 0.014}
    >>> found |= {"seeds": 3, "users": 600}
    >>> claim(found)
    'delrec is above lora-only on NDCG@10 by 0.012 to 0.031 (3 seeds, 600 users; Holm p 0.004)'
    >>> claim(found | {"p": 0.03, "p_holm": 0.2})
    'delrec and lora-only: no difference on NDCG@10 shown (3 seeds, 600 users; p 0.030, Holm p \
0.200); this study could have shown 0.014'
    """
    a, b, metric = comparison["a"], comparison["b"], comparison["metric"]
    seeds, users = comparison["seeds"], comparison["users"]
    name = metric.upper().replace("_", "-")
    if users < LEAST_USERS:
        return f"{a} and {b}: {users} users are too few to claim anything on {name}"
    number = f"{seeds} seeds" if seeds > 1 else "1 seed"
    corrected = f"Holm p {p_value(comparison['p_holm'])}"
    if comparison["p_holm"] >= LEVEL:
        return (
            f"{a} and {b}: no difference on {name} shown ({number}, {users} users; p "
            f"{p_value(comparison['p'])}, {corrected}); this study could have shown "
            f"{comparison['detectable']:.3f}"
        )
    better = " (lower is better)" if metric == LOG_LOSS else ""
    alone = f"; {ONE_TRAINING}" if seeds == 1 else ""
    return (
        f"{a} is {side(comparison)} {b} on {name}{better} by {by(comparison)} ({number}, {users} "
        f"users; {corrected}{alone})"
    )


def side(comparison: Mapping[str, Any]) -> str:
    """Say on which side of the second system the first one is."""
    return "above" if comparison["difference"] > 0 else "below"


def by(comparison: Mapping[str, Any]) -> str:
    """Say how far two systems that differ are apart, from the least to the most."""
    low, high = sorted(map(abs, comparison["ci95"]))
    return f"{low:.3f} to {high:.3f}"


def p_value(p: float) -> str:
    """Return a p-value with three digits, or that it is smaller.

    >>> p_value(0.0123), p_value(1e-9)
    ('0.012', '<0.001')
    """
    return "<0.001" if p < 0.0005 else f"{p:.3f}"
