"""`delrec serve` answers over HTTP what the Python API returns, and refuses in one line of JSON."""

import contextlib
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import delrec_hf
from delrec_hf import Recommender
from delrec_hf.cli import main
from delrec_hf.server import Limits, app_of
from tests.film_rows import ITEMS, TITLES

HISTORY = ["Heat (1995)", "Alien (1979)"]
OFFERED = ["i3", "i7", "The Matrix (1999)", "i9"]


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.text = status, headers, body.decode()
        self.json = json.loads(body)


class Client:
    """Asks a server on this machine."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Answer:
        return self._open(urllib.request.Request(self.url + path))

    def post(self, path: str, body: Any, kind: str = "application/json") -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._open(
            urllib.request.Request(self.url + path, data, {"Content-Type": kind}, method="POST")
        )

    def refused(self, path: str, body: Any, status: int = 422, **given: Any) -> str:
        """Ask for what is refused, check the shape of the refusal and return its line."""
        found = self.post(path, body, **given)
        assert found.status == status, found.text
        assert list(found.json) == ["error"]
        line: str = found.json["error"]
        assert len(line.splitlines()) == 1
        assert "Traceback" not in line
        return line

    def _open(self, request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())


@contextlib.contextmanager
def served(recommender: Recommender, **limits: Any) -> Iterator[tuple[Client, uvicorn.Server]]:
    """Serve a model on a free port of this machine."""
    app = app_of(recommender, Limits(**limits), "tiny")
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Client(listening.getsockname()[1]), server
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


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


def assert_same(found: list[dict[str, Any]], expected: list[Any]) -> None:
    assert [one["item_id"] for one in found] == [one.item_id for one in expected]
    for one, other in zip(found, map(asdict, expected), strict=True):
        assert one.keys() == other.keys()
        for name in ("score", "language_model"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)
        assert one["language_model_rank"] == other["language_model_rank"]


@pytest.mark.parametrize("given", [{}, {"candidates": OFFERED}, {"top_k": 2}])
def test_the_answer_is_that_of_the_python_api(
    recommender: Recommender, given: dict[str, Any]
) -> None:
    expected = recommender.recommend(HISTORY, **given)
    with served(recommender) as (client, _):
        found = client.post("/recommend", {"history": HISTORY, **given})
        assert found.status == 200
        assert found.json["ranked_by"] == ["language_model"]
        assert_same(found.json["recommendations"], expected)


def test_several_histories_in_one_request(recommender: Recommender) -> None:
    histories = [HISTORY, ["i5"], ["i9", "i0", "i3"]]
    expected = recommender.recommend_many(histories, OFFERED)
    with served(recommender) as (client, _):
        body = {"histories": histories, "candidates": OFFERED}
        found = client.post("/recommend_many", body).json["rankings"]
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert_same(one["recommendations"], other)


def test_concurrent_requests_are_ranked_together_and_bad_ones_spoil_none(
    recommender: Recommender, calls: list[int]
) -> None:
    expected = {}
    for item in ITEMS:
        others = [one for one in ITEMS if one != item][:3]
        expected[item] = (others, {k: recommender.recommend([item], others, k) for k in (2, 3)})
    whole = list(ITEMS)
    bodies: list[tuple[dict[str, Any], Any]] = []
    for number in range(200):
        item = f"i{number % len(ITEMS)}"
        if number % 10 == 3:
            bodies.append(({"history": [item, "Aliem (1979)"]}, "Alien (1979)"))
        elif number % 10 == 7:
            # Nobody can know that there is nothing left to rank before the model is asked.
            bodies.append(({"history": whole, "top_k": 2 + number % 2}, "no candidate to rank"))
        elif number % 10 == 9:
            bodies.append(({"history": [item], "with_teacher": True}, "holds no teacher"))
        else:
            top_k = 2 + number % 2
            others, answers = expected[item]
            body = {"history": [item], "candidates": others, "top_k": top_k}
            bodies.append((body, answers[top_k]))
    calls.clear()
    with served(recommender) as (client, _), ThreadPoolExecutor(200) as pool:
        found = list(pool.map(lambda one: client.post("/recommend", one[0]), bodies))
    good = 0
    for answer, (_, wanted) in zip(found, bodies, strict=True):
        if isinstance(wanted, str):
            assert answer.status == 422
            assert wanted in answer.json["error"]
        else:
            good += 1
            assert answer.status == 200, answer.text
            assert_same(answer.json["recommendations"], wanted)
    assert good == 140


def test_the_model_is_called_once_for_what_waits(
    recommender: Recommender, calls: list[int]
) -> None:
    body = {"histories": [["i1"], ["i2"], ["i3"]], "candidates": OFFERED}
    with (
        served(recommender, together=6, delay_ms=5000) as (client, _),
        ThreadPoolExecutor(2) as pool,
    ):
        found = list(pool.map(lambda _: client.post("/recommend_many", body), range(2)))
    assert [one.status for one in found] == [200, 200]
    assert calls == [6]


def test_other_options_are_another_call(recommender: Recommender, calls: list[int]) -> None:
    bodies = [{"history": ["i1"], "top_k": number} for number in (1, 2, 1, 2)]
    with (
        served(recommender, together=4, delay_ms=5000) as (client, _),
        ThreadPoolExecutor(4) as pool,
    ):
        found = list(pool.map(lambda one: client.post("/recommend", one), bodies))
    assert [len(one.json["recommendations"]) for one in found] == [1, 2, 1, 2]
    assert calls == [2, 2]
