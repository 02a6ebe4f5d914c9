"""A publisher's web server on this machine, with the faults that real ones have."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """How one request is answered otherwise than with the file."""

    status: int | None = None  # an error in place of the file
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # the connection ends after so many bytes; 0: before any answer
    pause: float = 0.0  # seconds between the first bytes and the rest
    then: bytes | None = None  # what the file is from then on


@dataclass
class Publisher:
    """Files on a server, and what was asked of it."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)  # for the requests to come
    asked: list[str] = field(default_factory=list)  # "/path" or "/path bytes=5-"
    ranges: bool = True  # whether it knows Range
    heeds_if_range: bool = True
    etag: bool = True
    headers: dict[str, str] = field(default_factory=dict)  # with every file

    def asked_for(self, name: str) -> int:
        """Return how often a file was asked for."""
        return sum(name in one for one in self.asked)


@contextmanager
def publishing() -> Iterator[Publisher]:
    """Run a server."""
    publisher = Publisher()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            try:
                answer_to(self, publisher)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    publisher.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield publisher
    finally:
        server.shutdown()
        server.server_close()


def answer_to(request: BaseHTTPRequestHandler, publisher: Publisher) -> None:
    asked = request.headers.get("Range")
    publisher.asked.append(f"{request.path} {asked}" if asked else request.path)
    answer = publisher.answers.pop(0) if publisher.answers else Answer()
    body = publisher.files.get(request.path)
    if answer.then is not None:
        publisher.files[request.path] = answer.then
    request.close_connection = True
    if answer.cut == 0:
        return
    if answer.status is not None or body is None:
        send(request, answer.status or 404, {"Content-Length": "0"} | answer.headers)
        return
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = ({"ETag": tag} if publisher.etag else {}) | publisher.headers | answer.headers
    same = not publisher.heeds_if_range or request.headers.get("If-Range") == tag
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    if asked and publisher.ranges and same:
        if start >= len(body):
            send(request, 416, headers | {"Content-Range": f"bytes */{len(body)}"})
            return
        there = f"bytes {start}-{len(body) - 1}/{len(body)}"
        send(
            request,
            206,
            headers | {"Content-Range": there, "Content-Length": str(len(body) - start)},
        )
    else:
        start = 0
        send(request, 200, headers | {"Content-Length": str(len(body))})
    rest = body[start:] if answer.cut is None else body[start : start + answer.cut]
    request.wfile.write(rest[: len(rest) // 2])
    request.wfile.flush()
    time.sleep(answer.pause)
    request.wfile.write(rest[len(rest) // 2 :])


def send(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in (headers | {"Connection": "close"}).items():
        request.send_header(name, value)
    request.end_headers()
