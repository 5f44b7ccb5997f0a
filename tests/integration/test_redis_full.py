"""A Redis that may use little memory: what refused calls leave in it, and what is refused when it is nearly full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from processors.budgets import Counter, Sums
from schemas.limits import REFUSAL_SECONDS
from sinks.redis.client import RedisClient
from sinks.redis.fullness import watch_fullness
from sinks.redis.holds import Closed, ClosedReason, Placed, Refused
from sinks.redis.keys import slot_keys
from sinks.redis.reads import RedisReads
from streams.monitor import Monitor
from tests.budget_world import TENANT, Events, ask, hold_id, leg
from tests.support.hold_worlds import RedisWorld
from tests.valkey import Valkey, running

LIMIT = 100
PIECE = "x" * 100_000
KEYS = slot_keys(TENANT)


@pytest.fixture
def small() -> Iterator[Valkey]:
    """A server that may use 16 MB and evicts nothing."""
    with running(("--maxmemory", "16mb", "--maxmemory-policy", "noeviction")) as server:
        yield server


@pytest.fixture
async def world(small: Valkey) -> AsyncIterator[RedisWorld]:
    """A store and a sink on it."""
    async with RedisWorld(small.url) as made:
        yield made


@pytest.fixture
async def client(small: Valkey) -> AsyncIterator[RedisClient]:
    """Somebody else who writes to the server."""
    made = RedisClient(small.url)
    await made.open()
    yield made
    await made.close()


async def fill(client: RedisClient, per_cent: int) -> None:
    """Write until so much of what the server may use is used."""
    number = 0
    while (await client.fullness()).per_cent < per_cent:
        await client.call("SET", f"filler:{number}", PIECE)
        number += 1


async def empty(client: RedisClient) -> None:
    """Take away what was filled in."""
    for name in await client.call("KEYS", "filler:*"):
        await client.call("DEL", name)


async def until(condition: Callable[[], bool]) -> None:
    """Let the store or the watcher look; a matter of moments."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.01)


async def test_a_refused_hold_is_remembered_for_minutes_alone(world: RedisWorld, client: RedisClient) -> None:
    """A caller who is refused all day takes no room that others need: nothing of it is kept with the day's holds."""
    for number in range(20):
        assert isinstance(await world.store.place(ask(world.hold(number), LIMIT + 1, LIMIT)), Refused)

    kept = {name.decode(): await client.call("PTTL", name) for name in await client.call("KEYS", f"{KEYS.refused}*")}
    assert [] == await client.call("KEYS", f"{KEYS.done}*")
    assert 1 <= len(kept) <= 2
    assert all(0 < millis <= REFUSAL_SECONDS * 1_000 for millis in kept.values())


async def test_admission_ends_before_the_server_is_full(world: RedisWorld, client: RedisClient) -> None:
    """What is left is for what was admitted: the log is still applied."""
    hold = world.hold(1)
    assert isinstance(await world.store.place(ask(hold, LIMIT, LIMIT)), Placed)
    await fill(client, 95)
    await world.refresh()

    assert await world.store.place(ask(world.hold(2), 1, LIMIT)) == Closed(ClosedReason.FULL)
    await world.apply(Events().placed(hold, leg(LIMIT)))
    reads = RedisReads(world.url)
    await reads.open()
    state = await reads.tenant_state(TENANT)
    await reads.close()
    assert state.sums == {Counter("tenant_total", "USD", 0, 0): Sums(0, LIMIT)}


async def test_a_full_server_is_named_before_the_gateway_has_looked(world: RedisWorld, client: RedisClient) -> None:
    """The server's own refusal says why nothing is admitted."""
    await client.call("CONFIG", "SET", "maxmemory", "500kb")

    assert await world.store.place(ask(world.hold(1), 1, LIMIT)) == Closed(ClosedReason.FULL)


async def test_a_server_that_has_room_again_admits_by_itself(world: RedisWorld, client: RedisClient) -> None:
    """Nobody is restarted, and nothing was held by what was not admitted."""
    await fill(client, 95)
    await world.refresh()
    assert await world.store.place(ask(world.hold(1), LIMIT, LIMIT)) == Closed(ClosedReason.FULL)
    await empty(client)

    await until(lambda: world.store.closed_reason(TENANT) is None)
    assert isinstance(await world.store.place(ask(world.hold(2), LIMIT, LIMIT)), Placed)


async def test_how_full_the_server_is_can_be_seen(client: RedisClient) -> None:
    """In what the process says of itself, and in its metrics."""
    monitor = Monitor("sink-redis")
    await fill(client, 50)
    task = asyncio.create_task(watch_fullness(client.fullness, monitor))
    await until(lambda: "redis_memory" in monitor.status())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    told = monitor.status()["redis_memory"]
    (ceiling,) = monitor.metrics.gauge("quaestor_redis_memory_ceiling_bytes").collect()
    assert 16 * 1024 * 1024 == told["ceiling_bytes"] == ceiling.samples[0].value
    assert 50 <= told["per_cent"] < 60


async def test_a_hold_id_that_nobody_remembers_is_not_decided_again(world: RedisWorld) -> None:
    """It may have been refused, longer ago than that is remembered."""
    old = hold_id(1, time.time_ns() // 1_000 - (REFUSAL_SECONDS + 1) * 1_000_000)

    assert await world.store.place(ask(old, 1, LIMIT)) == Closed(ClosedReason.TOO_OLD)
