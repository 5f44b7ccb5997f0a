"""What every HourStore must do, asked of the one in memory, of the one on a real Valkey and of the one in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from processors.guardrails.hours import Standing
from schemas.errors import StoreUnavailableError
from sinks.postgres.hours import PostgresHours
from sinks.redis.client import RedisClient
from sinks.redis.hours import KEPT_HOURS, HourStore, MemoryHours, RedisHours, ServedHours
from tests.support.databases import postgres_databases
from tests.valkey import Valkey

HOUR = 498_000


@asynccontextmanager
async def in_valkey(server: Valkey) -> AsyncIterator[RedisHours]:
    """An empty store on it."""
    server.command("FLUSHALL")
    client = RedisClient(server.url)
    await client.open()
    try:
        yield RedisHours(client)
    finally:
        await client.close()


@pytest.fixture(params=["memory", "valkey"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[ServedHours]:
    """An empty store that others read."""
    if request.param == "memory":
        yield MemoryHours()
        return
    async with in_valkey(request.getfixturevalue("valkey")) as store:
        yield store


@pytest.fixture(params=["memory", "valkey", "postgres"])
async def hours(request: pytest.FixtureRequest) -> AsyncIterator[HourStore]:
    """An empty store."""
    if request.param == "memory":
        yield MemoryHours()
    elif request.param == "valkey":
        async with in_valkey(request.getfixturevalue("valkey")) as store:
            yield store
    else:
        kept = PostgresHours(await postgres_databases().emptied("hours"))
        yield kept
        await kept.close()


async def test_what_is_noted_is_known(hours: HourStore) -> None:
    """By tenant, limit and hour, amounts beyond what a double holds included."""
    await hours.put("acme", "lim_a", {HOUR: Standing(5, 2**62), HOUR + 1: Standing(6, 0)})
    await hours.put("acme", "lim_b", {HOUR: Standing(7, 1)})
    await hours.put("other", "lim_a", {HOUR: Standing(8, 2)})
    assert {HOUR: (5, 2**62), HOUR + 1: (6, 0)} == await hours.standings("acme", "lim_a")


async def test_an_hour_more_leaves_those_before(hours: HourStore) -> None:
    """One hour at a time, too."""
    await hours.put("acme", "lim_a", {HOUR: Standing(5, 10)})
    await hours.put("acme", "lim_a", {HOUR + 1: Standing(5, 20)})
    assert {HOUR: (5, 10), HOUR + 1: (5, 20)} == await hours.standings("acme", "lim_a")


async def test_nothing_is_known_of_a_limit_that_was_never_noted(hours: HourStore) -> None:
    """And that is no fault."""
    assert {} == await hours.standings("acme", "lim_none")


async def test_the_same_hour_again_replaces_it(hours: HourStore) -> None:
    """A process that takes over may note it once more."""
    for posted in (9, 10):
        await hours.put("acme", "lim_a", {HOUR: Standing(5, posted)})
    assert {HOUR: (5, 10)} == await hours.standings("acme", "lim_a")


async def test_old_hours_fall_away(hours: HourStore) -> None:
    """After five weeks, those too at whose time nothing was noted."""
    given = [HOUR, HOUR + 1, HOUR + 2, HOUR + KEPT_HOURS + 1]
    for hour in given:
        await hours.put("acme", "lim_a", {hour: Standing(5, 10)})
    assert given[2:] == sorted(await hours.standings("acme", "lim_a"))


async def test_the_hours_of_a_limit_are_counted(served: ServedHours) -> None:
    """So whoever knows how many there were sees that some are lost."""
    await served.put("acme", "lim_a", {HOUR: Standing(5, 10), HOUR + 1: Standing(5, 20)})
    await served.put("acme", "lim_b", {HOUR: Standing(5, 10)})
    assert [2, 1, 0] == [await served.count("acme", limit) for limit in ("lim_a", "lim_b", "lim_c")]


async def test_a_limit_that_is_gone_leaves_nothing_in_postgres() -> None:
    """Its hours go with those of the limits that are noted still."""
    store = PostgresHours(await postgres_databases().emptied("hours"))
    await store.put("acme", "lim_gone", {HOUR: Standing(5, 10)})
    await store.put("acme", "lim_a", {HOUR + KEPT_HOURS: Standing(5, 10)})
    assert {} == await store.standings("acme", "lim_gone")
    await store.close()


async def asked_in_vain(hours: HourStore) -> None:
    """Each call says that the store is away."""
    with pytest.raises(StoreUnavailableError):
        await hours.standings("acme", "lim_a")
    with pytest.raises(StoreUnavailableError):
        await hours.put("acme", "lim_a", {HOUR: Standing(5, 10)})


async def test_a_server_that_is_away_is_said_to_be(valkey: Valkey) -> None:
    """Not taken for an empty past."""
    hours = RedisHours(RedisClient(valkey.url))
    await asked_in_vain(hours)
    with pytest.raises(StoreUnavailableError):
        await hours.count("acme", "lim_a")
    await asked_in_vain(PostgresHours("postgresql://postgres@127.0.0.1:9/none"))


async def test_a_database_that_refuses_is_one_that_is_away() -> None:
    """Nobody's alerts wait for a grant, nor for `quaestor migrate`."""
    dsn = await postgres_databases().copied("hours")
    owner = await asyncpg.connect(dsn)
    for change in ("REVOKE ALL ON quaestor.limit_hour FROM quaestor_app", "DROP TABLE quaestor.limit_hour"):
        await owner.execute(change)
        store = PostgresHours(dsn)
        await asked_in_vain(store)
        await store.close()
    await owner.close()
