"""Requests at once share the model, and who waits is answered before the server ends."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from delrec_hf import Recommender
from tests.film_rows import ITEMS
from tests.serving.served import OFFERED, Client, assert_same, served, wait_for

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
