"""What a server answers instead of an answer: one line in JSON, and never a traceback."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from delrec_hf.data.titles import shorten
from delrec_hf.errors import InputError, suggest
from delrec_hf.logging import get_logger
from delrec_hf.serving.waiting import FullError

_DRAINED = 50_000_000  # bytes of a body too large that are read nevertheless, and dropped
_GONE = 499  # for the log alone: nobody is there to read it
_SHOWN = 80  # characters of what was given in a message
_CURES = {
    400: "send JSON in UTF-8, not too deeply nested",
    404: "see /docs for the paths that there are",
    408: "send it faster, or less at once",
    413: "send less at once",
    405: "see /docs for the methods that a path answers to",
}

Answer = TypeVar("Answer")

logger = get_logger(__name__)


class Refusal(BaseModel):
    """Why there is no answer."""

    error: str = Field(
        description="One line: what was given, what was expected, and the cure.",
        examples=['"Aliem" is not among the 12 known items; did you mean "Alien (1979)"?'],
    )


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body is not UTF-8, or nested too deeply."},
    408: {"model": Refusal, "description": "The body takes too long."},
    413: {"model": Refusal, "description": "The body is too large."},
    422: {"model": Refusal, "description": "It cannot be answered; asked again, neither."},
    500: {"model": Refusal, "description": "A fault of the server; its log says which."},
    503: {"model": Refusal, "description": "Too many wait; ask again after `Retry-After` seconds."},
}
"""For the page of an endpoint."""


class Door:
    """Keeps large and slow bodies out, logs requests without their contents, faults with traceback.

    Args:
        app: What is behind it.
        most: Bytes of a body.
        seconds: How long it may take.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status, size, is_whole = 0, 0, False

        async def counted() -> Message:
            nonlocal size, is_whole
            if is_whole:
                return await receive()  # which only tells of a client that has gone
            message = await self._piece(receive, started)
            size += len(message.get("body", b""))
            if size > self._most:
                # Many clients read no answer before they have sent everything.
                while message.get("more_body") and size < _DRAINED:
                    message = await self._piece(receive, started)
                    size += len(message.get("body", b""))
                raise HTTPException(413, f"the body has more than {self._most} bytes")
            is_whole = not message.get("more_body")
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except Exception:  # the client learns that there was one, the log which
            logger.exception("%s failed", _name(scope))
            if not status:
                line = "the server failed at this request; its log says why"
                await _refusal(500, line)(scope, receive, noted)
        finally:
            seconds = time.monotonic() - started
            logger.info("%s: %d, %d bytes, %.3f s", _name(scope), status, size, seconds)

    async def _piece(self, receive: Receive, started: float) -> Message:
        """Return the next piece of a body, or refuse one that takes too long."""
        try:
            return await asyncio.wait_for(receive(), started + self._seconds - time.monotonic())
        except TimeoutError:
            line = f"the body is not there after {self._seconds:g} s"
            raise HTTPException(408, line, {"Connection": "close"}) from None


async def answered(request: Request, asked: "Sequence[Future[Answer]]") -> list[Answer]:
    """Wait for answers, unless the client goes: what then still waits is not asked any more.

    Args:
        request: Whose body has been read.
        asked: What it waits for.
    """
    waiting = asyncio.gather(*map(asyncio.wrap_future, asked))
    gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
    either: list[asyncio.Future[Any]] = [waiting, gone]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        raise HTTPException(_GONE, "the client has gone")
    finally:
        gone.cancel()
        for one in asked:
            one.cancel()


def _name(scope: Scope) -> str:
    # The path as the app has it: what a client wrote may hold anything.
    return f"{scope['method']} {getattr(scope.get('route'), 'path', '(unknown path)')}"


def _refusal(status: int, line: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": line}, status, headers)


async def _on_input(_: Request, error: InputError) -> Response:
    return _refusal(422, str(error))


async def _on_full(_: Request, error: FullError) -> Response:
    return _refusal(503, str(error), {"Retry-After": str(error.seconds)})


async def _on_http(_: Request, error: HTTPException) -> Response:
    cure = _CURES.get(error.status_code)
    line = f"{error.detail}; {cure}" if cure else error.detail
    return _refusal(error.status_code, line, error.headers)


async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    kind, (_, *path) = first["type"], first["loc"]
    keys = list(request.scope["route"].body_field.field_info.annotation.model_fields)
    example = "an object with the keys that /docs shows, and `Content-Type: application/json`"
    if kind == "json_invalid":
        line = f"the body is no JSON ({first['ctx']['error']} at character {path[0]}); "
        return _refusal(422, f"{line}expected {example}")
    if not path:
        given = "empty" if kind == "missing" else _shown(first["input"])
        return _refusal(422, f"the body is {given}; expected {example}")
    where = str(path[0]) + "".join(f"[{place}]" for place in path[1:])
    if kind == "missing":
        line = f"the request has no `{where}`; its keys are {', '.join(keys)}"
    elif kind == "extra_forbidden":
        name = _shown(where)
        line = f"{name} is no key of this request, which are {', '.join(keys)}"
        line += suggest(where, keys)
    else:
        reason = first["msg"]
        line = f"`{where}` is {_shown(first['input'])}; {reason[:1].lower()}{reason[1:]}"
    return _refusal(422, line)


def _shown(given: Any) -> str:
    # Written as Python has it: what cannot be printed is escaped.
    return shorten(repr(given), _SHOWN)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    InputError: _on_input,
    FullError: _on_full,
    HTTPException: _on_http,
    RequestValidationError: _on_invalid,
}
"""How an app answers what its endpoints raise."""
