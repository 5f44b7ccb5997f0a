"""A gateway on fakes behind a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from api.gateway.worker import _configuration, _Server, listening_socket
from tests.support.gateway_world import World


@asynccontextmanager
async def serving(world: World, idle: int = 0) -> AsyncIterator[int]:
    """The gateway of a world behind a socket, as a worker serves it; `idle` connections ask for nothing. The port."""
    listener = listening_socket("127.0.0.1", 0)
    server = _Server(_configuration(world.gateway, world.options))
    others: set[Any] = {object() for _ in range(idle)}
    server.server_state.connections.update(others)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(30):
        yield listener.getsockname()[1]
        server.server_state.connections.difference_update(others)
        server.should_exit = True
        # Ends when everything that the requests left to do is done.
        await task
