"""What the right item has to be told apart from."""

import numpy as np
import pytest

from delrec_hf.data.candidates import draw_candidates
from delrec_hf.data.sequences import Sequences
from delrec_hf.errors import InputError

NUM_ITEMS = 60


def sequences_of(lengths, names=None, seed=0):
    generator = np.random.default_rng(seed)
    items = [generator.permutation(NUM_ITEMS)[:length] for length in lengths]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    names = names or [f"u{user}" for user in range(len(lengths))]
    return Sequences(names, starts, np.concatenate(items), np.arange(starts[-1]), {})


def draw(sequences, num_candidates=20, seed=1):
    users = np.repeat(np.arange(len(sequences.user_ids)), 2)
    positions = np.stack([sequences.lengths - 2, sequences.lengths - 1], axis=1).ravel()
    drawn = draw_candidates(sequences, users, positions, NUM_ITEMS, num_candidates, seed)
    return users, sequences.items[sequences.starts[users] + positions], drawn


def test_candidates_hold_the_target_exactly_once_and_no_item_twice():
    _, targets, drawn = draw(sequences_of([5, 12, 40, 3] * 20))
    assert ((drawn == targets[:, None]).sum(axis=1) == 1).all()
    assert all(len(set(row)) == 20 for row in drawn.tolist())


def test_candidates_hold_no_other_item_that_the_user_ever_met():
    sequences = sequences_of([5, 12, 40, 3] * 20)
    for user, target, row in zip(*draw(sequences), strict=True):
        met = set(sequences.items[sequences.starts[user] : sequences.starts[user + 1]].tolist())
        assert set(row.tolist()) & met == {target}


def test_candidates_are_uniform_and_the_target_stands_anywhere():
    sequences = sequences_of([10] * 4000)
    users, targets, drawn = draw(sequences)
    places = np.bincount((drawn == targets[:, None]).argmax(axis=1), minlength=20)
    assert np.abs(places - len(users) / 20).max() < 5 * np.sqrt(len(users) / 20)
    chosen = np.bincount(drawn[drawn != targets[:, None]], minlength=NUM_ITEMS)
    expected = 2 * 19 * (4000 - np.bincount(sequences.items, minlength=NUM_ITEMS)) / 50
    assert np.abs(chosen / expected - 1).max() < 0.1


def test_neither_the_order_of_users_nor_who_else_is_there_changes_a_draw():
    sequences = sequences_of([5, 12, 40, 8])
    *_, all_four = draw(sequences)
    for user in (3, 1):
        begin, end = sequences.starts[user : user + 2]
        alone = Sequences(
            [sequences.user_ids[user]],
            np.array([0, end - begin]),
            sequences.items[begin:end],
            np.arange(end - begin),
            {},
        )
        *_, one = draw(alone)
        assert one.tolist() == all_four[2 * user : 2 * user + 2].tolist()


def test_seed_user_and_position_each_change_the_draw():
    sequences = sequences_of([10])
    renamed = sequences_of([10], names=["other"])
    draws = [draw(sequences), draw(sequences, seed=2), draw(renamed)]
    rows = [tuple(row) for *_, drawn in draws for row in drawn.tolist()]
    assert len(set(rows)) == 6


def test_draws_are_the_same_in_every_process_and_release():
    *_, drawn = draw(sequences_of([10]), num_candidates=5)
    assert drawn.tolist() == [[2, 30, 52, 18, 39], [55, 11, 57, 33, 32]]


def test_a_user_who_met_nearly_everything_gets_all_that_is_left():
    sequences = sequences_of([NUM_ITEMS - 4, 5])
    users, targets, drawn = draw(sequences, num_candidates=5)
    left = set(range(NUM_ITEMS)) - set(sequences.items[: NUM_ITEMS - 4].tolist())
    for row, target in zip(drawn[users == 0].tolist(), targets[users == 0], strict=True):
        assert set(row) == left | {int(target)}


def test_too_few_unmet_items_are_refused_with_the_numbers_and_the_cure():
    with pytest.raises(InputError) as refusal:
        draw(sequences_of([5, NUM_ITEMS - 4]), num_candidates=6)
    assert str(refusal.value) == (
        "6 candidates need 5 items that a user never met, but user `u1` has met all but 4 of 60 "
        "items; set data.num_candidates to 5 or less"
    )
