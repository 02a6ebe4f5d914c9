"""A server on a free port of this machine, and what asks it."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
import uvicorn

from delrec_hf import Recommender
from delrec_hf.serving.server import Limits, app_of

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
        data = body if isinstance(body, bytes | Iterator) else json.dumps(body).encode()
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


def assert_same(found: list[dict[str, Any]], expected: list[Any]) -> None:
    assert [one["item_id"] for one in found] == [one.item_id for one in expected]
    for one, other in zip(found, map(asdict, expected), strict=True):
        assert one.keys() == other.keys()
        for name in ("score", "language_model"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)
        assert one["language_model_rank"] == other["language_model_rank"]


def wait_for(condition: Callable[[], bool], pause: float = 0.01) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(pause)
