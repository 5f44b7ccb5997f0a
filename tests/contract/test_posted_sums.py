"""What every SumsReader must do, asked of the one in memory and of Redis itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from processors.budgets import Counter, counter_of
from schemas.errors import StoreUnavailableError
from sinks.redis.posted import MemorySums, SumsReader
from sinks.redis.reads import RedisReads
from tests.budget_world import TENANT, Events, hold_id, leg
from tests.support.hold_worlds import RedisWorld
from tests.valkey import Valkey

FIRST, SECOND, THIRD = (counter_of(leg(1, name)) for name in ("lim_a", "lim_b.00ff", "lim_c"))


class World:
    """A reader, and what moves its sums: by hand in memory, by applied events in Redis."""

    def __init__(self, redis: RedisWorld | None, url: str = "") -> None:
        """One open tenant, nothing charged."""
        self._redis, self._memory, self._posted = redis, MemorySums(), dict[Counter, int]()
        self.reads = None if redis is None else RedisReads(url)
        self.reader: SumsReader = self.reads or self._memory
        self._events, self._count, self._is_open = Events(), 0, True
        self._memory.put(TENANT, 0, {})

    async def charge(self, amount_nano: int, *counters: Counter) -> None:
        """A call is held and charged on these counters: two events."""
        self._count += 1
        legs = [leg(amount_nano, counter.limit_id) for counter in counters]
        placed = self._events.placed(hold_id(self._count), *legs)
        if self._redis is not None:
            await self._redis.apply(placed)
            await self._redis.apply(self._events.committed(placed, amount_nano))
        for counter in counters:
            self._posted[counter] = self._posted.get(counter, 0) + amount_nano
        self._memory.put(TENANT, 2 * self._count, self._posted, is_open=self._is_open)

    async def close_for_rebuild(self) -> None:
        """A new generation begins."""
        self._is_open = False
        self._memory.put(TENANT, 2 * self._count, self._posted, is_open=False)
        if self._redis is not None:
            await self._redis.new_generation(is_open=False)


@pytest.fixture(params=["memory", "valkey"])
async def sums(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Each reader."""
    if request.param == "memory":
        yield World(None)
        return
    server: Valkey = request.getfixturevalue("valkey")
    server.command("FLUSHALL")
    async with RedisWorld(server.url) as redis:
        made = World(redis, server.url)
        assert made.reads is not None
        await made.reads.open()
        try:
            yield made
        finally:
            await made.reads.close()


async def test_what_was_charged_is_read_up_to_a_cursor(sums: World) -> None:
    """Of the counters that were asked for, those that were ever charged."""
    await sums.charge(30, FIRST, SECOND)
    await sums.charge(12, FIRST)
    found = await sums.reader.posted(TENANT, [FIRST, SECOND, THIRD])
    assert (4, True, {FIRST: 42, SECOND: 30}) == (found.cursor, found.is_open, dict(found.posted_nano))


async def test_every_one_of_many_counters_is_read(sums: World) -> None:
    """More than one step reads."""
    counters = [counter_of(leg(1, f"lim_b.{number}")) for number in range(3_000)]
    for first in range(0, 3_000, 20):
        await sums.charge(1, *counters[first : first + 20])
    found = await sums.reader.all_posted(TENANT)
    assert (300, True, dict.fromkeys(counters, 1)) == (found.cursor, found.is_open, dict(found.posted_nano))


async def test_every_counter_of_a_tenant_is_read(sums: World) -> None:
    """Without being named."""
    await sums.charge(30, FIRST, SECOND)
    found = await sums.reader.all_posted(TENANT)
    assert (2, True, {FIRST: 30, SECOND: 30}) == (found.cursor, found.is_open, dict(found.posted_nano))


async def test_a_tenant_without_any_state_is_not_open(sums: World) -> None:
    """Nobody knows whether it has charged something."""
    for found in (await sums.reader.posted("nobody", [FIRST]), await sums.reader.all_posted("nobody")):
        assert (0, False, {}) == (found.cursor, found.is_open, dict(found.posted_nano))


async def test_a_state_that_is_being_rebuilt_is_not_open(sums: World) -> None:
    """It may show less than was charged."""
    await sums.charge(30, FIRST)
    await sums.close_for_rebuild()
    for found in (await sums.reader.posted(TENANT, [FIRST]), await sums.reader.all_posted(TENANT)):
        assert (2, False) == (found.cursor, found.is_open)


async def test_redis_that_is_away_is_said_to_be(valkey: Valkey) -> None:
    """Not taken for nothing charged."""
    reads = RedisReads(valkey.url)
    with pytest.raises(StoreUnavailableError):
        await reads.posted(TENANT, [FIRST])
