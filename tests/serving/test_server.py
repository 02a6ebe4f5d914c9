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
from delrec_hf.serving.server import Limits, app_of
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


def test_an_explanation_is_that_of_the_python_api(recommender: Recommender) -> None:
    asked = {"history": HISTORY, "candidate": "i7", "candidates": ["i3", "i8"]}
    with served(recommender) as (client, _):
        answer = client.post("/explain", asked)
        unknown = client.refused("/explain", {**asked, "candidate": "Nobody"})
    expected = recommender.explain(HISTORY, "i7", ["i3", "i8"]).to_dict()
    assert (answer.status, answer.json["title"]) == (200, expected["title"])
    assert answer.json["standing"]["score"] == pytest.approx(expected["standing"]["score"])
    assert len(answer.json["history"]) == len(HISTORY)
    assert "is not among the" in unknown


def test_several_histories_in_one_request(recommender: Recommender) -> None:
    histories = [HISTORY, ["i5"], ["i9", "i0", "i3"]]
    expected = recommender.recommend_many(histories, OFFERED)
    with served(recommender) as (client, _):
        body = {"histories": histories, "candidates": OFFERED}
        found = client.post("/recommend_many", body).json["rankings"]
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert_same(one["recommendations"], other)


BAD: list[tuple[Any, str, int, str]] = [
    ({"history": ["i1", "Aliem (1979)"]}, "application/json", 422, "Alien (1979)"),
    # Only the model itself finds that there is nothing left to rank.
    ({"history": list(ITEMS)}, "application/json", 422, "no candidate to rank"),
    ({"history": ["i5"], "with_teacher": True}, "application/json", 422, "holds no teacher"),
    ({"history": ["i5"] * 1001}, "application/json", 422, "takes at most 1000"),
    (b'{"history": ["i5"', "application/json", 422, "the body is no JSON"),
    ({"history": ["i5"]}, "text/plain", 422, "`Content-Type: application/json`"),
    (b" " * 1_000_001, "application/json", 413, "more than 1000000 bytes"),
]
"""What is refused: a body, its kind, the status, and a part of the line."""


def assert_200_at_once(client: Client, recommender: Recommender) -> None:
    """Ask with 200 requests at once, a third of them bad, and check every answer."""
    good = {
        (first, top_k): recommender.recommend([first, "i5"], OFFERED, top_k, disable_tqdm=True)
        for first in ITEMS
        for top_k in (2, 3)
    }

    def ask(number: int) -> None:
        if number % 3 == 0:
            body, kind, status, line = BAD[number // 3 % len(BAD)]
            assert line in client.refused("/recommend", body, status, kind=kind)
            return
        first, top_k = f"i{number % 12}", 2 + number % 2
        body = {"history": [first, "i5"], "candidates": OFFERED, "top_k": top_k}
        answer = client.post("/recommend", body)
        assert answer.status == 200, answer.text
        assert_same(answer.json["recommendations"], good[first, top_k])

    with ThreadPoolExecutor(200) as pool:
        assert len(list(pool.map(ask, range(200)))) == 200


def test_concurrent_requests_are_ranked_together_and_bad_ones_spoil_none(
    recommender: Recommender, calls: list[int]
) -> None:
    with served(recommender) as (client, _):
        assert_200_at_once(client, recommender)
    alone = 24  # by the test itself
    assert len(calls) - alone < 120  # for 133 good ones, and 20 bad ones that reach the model


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


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"history": ["Aliem (1979)"]}, '"Aliem .1979." is not among the 12 .*did you mean "Alien'),
        ({"history": ["i1"], "candidates": ["Tootsie"]}, '"Tootsie" is not among the 12 known'),
        ({"history": ["i1"], "candidates": ["i3"], "retrieve": 3}, "give it or candidates"),
        ({"history": ["i1"], "retrieve": 3}, "retrieve needs the teacher"),
        ({"history": []}, r"`history` is \[\]; list should have at least 1 item"),
        ({"history": "i1"}, "`history` is 'i1'; input should be a valid list"),
        ({"history": ["i1", 21]}, r"`history\[1\]` is 21; input should be a valid string"),
        ({"history": ["\ud800"]}, '"" is not among the 12 known items; give a title or id'),
        ({"history": ["i1"], "top_k": 0}, "`top_k` is 0; input should be greater than or equal"),
        ({"history": ["i1"], "top_k": "5"}, "`top_k` is '5'; input should be a valid integer"),
        ({"history": ["i1"], "with_teacher": 1}, "`with_teacher` is 1; input should be a valid bo"),
        (
            {"history": ["i1"], "candidates": []},
            r"`candidates` is \[\]; list should have at",
        ),
        ({"histroy": ["i1"]}, "has no `history`; its keys are candidates, top_k, retrieve, with_t"),
        ({"history": ["i1"], "topk": 3}, r"'topk' is no key of .*; did you mean `top_k`\?"),
        ({"history": ["i1"], "\n": 3}, r"'\\n' is no key of this request, which are candidates"),
        ([], r"the body is \[\]; expected an object"),
        (b"", "the body is empty; expected an object"),
        (b'{"history": [', r"the body is no JSON \(Expecting value at character 13\); expected an"),
    ],
)
def test_bad_input_is_one_line_with_the_cure(client: Client, body: Any, line: str) -> None:
    assert re.search(line, client.refused("/recommend", body))


def test_what_is_no_json_at_all_is_refused(client: Client) -> None:
    assert "send JSON in UTF-8" in client.refused("/recommend", b'{"history": ["\xff"]}', 400)
    deep = b'{"history": ' + b"[" * 100_000
    assert "not too deeply nested" in client.refused("/recommend", deep, 400)
    form = client.refused("/recommend", {"history": ["i1"]}, kind="text/plain")
    assert "`Content-Type: application/json`" in form
    assert client.get("/nowhere").json == {
        "error": "Not Found; see /docs for the paths that there are"
    }
    assert client.get("/recommend").status == 405


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"history": ["i1"] * 6}, "a history's titles: 6; this server takes at most 5"),
        ({"history": ["i1"], "candidates": ["i2"] * 7}, "candidates: 7; this .* at most 6"),
        ({"history": ["i1"], "top_k": 13}, "top_k: 13; .* at most 12, so ask for less at once"),
        ({"history": ["i1"], "retrieve": 13}, "retrieve: 13; this server takes at most 12"),
        ({"history": ["i1", "x" * 31]}, "a title's characters: 31; this .* at most 30"),
    ],
)
def test_more_than_the_server_takes_is_refused(
    recommender: Recommender, body: dict[str, Any], line: str
) -> None:
    with served(recommender, history=5, candidates=6, top_k=12, title=30) as (client, _):
        assert re.search(line, client.refused("/recommend", body))
        most = {"history": ["i1"] * 5, "candidates": ["i2"] * 6, "top_k": 12}
        assert client.post("/recommend", most).status == 200


def test_an_empty_one_of_several_histories_is_refused(client: Client) -> None:
    for histories in ([[]], [["i1"], []]):
        line = client.refused("/recommend_many", {"histories": histories})
        place = f"histories[{len(histories) - 1}]"
        assert line.startswith(f"`{place}` is []; list should have at least 1 item")


def test_many_histories_and_large_bodies_are_refused(recommender: Recommender) -> None:
    with served(recommender, histories=2, body=100) as (client, _):
        many = client.refused("/recommend_many", {"histories": [["i1"]] * 3})
        assert "histories: 3; this server takes at most 2" in many
        for size in (101, 20_000_000):  # the second is still on its way when it is refused
            large = client.refused("/recommend", b" " * size, 413)
            assert large == "the body has more than 100 bytes; send less at once"
        assert client.post("/recommend", {"history": ["i1"], "top_k": 1}).status == 200


def test_a_body_without_a_length_is_limited_too(recommender: Recommender) -> None:
    with served(recommender, body=100) as (client, _):
        found = client.refused("/recommend", iter([b" " * 60, b" " * 60]), 413)
    assert "more than 100 bytes" in found


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


def wait_for(condition: Callable[[], bool], pause: float = 0.01) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(pause)


def test_a_full_line_says_when_to_ask_again(
    recommender: Recommender, held: threading.Event
) -> None:
    body = {"history": ["i1"], "candidates": OFFERED}
    with (
        served(recommender, waiting=2, together=1, delay_ms=0) as (client, _),
        ThreadPoolExecutor(3) as pool,
    ):
        first = pool.submit(client.post, "/recommend", body)
        wait_for(lambda: not first.done() and client.get("/health").json["waiting"] == 0)
        time.sleep(0.5)  # the worker has it
        others = [pool.submit(client.post, "/recommend", body) for _ in range(2)]
        wait_for(lambda: client.get("/health").json["waiting"] == 2)
        refused = client.post("/recommend", body)
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert "2 histories wait already, and there is room for 2" in refused.json["error"]
        held.set()
        assert [one.result().status for one in (first, *others)] == [200, 200, 200]


def test_shutdown_answers_who_waits(recommender: Recommender, held: threading.Event) -> None:
    body = {"history": ["i1"], "candidates": OFFERED}
    with (
        served(recommender, together=1, delay_ms=0) as (client, server),
        ThreadPoolExecutor(5) as pool,
    ):
        asked = [pool.submit(client.post, "/recommend", body) for _ in range(5)]
        wait_for(lambda: client.get("/health").json["waiting"] == 4)
        server.should_exit = True
        time.sleep(0.5)
        assert not any(one.done() for one in asked)
        held.set()
        assert [one.result().status for one in asked] == [200] * 5


def test_what_nobody_waits_for_any_more_is_not_asked(
    recommender: Recommender, held: threading.Event, calls: list[int]
) -> None:
    body = json.dumps({"histories": [["i1"], ["i2"]], "candidates": OFFERED}).encode()
    head = f"POST /recommend_many HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    one = {"history": ["i1"], "candidates": OFFERED}
    with (
        served(recommender, together=1, delay_ms=0) as (client, _),
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(client.post, "/recommend", one)
        wait_for(lambda: calls == [1])  # the model has it
        with socket.create_connection(("127.0.0.1", int(client.url.rsplit(":", 1)[1]))) as gone:
            gone.sendall(head.encode() + body)
            wait_for(lambda: client.get("/health").json["waiting"] == 2)
        last = pool.submit(client.post, "/recommend", one)
        wait_for(lambda: client.get("/health").json["waiting"] == 3)
        held.set()
        assert [first.result().status, last.result().status] == [200, 200]
    assert calls == [1, 1]


def test_a_body_that_does_not_come_is_not_waited_for(recommender: Recommender) -> None:
    head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with served(recommender, seconds=0.5) as (client, _):
        address = ("127.0.0.1", int(client.url.rsplit(":", 1)[1]))
        with socket.create_connection(address, timeout=60) as slow:
            slow.sendall(head + b'Content-Length: 99\r\n\r\n{"history": [')
            found = b"".join(iter(lambda: slow.recv(4096), b""))  # it ends: the server hangs up
    status, _, line = found.partition(b"\r\n")[0], *found.rpartition(b"\r\n\r\n")[1:]
    assert b" 408 " in status
    assert json.loads(line) == {
        "error": "the body is not there after 0.5 s; send it faster, or less at once"
    }


def test_a_fault_is_a_line_for_the_client_and_a_traceback_in_the_log(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the device is gone")

    with served(recommender) as (client, _), caplog.at_level(logging.INFO, "delrec_hf"):
        with monkeypatch.context() as patch:
            patch.setattr(Recommender, "recommend_many", fail)
            line = client.refused("/recommend", {"history": ["i1"]}, 500)
        assert line == "the server failed at this request; its log says why"
        assert "RuntimeError: the device is gone" in caplog.text
        assert "Traceback" in caplog.text
        assert client.post("/recommend", {"history": ["i1"]}).status == 200


def test_the_log_names_requests_and_not_what_they_hold(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "delrec_hf.serving.refusals"):
        client.post("/recommend", {"history": ["Heat (1995)"], "top_k": 1})
        client.post("/recommend", {"history": ["Heat (1996)"]})
        client.get("/Heat%0A%20INFO%20forged")
        wait_for(lambda: len(caplog.records) == 3)  # logged once they are answered
    told = [one.getMessage() for one in caplog.records]
    assert [re.sub(r"[0-9.]+ s$", "S", one) for one in told] == [
        "POST /recommend: 200, 40 bytes, S",
        "POST /recommend: 422, 28 bytes, S",
        "GET (unknown path): 404, 0 bytes, S",
    ]


def test_health_says_what_is_served(client: Client) -> None:
    found = client.get("/health")
    assert found.status == 200
    version = delrec_hf.__version__
    assert found.json == {
        "ready": True,
        "model": "tiny",
        "items": len(TITLES),
        "version": version,
        "waiting": 0,
    }


def test_the_page_describes_every_key_and_refusal(client: Client) -> None:
    page = client.get("/openapi.json").json
    assert "1,000,000 bytes" in page["info"]["description"]
    assert set(page["paths"]) == {"/recommend", "/recommend_many", "/explain", "/health"}
    for path in ("/recommend", "/recommend_many", "/explain"):
        post = page["paths"][path]["post"]
        refused = {"400", "408", "413", "422", "500", "503"}
        assert set(post["responses"]) == {"200", *refused}
        for status in refused:
            answer = post["responses"][status]["content"]["application/json"]["schema"]
            assert answer == {"$ref": "#/components/schemas/Refusal"}
    schemas = page["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    for name in ("RecommendBody", "RecommendManyBody", "Ranking", "Rankings", "Health", "Refusal"):
        assert schemas[name]["description"]
        for key in schemas[name]["properties"].values():
            assert key["description"], (name, key)
    assert "teacher_rank" in schemas["Recommendation"]["properties"]
    for name, key in (("RecommendBody", "history"), ("RecommendManyBody", "histories")):
        assert schemas[name]["properties"][key]["examples"]


def test_pages_of_other_sites_may_not_ask(client: Client) -> None:
    request = urllib.request.Request(client.url + "/health", headers={"Origin": "https://x.org"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert not [one for one in response.headers if one.lower().startswith("access-control")]


def test_the_command_answers_200_at_once_and_who_waits_when_it_is_told_to_end(
    folder: Path, recommender: Recommender
) -> None:
    command = [sys.executable, "-m", "delrec_hf", "serve", "--model", str(folder), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--log_level", "debug"], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    told: list[str] = []
    try:
        assert process.stderr is not None
        first = next(line for line in process.stderr if "serving" in line)
        reader = threading.Thread(target=told.extend, args=[process.stderr])
        reader.start()
        place = re.search(r"http://127\.0\.0\.1:(\d+)/docs", first)
        assert place is not None
        client = Client(int(place[1]))
        assert client.get("/health").json["model"] == str(folder)
        assert_200_at_once(client, recommender)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.post, "/recommend_many", {"histories": [["i1"]] * 64})
            wait_for(lambda: client.get("/health").json["waiting"] > 0, pause=0)
            process.send_signal(signal.SIGTERM)
            assert len(asked.result().json["rankings"]) == 64
        assert process.wait(timeout=60) == 0
        reader.join(60)
    finally:
        process.kill()
    log = "".join(told)
    assert log.count("POST /recommend: 200") == 133
    assert len(re.findall("POST /recommend: 4", log)) == 67
    together = [int(one) for one in re.findall(r"answered (\d+) histories in", log)]
    assert sum(together) >= 133 + 64
    assert max(together) == 16  # Limits.together
    assert "Traceback" not in log


def test_mistakes_of_the_command_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", str(folder), "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1, port {port} (" in capsys.readouterr().err
    assert main(["serve", "--model", str(folder), "--port", "70000"]) == 2
    assert "a free port with --port" in capsys.readouterr().err
    assert main(["serve", "--model", str(folder), "--host", "no.such.host"]) == 2
    assert "an address of this machine with --host" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "delrec_hf.serving.server")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", "--model", str(folder)]) == 2
    assert "needs fastapi: `pip install 'delrec-hf[serve]'`" in capsys.readouterr().err
