"""Serving an ASGI application on uvicorn's HTTP protocol, without uvicorn's own process and signal handling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from schemas.errors import ConfigurationError

BACKLOG = 2_048
KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 2


async def serve(
    application: Any,
    protocol: type[HttpToolsProtocol],
    host: str,
    port: int,
    stop: asyncio.Event,
    ready: Callable[[int], None],
    requests_max: int | None = None,
) -> None:
    """Serve until `stop` is set; `ready` is called with the port once it listens (port 0 takes a free one).

    Beyond `requests_max` connections and requests at once, callers get 503. Raises ConfigurationError, in the words of
    the system, when the address can't be listened on.
    """
    state = ServerState()
    server = await _listen(application, protocol, state, host, port, requests_max)
    try:
        ready(server.sockets[0].getsockname()[1])
        await stop.wait()
    finally:
        await _shut(server, state)


async def _listen(
    application: Any,
    protocol: type[HttpToolsProtocol],
    state: ServerState,
    host: str,
    port: int,
    requests_max: int | None,
) -> asyncio.Server:
    # Connections cut on purpose are no errors worth a log line, hence the level.
    config = uvicorn.Config(
        application,
        log_config=None,
        log_level="critical",
        access_log=False,
        ws="none",
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        limit_concurrency=requests_max,
    )
    config.load()
    made = partial(protocol, config=config, server_state=state, app_state={})
    try:
        return await asyncio.get_running_loop().create_server(made, host=host, port=port, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"can't listen on {host}:{port} ({error.strerror})") from None


async def _shut(server: asyncio.Server, state: ServerState) -> None:
    """Stop listening, let calls under way end for a moment, then end them."""
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        await asyncio.wait(list(state.tasks), timeout=STOP_SECONDS)
    for task in list(state.tasks):
        task.cancel()
    if state.tasks:
        await asyncio.wait(list(state.tasks), timeout=STOP_SECONDS)
