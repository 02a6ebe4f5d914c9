"""What LSR prompts show: the teacher's list, the candidates in its order, a chat."""

import numpy as np
import pytest
from datasets import Dataset

from delrec_hf.errors import InputError
from delrec_hf.instructions.config import InstructionsConfig
from delrec_hf.instructions.joined import with_order, with_suggested
from delrec_hf.instructions.lsr import lsr_rows
from delrec_hf.instructions.templates import DOMAINS

MOVIE = DOMAINS["movie"]
TITLES = [f"Film {row}" for row in range(20)]
ITEMS = Dataset.from_dict({"item_id": [f"i{row}" for row in range(20)], "title": TITLES})


@pytest.fixture
def examples() -> Dataset:
    rows = [
        {"user_id": "a", "position": 2, "history": [0, 1], "target": 5, "candidates": [4, 5, 6]},
        {"user_id": "b", "position": 1, "history": [2], "target": 7, "candidates": [7, 8, 9]},
    ]
    return Dataset.from_list(rows)


def prompts(examples: Dataset, **config: str) -> list[str]:
    rows = lsr_rows(
        examples, ITEMS, TITLES, MOVIE, InstructionsConfig(**{"candidates": "listed", **config})
    )
    assert rows["candidates"][:] == [["i4", "i5", "i6"], ["i7", "i8", "i9"]]
    return [messages[0]["content"] for messages in rows["prompt"]]


def test_the_list_stands_between_history_and_candidates_best_first(examples: Dataset) -> None:
    predicted = [
        {"user_id": "b", "position": 1, "items": [9, 11, 2]},  # in any order of rows; 2 was seen
        {"user_id": "a", "position": 2, "items": [13, 5, 3]},
        {"user_id": "a", "position": 1, "items": [1]},
    ]
    shown = with_suggested(examples, Dataset.from_list(predicted))
    first, second = prompts(shown, teacher="list")
    assert first == (
        "Movies this user watched, oldest first:\n- Film 0\n- Film 1\n"
        "A recommender suggests, best first:\n- Film 13\n- Film 5\n- Film 3\n"
        "Candidates:\n- Film 4\n- Film 5\n- Film 6\n"
        "Which candidate will the user watch next? Answer with its title only."
    )
    assert "best first:\n- Film 9\n- Film 11\nCandidates:" in second
    (unlisted, _) = prompts(shown, teacher="list", candidates="unlisted")
    assert unlisted.endswith(
        "- Film 3\nWhich movie will the user watch next? Answer with its title only."
    )


def test_who_gets_no_suggestion_reads_so_and_is_counted(
    examples: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    predicted = Dataset.from_list([{"user_id": "a", "position": 2, "items": [13]}])
    with caplog.at_level("INFO", "delrec_hf"):
        shown = with_suggested(examples, predicted)
    assert "LSR: the teacher suggests nothing for 1 of 2" in caplog.messages
    assert "best first:\n(none)\nCandidates" in prompts(shown, teacher="list")[1]


def test_candidates_are_listed_in_the_teachers_order_and_stay_where_they_are(
    examples: Dataset,
) -> None:
    scores = np.array([[0.1, 0.3, 0.2], [0.5, -np.inf, 0.5]])
    first, second = prompts(with_order(examples, scores), teacher="order")
    assert "Candidates:\n- Film 5\n- Film 6\n- Film 4\n" in first
    assert "Candidates:\n- Film 7\n- Film 9\n- Film 8\n" in second


def test_an_order_of_unlisted_candidates_is_refused() -> None:
    with pytest.raises(InputError, match=r"teacher: order` is the order in which prompts list"):
        InstructionsConfig(candidates="unlisted", teacher="order")


def test_a_history_told_as_a_chat_has_an_answer_for_each_item(examples: Dataset) -> None:
    config = InstructionsConfig(candidates="unlisted", turns=True)
    first = lsr_rows(examples, ITEMS, TITLES, MOVIE, config)[0]
    assert first["prompt"] == [
        {"role": "user", "content": "Movies this user watched, one at a time, title only.\nFirst?"},
        {"role": "assistant", "content": "Film 0"},
        {"role": "user", "content": "Next?"},
        {"role": "assistant", "content": "Film 1"},
        {"role": "user", "content": "Next?"},
    ]
    assert first["completion"] == [{"role": "assistant", "content": "Film 5"}]


def test_a_chat_shows_neither_candidates_nor_the_teacher() -> None:
    with pytest.raises(InputError, match=r"set `candidates: unlisted` \(is listed\)"):
        InstructionsConfig(candidates="listed", turns=True)
    with pytest.raises(InputError, match=r"and `teacher: none` \(is list\)"):
        InstructionsConfig(candidates="unlisted", turns=True, teacher="list")
