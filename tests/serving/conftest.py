import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from delrec_hf import Recommender
from tests.serving.served import Client, served


@pytest.fixture
def folder(make_artefact: Callable[..., Path]) -> Path:
    return make_artefact(candidates="unlisted")


@pytest.fixture
def recommender(folder: Path) -> Recommender:
    return Recommender.from_pretrained(folder)


@pytest.fixture
def client(recommender: Recommender) -> Iterator[Client]:
    with served(recommender) as (found, _):
        yield found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many histories each call of the model had."""
    found: list[int] = []
    real = Recommender.recommend_many

    def counted(self: Recommender, histories: Any, *given: Any, **named: Any) -> Any:
        found.append(len(histories))
        return real(self, histories, *given, **named)

    monkeypatch.setattr(Recommender, "recommend_many", counted)
    return found


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The model answers when this is set."""
    gate = threading.Event()
    real = Recommender.recommend_many

    def late(self: Recommender, *given: Any, **named: Any) -> Any:
        assert gate.wait(60)
        return real(self, *given, **named)

    monkeypatch.setattr(Recommender, "recommend_many", late)
    yield gate
    gate.set()
