"""The balance of the tasks: the formula, and what it does to steep and flat ones."""

import pytest
import torch

from delrec_hf.training.task_weighting import dynamic_weights, fixed_weights


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_weights_are_norms_to_the_minus_exponent_and_sum_to_one(exponent: float) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = {
        "ta": 3 * torch.randn(5, 8, generator=generator),
        "rps": torch.randn(5, 8, generator=generator),
    }
    weights = dynamic_weights(gradients, exponent)
    raw = {task: float((g**2).sum() ** 0.5) ** -exponent for task, g in gradients.items()}
    for task, value in raw.items():
        assert weights[task] == pytest.approx(value / sum(raw.values()), rel=1e-5)
    assert sum(weights.values()) == pytest.approx(1)


def test_a_steep_task_counts_less() -> None:
    weights = dynamic_weights({"ta": torch.full((4,), 9.0), "rps": torch.full((4,), 1.0)})
    assert weights["ta"] == pytest.approx(0.25)
    assert weights["rps"] == pytest.approx(0.75)


def test_a_task_without_gradient_breaks_nothing() -> None:
    weights = dynamic_weights({"ta": torch.zeros(4), "rps": torch.ones(4)})
    assert all(0 <= weight <= 1 for weight in weights.values())
    assert sum(weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_stay_finite_where_a_gradient_is_not(value: float) -> None:
    weights = dynamic_weights({"ta": torch.full((4,), value), "rps": torch.ones(4)})
    assert weights == {"ta": 0.5, "rps": 0.5}


def test_one_task_has_all_the_weight() -> None:
    assert dynamic_weights({"ta": torch.ones(3)}) == {"ta": 1.0}
    assert fixed_weights({"ta": 0.2}) == {"ta": 1.0}
