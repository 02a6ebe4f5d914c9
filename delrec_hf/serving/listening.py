"""An address of this machine, and an application that answers there until it is told to end."""

import asyncio
import logging
import signal
import socket

import uvicorn
from starlette.types import ASGIApp

from delrec_hf.errors import InputError
from delrec_hf.logging import get_logger

logger = get_logger(__name__)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that holds an address, and does not listen yet.

    Raises:
        InputError: If the address is not to be had.
    """
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


def address(host: str, listening: socket.socket) -> str:
    """Return the URL of a bound socket."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def answer(
    app: ASGIApp, listening: socket.socket, what: str, longest_end: int | None = None
) -> None:
    """Answer until SIGTERM or SIGINT; who waits then is still answered.

    Args:
        app: What answers.
        listening: A bound socket.
        what: What is there and where, for the log.
        longest_end: Seconds after which connections are cut that have not ended by themselves.
    """
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
