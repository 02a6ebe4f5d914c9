"""What users do twice, what only the test knows, and who is too short to learn from."""

import numpy as np
import numpy.typing as npt

from delrec_hf.data.audit.evidence import Evidence, ranks
from delrec_hf.data.audit.finding import ALPHA, Finding, grade, normal_tail, poisson_tail
from delrec_hf.data.filters import first_of_moment
from delrec_hf.data.splitmix import splitmix64

FloatArray = npt.NDArray[np.float64]


def repeated_interactions(data: Evidence) -> Finding | None:
    """Say whether users meet items again more often than popularity explains, or rows stand twice.

    The null draws each of a user's n rows by popularity p alone: the expected number of repeats is
    the sum over users and items of n p - 1 + (1 - p)^n, the count nearly Poisson. Of those, as many
    have one time by chance as steps do.
    """
    events = data.events
    keys = np.sort(events.users * len(data.prepared.items) + events.items)
    repeats, rows = int((np.diff(keys) == 0).sum()), len(keys)
    copies = int((~first_of_moment(events.users, events.items, events.times)).sum())
    expected = _expected_repeats(data)
    tied = (np.diff(events.times) == 0) & (np.diff(events.items) != 0) & ~events.first[1:]
    same_time = expected * float(tied.mean())
    doubled = poisson_tail(copies, same_time) <= ALPHA
    if poisson_tail(repeats, expected) > ALPHA:
        if not doubled:
            return None
        repeats, expected = copies, same_time
    value, chance = repeats / rows, expected / rows
    return Finding(
        "repeated-interactions",
        grade(value - chance, warning=0.01),
        value,
        chance,
        f"that share of rows names an item that the user has in another row, and {copies} rows "
        "stand there twice, time and all. Only one of them counts (data.repeats): where people do "
        "come back, the task is another than next new item; where rows were exported twice, mend "
        "the export",
    )


def leaked_target(data: Evidence) -> Finding | None:
    """Say whether users' last rows are more often of something met before than other rows are.

    Items with one title are one. The null puts each user's rows into any order: the last one is a
    repeat with the share of the user's rows whose item is there twice or more, independent users.
    """
    events = data.events
    titles = ranks(data.titles)
    size = int(titles.max()) + 1
    pairs = events.users * size + titles[events.items]
    _, which, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    again = counts[which] > 1
    users = len(np.unique(events.users))
    rows = np.bincount(events.users, minlength=users)
    chance = np.bincount(events.users, again, users) / rows
    is_last = np.append(events.first[1:], True)
    found = int(again[is_last].sum())
    variance = float((chance * (1 - chance)).sum())
    if normal_tail(found - 0.5 - float(chance.sum()), variance) > ALPHA:
        return None
    value, expected = found / users, float(chance.mean())
    return Finding(
        "leaked-target",
        grade(value - expected, warning=0.01, error=0.1),
        value,
        expected,
        "that share of users has the last item, the test target, in the history already, under its "
        "id or its title: the answer stands in the question. Take the copies out of the history, "
        "and look at whatever joined the last rows to the others",
    )


def duplicate_users(data: Evidence) -> Finding | None:
    """Say whether several user ids have one and the same history.

    The null has users walk the data's own transitions: a history has the chance P = p(first item)
    times the product of max(p(next), (n[i, j] - 2) / n[i]), transitions less the two that a user
    and a copy make. Pairs of equal histories are Poisson with mean sum over users of P (m - 1) / 2,
    m the users with as long a history.
    """
    sequences = data.sequences
    placed = (sequences.items << 20) ^ data.places
    sums = np.add.reduceat(splitmix64(placed.astype(np.uint64)), sequences.starts[:-1])
    _, which, counts = np.unique(sums, return_inverse=True, return_counts=True)
    pairs = int((counts * (counts - 1) // 2).sum())
    if not pairs:
        return None
    same_length = np.bincount(sequences.lengths)[sequences.lengths]
    expected = float((np.exp(_log_chances(data)) * (same_length - 1)).sum() / 2)
    if poisson_tail(pairs, expected) > ALPHA:
        return None
    copies = float((counts[which] > 1).mean())
    return Finding(
        "duplicate-users",
        grade(copies, warning=0.01, error=0.2),
        copies,
        2 * expected / len(sums),
        "that share of users has the same items in the same order as another user: their tests "
        "count several times, and a split by users puts one copy into training. Keep one of each",
    )


def test_only_items(data: Evidence) -> Finding | None:
    """Say whether test targets are items of no training interaction more often than order explains.

    The null puts each user's items into any order: with h[u] the share of user u's items that are
    held out and t[u] that of test targets, a row's item is a test target and unknown with chance
    t[u] times the product over the item's other users of h[v]. Counted nearly as Poisson, in twos.
    """
    sequences = data.sequences
    users, targets = data.examples["test"].users, data.examples["test"].targets
    number = len(sequences.user_ids)
    is_cold = data.training_counts[targets] == 0
    lengths = sequences.lengths
    held = 1 - data.train_ends / lengths
    asked = np.bincount(users, minlength=number) / lengths
    logs = np.log(np.maximum(held, 1e-300))
    both = np.bincount(sequences.items, logs[data.owners], len(data.prepared.items))
    others = np.exp(both[sequences.items] - logs[data.owners])
    expected = float((asked[data.owners] * others).sum())
    count = int(is_cold.sum())
    if poisson_tail(count // 2, expected / 2) > ALPHA:
        return None
    value = count / len(targets)
    return Finding(
        "test-only-items",
        grade(value, warning=0.01, error=0.2),
        value,
        expected / len(targets),
        f"{count} of {len(targets)} test targets are items that no training interaction has: what "
        "counts interactions can only guess there. Report them apart, or set "
        "data.min_item_interactions",
    )


def test_only_users(data: Evidence) -> Finding | None:
    """Say whether users of the test have no training items. No null: left one out, all have."""
    users = data.examples["test"].users
    new = data.train_ends[users] == 0
    if not new.any():
        return None
    value = float(new.mean())
    return Finding(
        "test-only-users",
        grade(value, warning=0.5),
        value,
        0.0,
        f"{int(new.sum())} of {len(users)} test targets are of users without a training item, as "
        "splits by time have them: nothing was learned from these users, and what is learned per "
        "user cannot serve them. Report them apart, or set data.split: leave-one-out",
    )


def short_histories(data: Evidence) -> Finding | None:
    """Say whether users are left out as too short. No null: the share is a fact, from 1 % on."""
    short = data.prepared.info["left_out"]["users_with_short_histories"]
    kept = len(data.sequences.user_ids)
    value = short / (short + kept)
    if value < 0.01:
        return None
    return Finding(
        "short-histories",
        grade(value, warning=0.2, error=0.8),
        value,
        0.0,
        f"{short} of {short + kept} users have fewer than 3 different items and are left out: what "
        "is measured holds for the others. Say so in reports, or gather more of each user",
    )


def _expected_repeats(data: Evidence) -> float:
    """Return how often users would meet items again if popularity alone drew them."""
    events = data.events
    sizes, users = np.unique(np.bincount(events.users), return_counts=True)
    counts = np.bincount(events.items)
    found, items = np.unique(counts[counts > 0], return_counts=True)
    shares = found / len(events.items)
    total = 0.0
    for size, times in zip(sizes.tolist(), users.tolist(), strict=True):  # different sizes only
        new = -np.expm1(size * np.log1p(-np.minimum(shares, 1 - 1e-12)))
        total += times * float(items @ (size * shares - new))
    return total


def _log_chances(data: Evidence) -> FloatArray:
    """Return `(users,)` the log chance of each history: see `duplicate_users`."""
    sequences, owners = data.sequences, data.owners
    number = len(data.prepared.items)
    shares = data.popularity / len(sequences.items)
    inside = np.diff(owners) == 0
    before, after = sequences.items[:-1][inside], sequences.items[1:][inside]
    keys, which, counts = np.unique(
        before * number + after, return_inverse=True, return_counts=True
    )
    known = (counts - 2) / np.bincount(before, minlength=number)[keys // number]
    chances = np.maximum(known[which], shares[after])
    first = np.log(shares[sequences.items[sequences.starts[:-1]]])
    return first + np.bincount(owners[1:][inside], np.log(chances), len(first))
