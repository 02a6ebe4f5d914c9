"""Systems measured apart on groups of users: by what was met before, and by what the target is."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from delrec_hf.evaluation.claims import LEAST_USERS
from delrec_hf.evaluation.metrics import LOG_LOSS
from delrec_hf.evaluation.statistics import estimate

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SEEN = "target_in_training"
"""In how many training interactions the target of a user stands."""

HISTORY = "history_items"
"""How many items a user has before the target."""

ITEMS = "items."
"""Before the name of a column of metadata: what the target is, its values parted by `|`."""

METRICS = ("hr@1", "ndcg@10", LOG_LOSS)
"""What is told of each group."""

MOST = 12
"""Groups by a column, at most; in place of the smallest one stands `N others`."""

UNKNOWN = "unknown"
"""The group of targets that a column says nothing of."""

_STARTS = {SEEN: (0, 1, 5, 25, 100), HISTORY: (0, 1, 5, 10, 20, 50)}
"""The least number of each group."""

_QUANTILES = (0.2, 0.4, 0.6, 0.8)


def slices(
    per_user: Mapping[str, Mapping[str, FloatArray]],
    facts: Mapping[str, Sequence[Any]],
    names: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return the block `slices` of results.json: means over the users of each group.

    Args:
        per_user: System name to metric to `(users,)` values, or `(seeds, users)`.
        facts: What users are grouped by, `SEEN`, `HISTORY` or `ITEMS` and a column, to `(users,)`
            values.
        names: System name to what the report calls it.

    Returns:
        A group each, with `by` (what it is grouped by), `group` (`5-24`), `users`, `systems` and
        `comparisons`: the paired difference of the main pair, with its interval where there are
        `LEAST_USERS` users. Empty groups are left out.
    """
    return [
        {
            "by": by,
            "group": group,
            "users": int(members.sum()),
            "systems": {
                names[system]: {
                    metric: float(values[metric][..., members].mean())
                    for metric in METRICS
                    if metric in values
                }
                for system, values in per_user.items()
            },
            "comparisons": _comparisons(per_user, members, names),
        }
        for by, values in facts.items()
        for group, members in group_users(by, values).items()
    ]


def group_users(by: str, values: Sequence[Any]) -> dict[str, BoolArray]:
    """Return the users of each group that has some, `(users,)` each.

    Args:
        by: What they are grouped by.
        values: `(users,)` of it: numbers, or of a column of metadata texts.
    """
    if by in _STARTS:
        starts = _STARTS[by]
        places = np.searchsorted(starts, np.asarray(values), side="right") - 1
        found = {_name(starts, place): places == place for place in range(len(starts))}
        return {name: members for name, members in found.items() if members.any()}
    parted = [str(text).split("|") if text else [UNKNOWN] for text in values]
    counts = Counter(one for several in parted for one in set(several) - {UNKNOWN})
    chosen = _chosen(counts)
    if any(UNKNOWN in several for several in parted):
        chosen[UNKNOWN] = {UNKNOWN}
    return {
        name: np.array([not texts.isdisjoint(several) for several in parted])
        for name, texts in chosen.items()
    }


def by_kind(entries: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the groups of the block `slices` by what they are grouped by.

    Earlier versions grouped by `SEEN` alone, and had `seen` in place of `by` and `group`.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for one in entries:
        entry = {"by": SEEN, "group": one.get("seen"), **one}
        found.setdefault(str(entry["by"]), []).append(entry)
    return found


def words(by: str) -> str:
    """Say what users are grouped by.

    >>> words(SEEN), words("items.genre")
    ('how often the target was met in training', "the target's genre")
    """
    if by.startswith(ITEMS):
        return f"the target's {by.removeprefix(ITEMS)}"
    told = {SEEN: "how often the target was met in training"}
    return told.get(by, "how many items the user had before")


def main_pair(systems: Sequence[str]) -> tuple[str, str | None]:
    """Return whom groups are about: DELRec and the teacher, or those that come nearest to them.

    >>> main_pair(["random", "popularity", "teacher/gru4rec", "zero-shot", "delrec"])
    ('delrec', 'teacher/gru4rec')
    >>> main_pair(["random", "popularity", "co-occurrence"]), main_pair(["random"])
    (('co-occurrence', 'popularity'), ('random', None))
    """
    first = "delrec" if "delrec" in systems else systems[-1]
    others = [one for one in systems if one != first]
    teachers = [one for one in others if one.split("/")[0] == "teacher"]
    known = [one for one in ("co-occurrence", "popularity") if one in others]
    return first, next(iter([*teachers, *known, *others]), None)


def _comparisons(
    per_user: Mapping[str, Mapping[str, FloatArray]], members: BoolArray, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    a, b = main_pair(list(per_user))
    users = int(members.sum())
    if b is None or users < 2:
        return []
    found = []
    for metric in METRICS:
        if metric not in per_user[a] or metric not in per_user[b]:
            continue
        one = estimate((per_user[a][metric] - per_user[b][metric])[..., members])
        interval = {"ci95": list(one.interval())} if users >= LEAST_USERS else {}
        facts = {"a": names[a], "b": names[b], "metric": metric, "difference": one.mean}
        found.append({**facts, **interval, "seeds": one.seeds, "users": users})
    return found


def _name(starts: Sequence[int], place: int) -> str:
    first = starts[place]
    if place + 1 == len(starts):
        return f"{first}+"
    last = starts[place + 1] - 1
    return f"{first}" if first == last else f"{first}-{last}"


def _chosen(counts: Counter[str]) -> dict[str, set[str]]:
    """Return the groups that values make, and the values of each: numbers in their order."""
    numbers = _numbers(counts)
    if numbers is not None and len(set(numbers.values())) > MOST:
        return _ranges(numbers, counts)
    if numbers is not None:
        found: dict[str, set[str]] = {}
        for text, number in sorted(numbers.items(), key=lambda one: one[1]):
            found.setdefault(_written(number), set()).add(text)  # 7 and 07 are one
        return found
    texts = sorted(counts, key=lambda one: (-counts[one], one))
    kept = texts if len(texts) <= MOST else texts[: MOST - 1]
    rest = set(texts[len(kept) :])
    return {**{one: {one} for one in kept}, **({f"{len(rest)} others": rest} if rest else {})}


def _ranges(numbers: Mapping[str, float], counts: Counter[str]) -> dict[str, set[str]]:
    """Return ranges of numbers that hold about as many users each."""
    texts = list(numbers)
    values = np.array([numbers[text] for text in texts])
    cuts = np.quantile(np.repeat(values, [counts[one] for one in texts]), _QUANTILES)
    places = np.searchsorted(np.unique(cuts), values)
    found = {}
    for place in np.unique(places):
        low, high = (_written(end(values[places == place])) for end in (np.min, np.max))
        within = {text for text, its in zip(texts, places, strict=True) if its == place}
        found[low if low == high else f"{low} to {high}"] = within
    return found


def _numbers(texts: Iterable[str]) -> dict[str, float] | None:
    """Return what texts are as numbers, if all of them are."""
    try:
        found = {text: float(text) for text in texts}
    except ValueError:
        return None
    return found if np.isfinite(list(found.values())).all() else None


def _written(number: float) -> str:
    return f"{number:.0f}" if number == round(number) else repr(float(number))
