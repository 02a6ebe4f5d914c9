"""What SASRec, GRU4Rec and Caser read, and what they do not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModel

from delrec_hf.teachers.histories import IntArray
from delrec_hf.teachers.models.caser import CaserConfig, CaserModel
from delrec_hf.teachers.models.gru4rec import GRU4RecConfig, GRU4RecModel
from delrec_hf.teachers.models.sasrec import SASRecConfig, SASRecModel
from delrec_hf.teachers.models.sequential import SequentialModel
from delrec_hf.teachers.teacher import FloatArray, NeuralTeacher

SHAPE = {"num_items": 30, "max_length": 8, "hidden_size": 16}
MODELS = {
    "sasrec": lambda **more: SASRecModel(SASRecConfig(**SHAPE, **more)),
    "gru4rec": lambda **more: GRU4RecModel(GRU4RecConfig(**SHAPE, **more)),
    "caser": lambda **more: CaserModel(CaserConfig(**SHAPE, num_users=2, **more)),
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> SequentialModel:
    torch.manual_seed(0)
    made: SequentialModel = MODELS[request.param]()
    for parameter in made.parameters():  # what starts at zero or one hides mistakes
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    made.item_embedding.weight.data[0] = 0.0
    return made.eval()


def hidden(model: SequentialModel, ids: list[list[int]]) -> torch.Tensor:
    with torch.inference_mode():
        return model.encode(torch.tensor(ids), None)


def score(model: SequentialModel, histories: list[IntArray], users: list[str]) -> FloatArray:
    teacher = NeuralTeacher(model, pd.Index(["a", "b"]))
    return teacher.score(users, np.array([len(one) for one in histories]), histories)


def test_a_later_item_never_changes_an_earlier_position(model: SequentialModel) -> None:
    before, after = hidden(model, [[3, 9, 4, 7, 1]]), hidden(model, [[3, 9, 4, 20, 1]])
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=1e-6)
    for place in (3, 4):
        assert not torch.allclose(before[:, place], after[:, place], atol=1e-4)


def test_padding_changes_nothing(model: SequentialModel) -> None:
    bare, padded = hidden(model, [[3, 9, 4]]), hidden(model, [[3, 9, 4, 0, 0, 0, 0]])
    torch.testing.assert_close(padded[:, :3], bare, rtol=0, atol=1e-6)


def test_a_history_scores_the_same_alone_and_beside_a_longer_one(model: SequentialModel) -> None:
    short, long = np.array([5]), np.arange(12)
    together = score(model, [short, long], ["a", "b"])
    np.testing.assert_allclose(together[:1], score(model, [short], ["a"]), atol=1e-5)


def test_one_position_alone_is_the_same_as_among_all(model: SequentialModel) -> None:
    ids = torch.tensor([[3, 9, 4, 7, 1], [8, 2, 0, 0, 0], [5, 0, 0, 0, 0]])
    last = torch.tensor([3, 1, 0])  # not only the end of a history
    with torch.inference_mode():
        alone = model.encode_last(ids, None, last)
    together = hidden(model, ids.tolist())
    torch.testing.assert_close(alone, together[torch.arange(3), last], rtol=0, atol=1e-5)


def test_an_empty_history_has_scores(model: SequentialModel) -> None:
    scores = score(model, [np.array([], dtype=np.int64), np.array([4])], ["a", "b"])
    assert np.isfinite(scores).all()


def test_the_item_of_row_zero_is_not_padding(model: SequentialModel) -> None:
    with_it = score(model, [np.array([0, 4])], ["a"])
    assert not np.allclose(with_it, score(model, [np.array([4])], ["a"]), atol=1e-4)
    assert with_it.shape == (1, 30)


def test_only_the_last_items_are_read(model: SequentialModel) -> None:
    long = np.arange(12)
    scores = score(model, [long, long[-8:]], ["a", "a"])
    # Two rows of one matrix product: a kernel may round its last rows otherwise than its first.
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-6)


def test_scoring_drops_nothing_at_random_and_leaves_the_mode_alone(model: SequentialModel) -> None:
    model.train()
    first, second = (score(model, [np.array([1, 2, 3])], ["a"]) for _ in range(2))
    np.testing.assert_array_equal(first, second)  # the same weights in the same place, twice
    assert model.training


def test_the_loss_is_the_mean_cross_entropy_over_the_labels_that_count(
    model: SequentialModel,
) -> None:
    ids = torch.tensor([[3, 9, 0], [5, 6, 7]])
    labels = torch.tensor([[8, 2, -100], [5, -100, 0]])
    with torch.inference_mode():
        chances = (hidden(model, ids.tolist()) @ model.item_embedding.weight[1:].T).softmax(-1)
        expected = -torch.stack(
            [chances[0, 0, 8], chances[0, 1, 2], chances[1, 0, 5], chances[1, 2, 0]]
        ).log()
        assert model(ids, labels=labels).loss == pytest.approx(expected.mean().item(), abs=1e-4)
        summed = model(ids, labels=labels, num_items_in_batch=8).loss
    assert summed == pytest.approx(expected.sum().item() / 8, abs=1e-4)


def test_later_items_count_a_half_a_third_and_so_on(model: SequentialModel) -> None:
    ids, labels = torch.tensor([[3, 9]]), torch.tensor([[8, 2]])
    later = torch.tensor([[[2, 7], [-100, -100]]])
    with torch.inference_mode():
        logs = (hidden(model, ids.tolist()) @ model.item_embedding.weight[1:].T).log_softmax(-1)[0]
        whole = 1 + 1 / 2 + 1 / 3
        first = -(logs[0, 8] + logs[0, 2] / 2 + logs[0, 7] / 3) / whole
        expected = (first - logs[1, 2] / whole) / 2
        found = model(ids, labels=labels, later_labels=later).loss
    assert found == pytest.approx(expected.item(), abs=1e-4)


def test_every_parameter_learns(model: SequentialModel) -> None:
    ids = torch.tensor([[3, 9, 4, 7, 1, 2, 5, 6]])
    users = torch.tensor([1])
    model(ids, user_ids=users, labels=ids - 1).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_weights_load_bit_for_bit_and_score_as_before(
    model: SequentialModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert AutoConfig.from_pretrained(tmp_path).num_items == 30
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    weights, again = model.state_dict(), loaded.state_dict()
    assert weights.keys() == again.keys()
    for name, value in weights.items():
        assert torch.equal(value, again[name]), name
    # A file's weights lie elsewhere in memory, and a product over memory that is aligned otherwise
    # may round otherwise.
    ask = ([np.array([1, 2, 3, 29])], ["a"])
    np.testing.assert_allclose(score(loaded, *ask), score(model, *ask), rtol=0, atol=1e-6)


def test_the_number_of_threads_changes_the_last_digits_alone() -> None:
    torch.manual_seed(0)
    model = SASRecModel(SASRecConfig(num_items=1700, max_length=50, hidden_size=128)).eval()
    histories = [np.arange(length) for length in (50, 3, 17, 1, 29, 8, 44)]
    found = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(score(model, histories, ["a"] * 7))
    finally:
        torch.set_num_threads(1)
    for scores in found[1:]:  # what `write_predictions` promises
        np.testing.assert_allclose(scores, found[0], rtol=0, atol=1e-6 * np.abs(found[0]).max())


def test_caser_knows_its_users_and_takes_others_as_anyone() -> None:
    torch.manual_seed(0)
    model = MODELS["caser"]().eval()
    history = [np.array([3, 4, 5])]
    known, other, stranger = (score(model, history, [user]) for user in ("a", "b", "who"))
    assert not np.allclose(known, other)
    with torch.inference_mode():
        anyone = model(torch.tensor([[4, 5, 6]])).scores.numpy()
    np.testing.assert_allclose(stranger, anyone, atol=1e-6)


def test_caser_in_one_pass_is_caser_window_by_window() -> None:
    torch.manual_seed(0)
    model = MODELS["caser"]().eval()
    items = torch.randint(1, 31, (1, 20))
    with torch.inference_mode():
        whole = model.encode(items, None)[0]
        for end in range(1, 21):
            window = items[:, max(0, end - 8) : end]
            alone = model.encode(window, None)[0, -1]
            torch.testing.assert_close(whole[end - 1], alone, rtol=0, atol=1e-5)


def test_gru4rec_is_torchs_gru_step_by_step() -> None:
    torch.manual_seed(0)
    model = MODELS["gru4rec"]().eval()
    items = torch.tensor([[3, 9, 4]])
    with torch.inference_mode():
        state = None
        for place in range(3):
            out, state = model.recurrent(model.item_embedding(items[:, place : place + 1]), state)
        torch.testing.assert_close(model.encode(items, None)[:, -1], model.to_items(out)[:, 0])
