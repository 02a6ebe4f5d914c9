"""Whether times tell the order of what a user did."""

import numpy as np
import numpy.typing as npt

from delrec_hf.data.audit.evidence import Evidence
from delrec_hf.data.audit.finding import ALPHA, Finding, binomial_tail, grade, normal_tail

_NO_ORDER = 0.9

Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]


def shared_timestamps(data: Evidence) -> Finding | None:
    """Say whether more steps are tied in time than a clock that keeps up with the events leaves.

    A tick is the greatest time that all gaps between a user's events are multiples of. Events that
    come no faster than ticks, at any rhythm that falls off, leave fewer gaps of no tick than of one
    tick (n e^-1 and n (1 - 1/e)^2 of n exponential gaps of a tick on average). The null has either
    as likely for each user: the sum over users of d[u], gaps of none less gaps of one, has mean 0
    and variance sum of d[u]^2. Nine tied steps of ten are no order, whatever the null.
    """
    events = data.events
    inside = ~events.first[1:]
    gaps, users = np.diff(events.times)[inside], events.users[1:][inside]
    tick = _tick(gaps)
    if not len(gaps):
        return None
    none, one = gaps == 0, gaps == tick
    excess = np.bincount(users, none.astype(np.float64) - one)
    by_chance = normal_tail(float(excess.sum()), float((excess**2).sum())) > ALPHA
    if by_chance and none.mean() < _NO_ORDER:
        return None
    last = np.append(events.first[2:], True)[inside]
    value, targets = float(none.mean()), float(none[last].mean())
    return Finding(
        "shared-timestamps",
        grade(value, warning=0.1, error=_NO_ORDER),
        value,
        float(one.mean()),
        f"{value:.1%} of steps are between rows of one user and one time, and {targets:.1%} of "
        f"users' last items (the test targets) are told from the one before by the order of rows "
        f"alone{_resolution(tick)}. Find finer times; or keep teacher.shuffle_ties, set "
        "teacher.horizon above 1, and do not read small differences between models",
    )


def order_lost(data: Evidence) -> Finding | None:
    """Say whether times were rounded to 32-bit floats, which are 128 s apart today.

    A 32-bit float of size 2^e and more is a multiple of s = 2^(e-23). The null has times at any
    remainder: each different time is such a multiple with chance 1/s, as in tossing coins; with
    chance 2^a/s where all times are multiples of 2^a times an odd number above 1, as tens of
    seconds are. Whole minutes and thousands are left out: whole days are multiples as well.
    """
    times = data.events.times
    whole = np.unique(times[np.abs(times) < 2.0**62].astype(np.int64))
    whole = whole[(whole % 60 != 0) & (whole % 1000 != 0)]
    spacing = np.spacing(np.abs(whole).astype(np.float32)).astype(np.int64)
    whole, spacing = whole[spacing >= 2], spacing[spacing >= 2]
    if not len(whole):
        return None
    on_grid = whole % spacing == 0
    common = int(np.gcd.reduce(whole))
    even = common & -common  # the greatest power of two in it
    known = even if common > even or common < spacing.min() else 1
    chance = float(np.minimum(1, known / spacing).mean())
    if binomial_tail(int(on_grid.sum()), len(whole), chance) > ALPHA:
        return None
    events = data.events
    tied = times[1:][(np.diff(times) == 0) & ~events.first[1:]]
    lost = float(np.isin(tied, whole[on_grid]).sum() / max(1, (~events.first).sum()))
    return Finding(
        "order-lost",
        grade(lost, warning=0.01, error=0.2),
        float(on_grid.mean()),
        chance,
        f"that share of times fits 32-bit floats, which are {int(np.median(spacing))} apart here: "
        f"they were rounded, and {lost:.1%} of steps are tied at such times. Export them again as "
        "whole numbers or 64-bit floats",
    )


def _tick(gaps: Numbers) -> float:
    """Return the greatest time that all gaps are multiples of; the smallest gap of fractions."""
    positive = gaps[gaps > 0]
    if not len(positive):
        return 1.0
    if np.issubdtype(positive.dtype, np.floating):
        if (positive % 1 != 0).any() or positive.max() >= 2.0**53:
            return float(positive.min())
        positive = positive.astype(np.int64)
    return float(np.gcd.reduce(positive))


def _resolution(tick: float) -> str:
    names = {86400: "whole days", 3600: "whole hours", 60: "whole minutes"}
    scales = {1: "", 1000: "", 10**6: "", 10**9: ""}
    found = [names[unit] for unit in names for scale in scales if tick == unit * scale]
    return f"; times are {found[0]}" if found else ""
