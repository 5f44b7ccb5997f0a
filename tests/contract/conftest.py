"""Worlds of the hold store's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.hold_worlds import MemoryWorld, RedisWorld, World
from tests.valkey import Valkey, running


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """One server for the module; every test empties it."""
    with running() as server:
        yield server


@pytest.fixture(params=["memory", "valkey"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A store with one open tenant."""
    if request.param == "memory":
        memory = MemoryWorld()
        await memory.open_tenant()
        yield memory
        return
    server: Valkey = request.getfixturevalue("valkey")
    server.command("FLUSHALL")
    async with RedisWorld(server.url) as redis:
        yield redis
