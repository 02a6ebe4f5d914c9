"""`delrec serve` refuses in one line of JSON, and takes no more than its limits."""

import json
import logging
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from delrec_hf import Recommender
from delrec_hf.cli import main
from tests.serving.served import Client, served


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
