"""The losses, each against its formula written out."""

import pytest
import torch
import torch.nn.functional as F

from delrec_hf.teachers.learning import losses
from delrec_hf.teachers.learning.losses import binary_loss, sampled_softmax_loss, softmax_loss
from delrec_hf.teachers.models.dropout import dropout

Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Hidden states, item table, targets, weights."""


@pytest.fixture
def problem() -> Problem:
    torch.manual_seed(0)
    hidden = torch.randn(12, 8, requires_grad=True)
    items = torch.randn(20, 8, requires_grad=True)
    weights = torch.rand(12, 3) * (torch.rand(12, 3) > 0.2)
    return hidden, items, torch.randint(0, 20, (12, 3)), weights


def plain_softmax(
    hidden: torch.Tensor, items: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    logs = (hidden @ items.T).log_softmax(dim=1)
    return -(weights * logs.gather(1, targets)).sum()


@pytest.mark.parametrize("at_once", [20, 100, 2**20])
def test_the_softmax_in_blocks_is_the_plain_one_and_so_are_its_gradients(
    problem: Problem, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", at_once)
    hidden, items, _targets, _weights = problem
    found, expected = softmax_loss(*problem), plain_softmax(*problem)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(3 * found, (hidden, items)),
        torch.autograd.grad(3 * expected, (hidden, items)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_huge_scores_give_a_finite_softmax(problem: Problem) -> None:
    hidden, items, targets, weights = problem
    found = softmax_loss(hidden * 1e4, items, targets, weights)
    assert torch.isfinite(found)
    assert all(torch.isfinite(one).all() for one in torch.autograd.grad(found, (hidden, items)))


def test_the_sampled_softmax_tends_to_the_whole_one(problem: Problem) -> None:
    _hidden, _items, _targets, _weights = problem
    counts = torch.arange(1.0, 21.0)  # uneven: without the correction the two would differ
    found = sampled_softmax_loss(*problem, counts=counts, num_negatives=200_000)
    torch.testing.assert_close(found, plain_softmax(*problem), rtol=0.02, atol=0)
    assert not torch.isclose(
        sampled_softmax_loss(*problem, counts=counts**4, num_negatives=200), found, rtol=0
    )


def test_the_target_is_never_its_own_negative(problem: Problem) -> None:
    hidden, items, _targets, _weights = problem
    alone = torch.zeros(20)
    alone[4] = 1.0  # only item 4 is ever drawn, and it is the target
    ones = torch.ones(12, 1)
    found = sampled_softmax_loss(
        hidden, items, torch.full((12, 1), 4), ones, counts=alone, num_negatives=5
    )
    assert found.item() == pytest.approx(0.0, abs=1e-5)


def test_bce_with_one_item_left_to_draw_is_the_formula() -> None:
    torch.manual_seed(0)
    hidden, items = torch.randn(6, 8), torch.randn(2, 8)
    targets, ones = torch.ones(6, 1, dtype=torch.long), torch.ones(6, 1)
    scores = hidden @ items.T
    found = binary_loss(hidden, items, targets, ones, num_negatives=40_000)
    # Half of the draws hit the target and count nothing.
    expected = (F.softplus(-scores[:, 1]) + F.softplus(scores[:, 0]) / 2).sum()
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("num_negatives", [1, 2, 3, 50])  # below 20 / 8 negatives alone are read
def test_bce_is_the_formula_however_scores_are_found(problem: Problem, num_negatives: int) -> None:
    hidden, items, targets, weights = problem
    torch.manual_seed(1)
    drawn = torch.randint(20, (12, num_negatives))
    chosen = (hidden @ items.T).gather(1, targets).sigmoid().log()
    others = (1 - (hidden @ items.T).sigmoid()).log().gather(1, drawn) * (drawn != targets[:, :1])
    expected = -(weights * (chosen + others.mean(dim=1, keepdim=True))).sum()
    torch.manual_seed(1)
    found = binary_loss(hidden, items, targets, weights, num_negatives=num_negatives)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (hidden, items)), torch.autograd.grad(expected, (hidden, items))
    )


def test_gbce_without_calibration_is_bce_over_added_negatives() -> None:
    torch.manual_seed(0)
    hidden, items = torch.randn(6, 8), torch.randn(11, 8)
    targets, ones = torch.zeros(6, 1, dtype=torch.long), torch.ones(6, 1)

    def loss(calibration: float | None) -> float:
        torch.manual_seed(1)
        found = binary_loss(hidden, items, targets, ones, num_negatives=4, calibration=calibration)
        return found.item()

    positive = F.softplus(-(hidden @ items[0])).sum().item()
    negatives = loss(0.0) - positive
    assert loss(None) == pytest.approx(positive + negatives / 4, rel=1e-5)
    # Fully calibrated, the positive counts with beta = alpha = 4 / 10.
    assert loss(1.0) == pytest.approx(0.4 * positive + negatives, rel=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share: float) -> None:
    torch.manual_seed(0)
    values = torch.ones(1000, 333, requires_grad=True)
    found = dropout(values, share, True)
    found.sum().backward()
    assert (found == 0).float().mean().item() == pytest.approx(share, abs=0.004)
    assert found.mean().item() == pytest.approx(1.0, abs=0.004)
    torch.testing.assert_close(values.grad, found)
    # Each of the four values that one integer decides is dropped as often as the others.
    by_place = (found.view(-1, 4) == 0).float().mean(dim=0)
    assert (by_place - share).abs().max() < 0.01


def test_the_share_that_is_dropped_is_the_one_asked_for() -> None:
    torch.manual_seed(0)
    share, calls, values = 0.1, 100, torch.ones(10**6)
    found = [dropout(values, share, True) for _ in range(calls)]
    number = calls * len(values)
    kept = sum(int(one.count_nonzero()) for one in found) / number
    deviation = (share * (1 - share) / number) ** 0.5  # .00003; a 256th is .0039
    assert abs(1 - kept - share) < 5 * deviation
    assert found[0].max().item() == pytest.approx(1 / (1 - share), rel=1e-6)


def test_nothing_is_dropped_outside_training() -> None:
    values = torch.randn(5, 5)
    assert dropout(values, 0.5, False) is values
