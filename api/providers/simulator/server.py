"""Serving the simulated provider, over connections that it may cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.providers.simulator.application import TRANSPORT, Simulator
from api.providers.simulator.settings import SimulatorSettings
from api.serving import serve
from schemas.errors import ConfigurationError

log = structlog.get_logger(__name__)


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

    def listening(bound: int) -> None:
        log.info("simulator_listening", host=host, port=bound, seed=settings.seed)
        if ready is not None:
            ready(bound)

    try:
        await serve(simulator, OpenProtocol, host, port, stop, listening)
    except ConfigurationError as error:
        raise ConfigurationError(f"the simulated provider {error}: set QUAESTOR_SIMULATOR_PORT") from None
    finally:
        simulator.close()
        log.info("simulator_stopped", requests=simulator.requests, failed=simulator.failed)
