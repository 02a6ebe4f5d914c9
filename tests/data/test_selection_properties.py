"""Which interactions count, which are held out, and which items they are told apart from."""

import itertools
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from delrec_hf.data.candidates import draw_candidates
from delrec_hf.data.config import DataConfig
from delrec_hf.data.filters import core, one_of_each
from delrec_hf.data.sequences import build_sequences, split_sequences
from delrec_hf.errors import InputError
from tests.data.budget import files

pytestmark = pytest.mark.usefixtures("quiet")

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=9, unique=True)


def is_core(rows, least_of_user, least_of_item) -> bool:
    users, items = Counter(user for user, _ in rows), Counter(item for _, item in rows)
    return all(users[user] >= least_of_user and items[item] >= least_of_item for user, item in rows)


@files(0.2)
@given(PAIRS, st.integers(0, 3), st.integers(0, 3))
def test_the_core_is_the_largest_set_in_which_all_have_enough(pairs, of_user, of_item) -> None:
    users, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    marks = core(users, items, of_user, of_item)
    found = list(itertools.compress(pairs, marks))
    subsets = itertools.chain.from_iterable(
        itertools.combinations(pairs, size) for size in range(len(pairs), -1, -1)
    )
    largest = next(rows for rows in subsets if is_core(rows, of_user, of_item))
    assert set(found) == set(largest)
    assert core(users[marks], items[marks], of_user, of_item).all()


@files(0.2)
@given(
    st.lists(st.tuples(*[st.integers(0, 2)] * 3), max_size=12),
    st.sampled_from(["first", "last"]),
)
def test_each_users_first_or_last_meeting_of_an_item_counts(rows, which) -> None:
    users, items, times = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    marks = one_of_each(users, items, times, which)
    chosen = {}
    for row in sorted(range(len(rows)), key=lambda row: rows[row][2]):
        pair = rows[row][:2]
        if which == "last" or pair not in chosen:
            chosen[pair] = row
    assert np.flatnonzero(marks).tolist() == sorted(chosen.values())


@st.composite
def histories(draw):
    """Draw users' items with times: a table of interactions, and how many items there are."""
    num_items = draw(st.integers(7, 30))
    names = draw(st.lists(st.text(max_size=3), min_size=1, max_size=4, unique=True))
    rows = []
    for name in names:
        items = draw(st.lists(st.integers(0, num_items - 1), min_size=3, max_size=6, unique=True))
        rows += [(name, item, draw(st.integers(-5, 5))) for item in items]
    return draw(st.permutations(rows)), num_items


def sequences_of(rows, num_items, num_candidates=2):
    users, items, times = zip(*rows, strict=True)
    events = {"user_id": users, "item_id": [str(item) for item in items], "timestamp": times}
    catalogue = Dataset.from_dict({"item_id": [str(item) for item in range(num_items)]})
    return build_sequences(Dataset.from_dict(events), catalogue, num_candidates)


def drawn(sequences, num_items, num_candidates, seed):
    """Return every position's candidates, by user and position."""
    users = np.repeat(np.arange(len(sequences.user_ids)), sequences.lengths)
    positions = np.arange(len(users)) - sequences.starts[users]
    candidates = draw_candidates(sequences, users, positions, num_items, num_candidates, seed)
    names = [sequences.user_ids[user] for user in users]
    return dict(zip(zip(names, positions.tolist(), strict=True), candidates.tolist(), strict=True))


@files(0.2)
@given(histories(), st.integers(2, 25), st.integers(0, 2**31))
def test_candidates_are_the_target_once_and_unmet_items_once_whoever_else_is_there(
    data, num_candidates, seed
) -> None:
    rows, num_items = data
    try:
        sequences = sequences_of(rows, num_items, num_candidates)
    except InputError:
        met = Counter(user for user, _, _ in rows)
        assert all(num_items - count < num_candidates - 1 for count in met.values())
        return
    found = drawn(sequences, num_items, num_candidates, seed)
    for row, name in enumerate(sequences.user_ids):
        own = sequences.items[sequences.starts[row] : sequences.starts[row + 1]].tolist()
        for position, target in enumerate(own):
            candidates = found[name, position]
            assert len(set(candidates)) == num_candidates == len(candidates)
            assert set(candidates) & set(own) == {target}
            assert 0 <= min(candidates) <= max(candidates) < num_items
        alone = sequences_of([one for one in rows if one[0] == name], num_items, num_candidates)
        again = drawn(alone, num_items, num_candidates, seed)
        assert again == {key: value for key, value in found.items() if key[0] == name}


@files(0.2)
@given(
    histories(),
    st.sampled_from(["leave-one-out", "time"]),
    st.sampled_from([0.1, 0.2, 0.4]),
    st.integers(1, 4),
)
def test_training_comes_before_validation_and_validation_before_the_test(
    data, split, share, prefixes
) -> None:
    keys = {"split": split, "validation_share": share, "test_share": share}
    config = DataConfig(path="toy", train_prefixes=prefixes, **keys)
    sequences = sequences_of(*data)
    try:
        parts = split_sequences(sequences, config)
    except InputError:  # a part is empty
        return
    times = {}
    for part, (users, positions) in parts.targets.items():
        places = list(zip(users.tolist(), positions.tolist(), strict=True))
        assert len(set(places)) == len(places)
        assert all(1 <= position < sequences.lengths[user] for user, position in places)
        inside = [position < parts.train_end[user] for user, position in places]
        assert all(inside) if part == "train" else not any(inside)
        times[part] = [sequences.timestamps[sequences.starts[u] + p] for u, p in places]
        if part != "train":
            assert len(set(users.tolist())) == len(users)
    ends = np.repeat(parts.train_end, sequences.lengths)
    place = np.arange(len(ends)) - np.repeat(sequences.starts[:-1], sequences.lengths)
    if split == "time":
        held_out = sequences.timestamps[place >= ends]
        assert sequences.timestamps[place < ends].max() < held_out.min()
        assert max(times["validation"]) < min(times["test"])
    for user in range(len(sequences.user_ids)):
        own = [p for u, p in zip(*parts.targets["train"], strict=True) if u == user]
        last = range(max(1, parts.train_end[user] - prefixes), parts.train_end[user])
        assert own == list(last)
