"""What a report says in words: numbers, names, and what may be claimed."""

from collections.abc import Sequence
from typing import Any

from delrec_hf import logging
from delrec_hf.evaluation.claims import LEAST_USERS, LEVEL
from delrec_hf.evaluation.metrics import EXPECTED_HR, LOG_LOSS
from delrec_hf.evaluation.notes import changed_choices
from delrec_hf.evaluation.table import one_line
from delrec_hf.reporting.reading import FinishedRun, interval, number

UNKNOWN = "\N{EN DASH}"
MODELS = ("delrec", "delrec+teacher")
"""What a report makes claims about."""

_WEAK = ("random", "popularity", "markov", "zero-shot", "prompt-only")
_SPLITS = {
    "leave-one-out": (
        "Leave-one-out: each user's last item is the test target and the item before it the "
        "validation target. Training therefore sees what other users did after a test target was "
        "chosen: a system may learn from a future that it would not know in use."
    ),
    "time": (
        "By time: validation and test targets come after everything that was learned from, as in "
        "use."
    ),
}


def heading(metric: str) -> str:
    """Return what a metric is called.

    >>> heading("ndcg@10"), heading("expected_hr@1"), heading("log_loss")
    ('NDCG@10', 'Expected HR@1', 'Log-loss')
    """
    if metric == LOG_LOSS:
        return "Log-loss"
    first, _, rest = metric.partition("_")
    return f"{first.capitalize()} {rest.upper()}" if rest else metric.upper()


def decimal(value: Any, sign: bool = False) -> str:
    """Return a number to three digits, with a real minus.

    >>> decimal(0.04567, sign=True), decimal(None) == UNKNOWN
    ('+0.046', True)
    """
    found = number(value)
    if found is None:
        return UNKNOWN
    shown = f"{found:{'+' if sign else ''}.3f}".replace("-", "\N{MINUS SIGN}")
    return shown if shown.strip("+\N{MINUS SIGN}0.") else "0.000"


def span(bounds: tuple[float, float] | None, sign: bool = False) -> str:
    """Return an interval in brackets, or nothing."""
    return "" if bounds is None else f"[{', '.join(decimal(one, sign) for one in bounds)}]"


def duration(seconds: Any) -> str:
    """Return a time as people read it.

    >>> duration(258), duration(None) == UNKNOWN
    ('4 min 18 s', True)
    """
    found = number(seconds)
    return UNKNOWN if found is None else logging.duration(found)


def printable(text: Any, longest: int = 200) -> str:
    """Return a text on one line, without characters that nothing can show, cut to a length."""
    shown = "".join(one if one.isprintable() else " " for one in one_line(text))
    return shown if len(shown) <= longest else f"{shown[: longest - 1].rstrip()}…"


def main_metrics(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the metrics that claims and pictures are about, the first one above all.

    Checkpoints are chosen by NDCG@10. Where the rule of a made-up world is known, the expected HR@1
    is the sharpest ruler.
    """
    order = ("ndcg@10", EXPECTED_HR, "hr@1", "mrr", "hr@10", LOG_LOSS)
    shared = [
        metric
        for metric in order
        if all(any(metric in one for one in run.systems.values()) for run in runs)
    ]
    return shared[:2]


def adjusted(comparison: dict[str, Any]) -> float | None:
    """Return a comparison's p corrected for the number of comparisons, if results hold one."""
    return number(comparison.get("p_holm"))


def verdict(comparison: dict[str, Any]) -> str | None:
    """Say whether a system is `above`, `below` or `level`; None where nothing was measured."""
    difference, bounds = number(comparison.get("difference")), interval(comparison)
    if difference is None or bounds is None:
        return None
    better = difference if comparison["metric"] != LOG_LOSS else -difference
    corrected = adjusted(comparison)
    apart = bounds[0] > 0 or bounds[1] < 0 if corrected is None else corrected < LEVEL
    if not apart:
        return "level"
    return "above" if better > 0 else "below"


def claims(run: FinishedRun) -> list[str]:
    """Return what may be claimed: what the results say of it, or what their comparisons do."""
    given = [printable(one, 1000) for one in run.results.get("claims", []) if isinstance(one, str)]
    return given or [*_derived(run), *_cautions(run)]


def over(run: FinishedRun) -> str:
    """Say what the intervals are over: users, or seeds and users."""
    return printable(run.protocol.get("intervals", "users"), 40)


def _derived(run: FinishedRun) -> list[str]:
    metric = next(iter(main_metrics([run])), None)
    users = number(run.protocol.get("users"))
    if users is not None and users < LEAST_USERS:
        return [f"{users} test users are too few to claim anything about systems."]
    said = []
    for model in MODELS:
        about = [
            one
            for one in run.results.get("comparisons", [])
            if one["a"] == model and one["metric"] == metric
        ]
        parts = []
        for kind, words in (
            ("above", "above"),
            ("level", "not shown to differ from"),
            ("below", "below"),
        ):
            others = [_against(one, kind) for one in about if verdict(one) == kind]
            if kind == "level" and any("detectable" in one for one in about):
                words += " (in brackets, what this study could have shown)"
            if others:
                parts.append(f"{words} {', '.join(others)}")
        if parts:
            said.append(f"In {_within(str(metric))}, {model} is {'; '.join(parts)}.")
    return said or ["No comparison of DELRec with another system was measured: nothing follows."]


def _within(metric: str) -> str:
    """Return a metric's name as it stands within a sentence."""
    name = heading(metric)
    return name if name[:2].isupper() else f"{name[0].lower()}{name[1:]}"


def _against(comparison: dict[str, Any], how: str) -> str:
    """Name the other system, and by how much, unless it is one that anything should beat."""
    name = printable(comparison["b"], 40)
    if how == "above" and name in _WEAK:
        return name
    could = number(comparison.get("detectable"))
    if how == "level" and could is not None:
        return f"{name} ({decimal(could)})"
    return f"{name} ({decimal(comparison['difference'], True)} {span(interval(comparison), True)})"


def _cautions(run: FinishedRun) -> list[str]:
    said = []
    candidates, found = run.protocol.get("num_candidates"), run.results.get("comparisons", [])
    if len(run.seeds) == 1:
        said.append(
            "One seed was trained: the intervals say how users vary, not how trainings vary."
        )
    if found and all(adjusted(one) is None for one in found):
        said.append(
            f"Intervals and p-values of the {len(found)} comparisons are not corrected for their "
            "number: of twenty pairs that do not differ, one would look as if it did."
        )
    if candidates is not None:
        said.append(
            f"Each target stands among {printable(candidates)} candidates; no number here compares "
            "with one measured on other candidates or on a whole catalogue."
        )
    if "best_hr_at_1" in run.protocol:
        said.append("The world is made up: what holds in it need not hold for people.")
    return said


def protocol_words(run: FinishedRun) -> list[str]:
    """Return the sentences that a reader of the numbers must know."""
    protocol = run.protocol
    said = [_SPLITS[split] for split in [protocol.get("split")] if split in _SPLITS]
    samples = protocol.get("bootstrap", {})
    how = f", over {over(run)}"
    if isinstance(samples, dict) and samples.get("samples"):
        how = f": percentile bootstrap over users, {samples['samples']} samples"
    said.append(f"Intervals hold 95 %{how}. Differences pair the systems user by user.")
    if "correction" in protocol:
        said.append(f"Correction of p: {printable(protocol['correction'])}.")
    if len(run.seeds) > 1:
        said.append(
            f"A number is the mean over {len(run.seeds)} seeds, ± the standard deviation of the "
            "seeds' means."
        )
    if "best_hr_at_1" in protocol:
        said.append(
            "Expected HR@1: the chance, by the rule of this made-up world, that what a system "
            "ranks first is the target. No ranker can expect more than the limit, "
            f"{decimal(protocol['best_hr_at_1'])}."
        )
    if any(LOG_LOSS in one for one in run.systems.values()):
        said.append(
            "Log-loss: minus the log-chance of the target among the candidates, in nats; lower is "
            "better. The weights that make chances of scores are fitted on validation users."
        )
    if changed := changed_choices(run.systems):
        said.append(printable(changed, 1000))
    return said


def comparable(runs: Sequence[FinishedRun]) -> list[str]:
    """Say what may be read from numbers of several runs beside each other."""
    facts = ("dataset", "split", "users", "num_candidates", "candidates_seed")
    differ = [
        fact.replace("num_", "").replace("_", " ")
        for fact in facts
        if len({str(run.protocol.get(fact)) for run in runs}) > 1
    ]
    said = ["Between runs nothing is paired: intervals that overlap decide nothing."]
    if differ:
        said.append(
            f"These runs differ in {', '.join(differ)}: their numbers do not compare with each "
            "other."
        )
    return said
