"""What SASRec reads, and what it does not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from delrec_hf.teachers.sasrec import SASRecConfig, SASRecModel


@pytest.fixture
def model() -> SASRecModel:
    torch.manual_seed(0)
    return SASRecModel(SASRecConfig(num_items=30, max_length=8, hidden_size=16)).eval()


def hidden(model: SASRecModel, ids: list[list[int]]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor(ids)).last_hidden_state


def test_a_later_item_never_changes_an_earlier_position(model: SASRecModel) -> None:
    before, after = hidden(model, [[3, 9, 4, 7, 1]]), hidden(model, [[3, 9, 4, 20, 1]])
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_padding_changes_nothing(model: SASRecModel) -> None:
    bare, padded = hidden(model, [[3, 9, 4]]), hidden(model, [[0, 0, 0, 0, 3, 9, 4]])
    torch.testing.assert_close(padded[:, -3:], bare, rtol=0, atol=1e-6)


def test_a_history_scores_the_same_alone_and_beside_a_longer_one(model: SASRecModel) -> None:
    short, long = np.array([5]), np.arange(12)
    users, positions = ["a", "b"], np.array([1, 12])
    together = model.score(users, positions, [short, long])
    alone = model.score(users[:1], positions[:1], [short])
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)


def test_the_item_of_row_zero_is_not_padding(model: SASRecModel) -> None:
    with_it = model.score(["a"], np.array([2]), [np.array([0, 4])])
    without = model.score(["a"], np.array([1]), [np.array([4])])
    assert not np.allclose(with_it, without)
    assert with_it.shape == (1, 30)


def test_only_the_last_items_are_read(model: SASRecModel) -> None:
    long = np.arange(12)
    scores = model.score(["a", "a"], np.array([12, 12]), [long, long[-8:]])
    np.testing.assert_array_equal(scores[0], scores[1])


def test_scoring_drops_nothing_at_random_and_leaves_the_mode_alone(model: SASRecModel) -> None:
    model.train()
    histories = [np.array([1, 2, 3])]
    first, second = (model.score(["a"], np.array([3]), histories) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert model.training


def test_the_loss_is_the_mean_cross_entropy_over_the_labels_that_count(model: SASRecModel) -> None:
    ids = torch.tensor([[0, 3, 9], [5, 6, 7]])
    labels = torch.tensor([[-100, 8, 2], [5, -100, 0]])
    with torch.inference_mode():
        scores = hidden(model, ids.tolist()) @ model.item_embedding.weight[1:].T
        chances = scores.softmax(dim=-1)
        expected = -torch.stack(
            [chances[0, 1, 8], chances[0, 2, 2], chances[1, 0, 5], chances[1, 2, 0]]
        ).log()
        assert model(ids, labels).loss == pytest.approx(expected.mean().item(), abs=1e-5)
        summed = model(ids, labels, num_items_in_batch=8).loss
    assert summed == pytest.approx(expected.sum().item() / 8, abs=1e-5)


def test_saved_and_loaded_scores_are_equal(model: SASRecModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, SASRecModel)
    assert AutoConfig.from_pretrained(tmp_path).num_items == 30
    assert [path.name for path in tmp_path.glob("*.bin")] == []
    ids = [[1, 2, 3, 30]]
    assert torch.equal(hidden(model, ids), hidden(loaded, ids))
