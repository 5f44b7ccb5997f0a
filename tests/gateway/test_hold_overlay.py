"""Many holds that the log has not confirmed, as when Kafka is slow: what falls away, and what looking for it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from sinks.redis.client import RedisClient
from sinks.redis.connection import texts
from sinks.redis.holds import Placed, Refused
from sinks.redis.keys import slot_keys
from tests.budget_world import TENANT, ask
from tests.support.hold_worlds import RedisWorld
from tests.valkey import Valkey, running

MANY = 1_000
KEYS = slot_keys(TENANT)
#: A refused call's own, and one slice of each kind; of HMGET also the two that look again.
READS_MAX = {"hgetall": 0, "lrange": 2, "hscan": 1, "hmget": 6}
#: One call in sixteen tidies, by the server's clock: so many without one do not happen.
CALLS_MAX = 20_000


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """One server; every test empties it."""
    with running() as server:
        yield server


@pytest.fixture
async def world(valkey: Valkey) -> AsyncIterator[RedisWorld]:
    """A store and a sink on it."""
    valkey.command("FLUSHALL")
    async with RedisWorld(valkey.url) as made:
        yield made


@pytest.fixture
async def client(valkey: Valkey) -> AsyncIterator[RedisClient]:
    """Somebody else who looks at the server."""
    made = RedisClient(valkey.url)
    await made.open()
    yield made
    await made.close()


async def fill(world: RedisWorld) -> None:
    """A unit held by each of many, which takes all the room."""
    answers = await asyncio.gather(*(world.store.place(ask(world.hold(n), 1, MANY)) for n in range(MANY)))
    assert {type(answer) for answer in answers} == {Placed}


async def calls_of(client: RedisClient) -> dict[str, int]:
    """How often each command was called, by scripts too."""
    info = await client.call("INFO", "commandstats")
    lines = [line for line in info.decode().splitlines() if line.startswith("cmdstat_")]
    return {line[8:].partition(":")[0]: int(line.partition("calls=")[2].partition(",")[0]) for line in lines}


async def test_all_that_fell_away_at_once_gives_its_room_to_the_next_call(world: RedisWorld) -> None:
    """However many there are: a refusal while room is to be had would be a lie."""
    await fill(world)
    assert await world.store.place(ask(world.hold(MANY), 1, MANY)) == Refused("tenant_total", 0, MANY)
    await world.pass_overlay_time()
    assert isinstance(await world.store.place(ask(world.hold(MANY + 1), MANY, MANY)), Placed)


async def test_a_refusal_does_not_look_at_all_that_wait(world: RedisWorld, client: RedisClient) -> None:
    """The server stands still for everybody while it looks."""
    await fill(world)
    before = await calls_of(client)
    await world.store.place(ask(world.hold(MANY), 1, MANY))
    after = await calls_of(client)
    made = {name: after.get(name, 0) - before.get(name, 0) for name in READS_MAX}
    assert all(made[name] <= most for name, most in READS_MAX.items()), made


async def test_what_fell_away_is_looked_at_once(world: RedisWorld, client: RedisClient) -> None:
    """The next refusal finds nothing left to look at."""
    await fill(world)
    await world.pass_overlay_time()
    last = world.hold(MANY)
    assert isinstance(await world.store.place(ask(last, MANY, MANY)), Placed)
    assert texts(await client.call("LRANGE", KEYS.placed, "0", "-1")) == [last]


async def test_what_nothing_leads_to_falls_away_too(world: RedisWorld, client: RedisClient) -> None:
    """Holds that an earlier version placed, say: their room comes back while calls come."""
    await fill(world)
    await client.call("DEL", KEYS.placed)
    await world.pass_overlay_time()
    for number in range(CALLS_MAX):
        if isinstance(await world.store.place(ask(world.hold(MANY + number), MANY, MANY)), Placed):
            return
    pytest.fail("their room did not come back")


async def test_tombstones_go_when_nobody_can_ask_any_more(world: RedisWorld, client: RedisClient) -> None:
    """They are not looked for by any call in particular."""
    await client.call("HSET", KEYS.overlay, *(word for n in range(MANY) for word in (world.hold(n), "d1 limit 1")))
    for number in range(CALLS_MAX):
        await world.store.place(ask(world.hold(MANY + number), 0, MANY))
        if number % 100 == 0 and await client.call("HLEN", KEYS.overlay) <= number + 3:
            return
    pytest.fail("tombstones are left")
