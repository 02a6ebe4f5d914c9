"""An address of this machine, and an application that answers there until it is told to end."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger

logger = get_logger(__name__)


def answer(
    host: str,
    port: int,
    load: Callable[[str], tuple[ASGIApp, str]],
    longest_end: int | None = None,
) -> None:
    """Answer until SIGTERM or SIGINT; who waits then is still answered.

    Args:
        host: Address to listen on.
        port: Its port; 0 for any free one, which the log names.
        load: Makes of the URL, once it is had, what answers there and a line about it for the log.
        longest_end: Seconds after which connections are cut that have not ended by themselves.

    Raises:
        InputError: If the address cannot be listened on.
    """
    with _bound(host, port) as listening:
        app, what = load(_address(host, listening))
        # What it logs is what users ask for.
        get_logger("delrec_hf.data.lookup").setLevel("WARNING")
        _answer(app, listening, what, longest_end)


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that holds an address, and does not listen yet."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise InputError(
            f"cannot listen on {host}, port {port} ({error}); give an address of this machine with "
            "--host and a free port with --port"
        ) from error
    return bound


def _address(host: str, listening: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def _answer(app: ASGIApp, listening: socket.socket, what: str, longest_end: int | None) -> None:
    logging.getLogger("uvicorn.error").addFilter(_is_of_no_cut)
    # uvicorn sends itself again the signal that it has obeyed.
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=longest_end,
    )
    listening.listen()  # who now connects waits until uvicorn accepts
    logger.info("%s; SIGTERM or Ctrl-C ends it", what)
    uvicorn.Server(config).run(sockets=[listening])
    logger.info("ended; nobody waits any more")


def _is_of_no_cut(record: logging.LogRecord) -> bool:
    """Say whether uvicorn tells of anything but connections that were cut at the end."""
    fault = record.exc_info[1] if record.exc_info else None
    is_count = str(record.msg).startswith("Cancel %s running task")
    return not is_count and not isinstance(fault, asyncio.CancelledError)
