"""The console as a process: one worker on uvicorn, told what it serves by whoever starts it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from http import HTTPStatus

import structlog
import uvicorn

from api.console.app import Console
from api.console.parts import Parts
from api.console.problems import CONTENT_TYPE, Problem
from api.protocol import BoundedProtocol
from api.serving import BACKLOG, Server
from schemas.limits import CONSOLE_REQUESTS_MAX
from streams.monitor import Monitor

log = structlog.get_logger(__name__)

KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 5
REFUSALS = {
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request headers are too large or too many.",
    HTTPStatus.BAD_REQUEST: "The request is not valid HTTP.",
}


class ConsoleProtocol(BoundedProtocol):
    """One connection."""

    def refusal(self, status: HTTPStatus) -> tuple[bytes, bytes]:
        """As the base says; no request, so no correlation id."""
        return CONTENT_TYPE.encode(), Problem(status, "invalid_request", REFUSALS[status]).body("")


async def serve(parts: Parts, listener: socket.socket, monitor: Monitor, stop: asyncio.Event) -> None:
    """Serve on a listening socket until `stop`, then let running requests end within five seconds."""
    server = Server(_configuration(Console(parts)))
    async with _stopping(server, stop):
        monitor.set(state="running")
        log.info("console_listening", address=listener.getsockname()[:2])
        await server.serve(sockets=[listener])
        monitor.set(state="stopping")


@contextlib.asynccontextmanager
async def _stopping(server: Server, stop: asyncio.Event) -> AsyncIterator[None]:
    async def stop_server() -> None:
        await stop.wait()
        server.should_exit = True

    task = asyncio.create_task(stop_server())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _configuration(console: Console) -> uvicorn.Config:
    return uvicorn.Config(
        console,
        http=ConsoleProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        limit_concurrency=4 * CONSOLE_REQUESTS_MAX,
        backlog=BACKLOG,
    )
