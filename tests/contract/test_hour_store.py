"""What every HourStore must do, asked of the one in memory and of the one on a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from processors.guardrails.hours import Standing
from schemas.errors import StoreUnavailableError
from sinks.redis.client import RedisClient
from sinks.redis.hours import KEPT_HOURS, HourStore, MemoryHours, RedisHours
from tests.valkey import Valkey

HOUR = 498_000


@pytest.fixture(params=["memory", "valkey"])
async def hours(request: pytest.FixtureRequest) -> AsyncIterator[HourStore]:
    """An empty store."""
    if request.param == "memory":
        yield MemoryHours()
        return
    server: Valkey = request.getfixturevalue("valkey")
    server.command("FLUSHALL")
    client = RedisClient(server.url)
    await client.open()
    try:
        yield RedisHours(client)
    finally:
        await client.close()


async def test_what_is_noted_is_known(hours: HourStore) -> None:
    """By limit and hour, amounts beyond what a double holds included."""
    await hours.put("acme", "lim_a", HOUR, Standing(5, 2**62))
    await hours.put("acme", "lim_a", HOUR + 1, Standing(6, 0))
    await hours.put("acme", "lim_b", HOUR, Standing(7, 1))
    await hours.put("other", "lim_a", HOUR, Standing(8, 2))
    assert {HOUR: (5, 2**62), HOUR + 1: (6, 0)} == await hours.standings("acme", "lim_a")


async def test_nothing_is_known_of_a_limit_that_was_never_noted(hours: HourStore) -> None:
    """And that is no fault."""
    assert {} == await hours.standings("acme", "lim_none")


async def test_the_same_hour_again_replaces_it(hours: HourStore) -> None:
    """A process that takes over may note it once more."""
    for _ in range(2):
        await hours.put("acme", "lim_a", HOUR, Standing(5, 10))
    assert {HOUR: (5, 10)} == await hours.standings("acme", "lim_a")


async def test_old_hours_fall_away(hours: HourStore) -> None:
    """After five weeks."""
    for hour in (HOUR, HOUR + 1, HOUR + KEPT_HOURS):
        await hours.put("acme", "lim_a", hour, Standing(5, 10))
    assert [HOUR + 1, HOUR + KEPT_HOURS] == sorted(await hours.standings("acme", "lim_a"))


async def test_a_server_that_is_away_is_said_to_be(valkey: Valkey) -> None:
    """Not taken for an empty past."""
    hours = RedisHours(RedisClient(valkey.url))
    with pytest.raises(StoreUnavailableError):
        await hours.standings("acme", "lim_a")
    with pytest.raises(StoreUnavailableError):
        await hours.put("acme", "lim_a", HOUR, Standing(5, 10))
