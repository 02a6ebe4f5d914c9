"""A teacher's lists against the plain way of making them."""

import dataclasses

import numpy as np
import pytest
import torch
from datasets import Dataset

from delrec_hf.data.prepared import PreparedData
from delrec_hf.teachers import predictions
from delrec_hf.teachers.baselines import Markov, Popularity
from delrec_hf.teachers.predictions import predict, score_candidates
from delrec_hf.teachers.sasrec import SASRecConfig, SASRecModel
from delrec_hf.teachers.training import Teacher


@pytest.fixture(params=["sasrec", "popularity", "markov"])
def teacher(request: pytest.FixtureRequest, prepared: PreparedData) -> Teacher:
    if request.param == "sasrec":
        torch.manual_seed(0)
        return SASRecModel(SASRecConfig(num_items=30, max_length=6, hidden_size=16))
    return {"popularity": Popularity, "markov": Markov}[request.param].fit(prepared)


def brute_force(
    teacher: Teacher, prepared: PreparedData, user: str, position: int, top_h: int
) -> list[int]:
    sequence = dict(zip(prepared.sequences["user_id"], prepared.sequences["items"], strict=True))
    before = sequence[user][:position]
    scores = teacher.score([user], np.array([position]), [np.array(before)])[0]
    unseen = [item for item in range(len(scores)) if item not in before]
    return sorted(unseen, key=lambda item: (-round(scores[item], 5), item))[:top_h]


def test_lists_equal_brute_force(
    teacher: Teacher, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "_SCORES_AT_ONCE", 30 * 7)  # batches of 7, the last one of 5
    for part in ("train", "validation", "test"):
        found = predict(teacher, prepared, prepared.examples[part], 5)
        expected = [
            brute_force(teacher, prepared, row["user_id"], row["position"], 5) for row in found
        ]
        assert found["items"][:] == expected
        assert found["user_id"][:] == prepared.examples[part]["user_id"][:]
        assert found["position"][:] == prepared.examples[part]["position"][:]


def test_lists_are_shorter_where_fewer_items_are_unseen(
    teacher: Teacher, prepared: PreparedData
) -> None:
    found = predict(teacher, prepared, prepared.examples["test"], 30)
    assert [len(items) for items in found["items"]] == [30 - p for p in found["position"]]
    assert all(np.isfinite(np.concatenate(found["scores"][:])))


def test_shuffling_the_users_changes_no_users_list(
    teacher: Teacher, prepared: PreparedData
) -> None:
    shuffled = dataclasses.replace(prepared, sequences=prepared.sequences.shuffle(seed=1))
    examples = prepared.examples["test"]
    straight = by_user(predict(teacher, prepared, examples, 5))
    crossed = by_user(predict(teacher, shuffled, examples.shuffle(seed=2), 5))
    assert crossed == straight


def by_user(found: Dataset) -> dict[tuple[str, int], list[int]]:
    return {(row["user_id"], row["position"]): row["items"] for row in found}


def test_candidate_scores_are_the_catalogues_in_the_candidates_order(
    teacher: Teacher, prepared: PreparedData
) -> None:
    examples = prepared.examples["test"].shuffle(seed=3)
    scores = score_candidates(teacher, prepared, examples)
    assert scores.shape == (40, 3)
    sequences = dict(zip(prepared.sequences["user_id"], prepared.sequences["items"], strict=True))
    for row, got in zip(examples, scores, strict=True):
        before = np.array(sequences[row["user_id"]][: row["position"]])
        alone = teacher.score([row["user_id"]], np.array([row["position"]]), [before])[0]
        np.testing.assert_allclose(got, alone[row["candidates"]], atol=1e-5)


def test_a_user_without_a_sequence_is_an_error(teacher: Teacher, prepared: PreparedData) -> None:
    strangers = Dataset.from_dict({"user_id": ["nobody"], "position": [3]})
    with pytest.raises(KeyError, match="nobody"):
        predict(teacher, prepared, strangers, 3)


def test_items_that_are_not_numbers_rank_nowhere() -> None:
    class Broken:
        def score(self, user_ids, positions, histories):  # type: ignore[no-untyped-def]
            return np.tile([0.0, np.nan, 2.0, -np.inf, 1.0], (len(user_ids), 1))

    data = Dataset.from_dict({"user_id": ["a"], "items": [[0, 2]], "train_end": [1]})
    prepared = PreparedData(
        items=Dataset.from_dict({"item_id": list("abcde")}), sequences=data, examples={}, info={}
    )
    rows = Dataset.from_dict({"user_id": ["a"], "position": [1]})
    assert predict(Broken(), prepared, rows, 4)["items"][:] == [[2, 4]]
