"""Serving the simulated provider on uvicorn's HTTP protocol, without uvicorn's own process and signal handling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from api.providers.simulator.application import TRANSPORT, Simulator
from api.providers.simulator.settings import SimulatorSettings
from schemas.errors import ConfigurationError

log = structlog.get_logger(__name__)

BACKLOG = 2_048
KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 2


class OpenProtocol(HttpToolsProtocol):
    """Lets the application cut its connection, which ASGI has no message for."""

    def on_message_begin(self) -> None:
        """Put the connection into the scope."""
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]  # a key of our own


async def run(
    settings: SimulatorSettings,
    host: str,
    port: int,
    stop: asyncio.Event,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until `stop` is set; `ready` is called with the port once it listens (port 0 takes a free one).

    Raises ConfigurationError when the address can't be listened on or a file can't be written. Run it on uvloop.
    """
    simulator = Simulator(settings)
    state = ServerState()
    try:
        server = await _listen(simulator, state, host, port)
        bound: int = server.sockets[0].getsockname()[1]
        log.info("simulator_listening", host=host, port=bound, seed=settings.seed)
        if ready is not None:
            ready(bound)
        try:
            await stop.wait()
        finally:
            await _shut(server, state)
    finally:
        simulator.close()
        log.info("simulator_stopped", requests=simulator.requests, failed=simulator.failed)


async def _listen(simulator: Simulator, state: ServerState, host: str, port: int) -> asyncio.Server:
    # Connections cut on purpose are no errors worth a log line, hence the level.
    config = uvicorn.Config(
        simulator,
        log_config=None,
        log_level="critical",
        access_log=False,
        ws="none",
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    config.load()
    loop = asyncio.get_running_loop()

    def protocol() -> OpenProtocol:
        return OpenProtocol(config=config, server_state=state, app_state={})

    try:
        return await loop.create_server(protocol, host=host, port=port, backlog=BACKLOG)
    except OSError as error:
        message = (
            f"the simulated provider can't listen on {host}:{port} ({error.strerror}): set QUAESTOR_SIMULATOR_PORT"
        )
        raise ConfigurationError(message) from None


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
