"""Projections after a loss of Redis: hours noted over a real Valkey, its sink and Postgres, and given back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.alerts.forecaster import Forecaster
from api.alerts.notes import HourNotes
from api.control.standings import LimitStanding, standings_of
from processors.guardrails import AlertBook
from processors.guardrails.hours import MICROS_PER_HOUR, counter_at
from schemas.events import Alert, AlertKind
from schemas.money import NANO_PER_UNIT
from sinks.postgres.hours import PostgresHours
from sinks.redis.reads import RedisReads
from tests.budget_world import TENANT, leg
from tests.budget_world import limit_on as limit
from tests.support.databases import postgres_databases
from tests.support.live_budgets import Log, World, now_micros, until
from tests.valkey import Valkey

pytestmark = pytest.mark.stack
LIMIT = limit("tenant", TENANT, 100 * NANO_PER_UNIT, window="day")
#: What is charged in each hour of the day, whole units: more than the day's limit, at this rate.
CHARGES = (5, 9, 4, 7, 11)
MINUTE = 60_000_000


class Watched:
    """Live budgets, and the process that watches them; another gateway, `budget status`, reads Redis alone."""

    def __init__(self, world: World, hours: PostgresHours) -> None:
        """Today, in which nothing is charged yet."""
        self.world, self._hours = world, hours
        self._status = RedisReads(world.valkey.url)
        self._day = counter_at(LIMIT, now_micros())
        self.now = self._day.window_start
        self.restart()

    async def open(self) -> None:
        """Open what reads."""
        await self._status.open()

    async def close(self) -> None:
        """Close what reads."""
        await self._status.close()

    def restart(self) -> None:
        """Another process watches."""
        reads = self.world.reads
        self._forecaster = Forecaster(reads, HourNotes(reads.hours, self._hours))

    async def spend(self, amount_nano: int) -> None:
        """One call is held and charged, and applied."""
        window = (self._day.window_start, self._day.window_end)
        placed = self.world.events.placed(self.world.hold(), leg(amount_nano, LIMIT.limit_id, window))
        await self.world.record(placed, self.world.events.committed(placed, amount_nano))
        await self.world.settled()

    async def hours_pass(self) -> None:
        """Each with its charges, and looked at when it is over; then half an hour more."""
        for charge in CHARGES:
            await self.spend(charge * NANO_PER_UNIT)
            self.now += MICROS_PER_HOUR
            await self.alerts()
        self.now += 30 * MINUTE

    async def alerts(self) -> list[Alert]:
        """A look of the process that watches; nothing was told yet."""
        return await self._forecaster.look([LIMIT], AlertBook(), self.now)

    async def status(self) -> LimitStanding:
        """What `budget status` and the console show of the limit."""
        (found,) = await standings_of(self._status, [LIMIT], self.now)
        return found

    async def lose_redis(self) -> None:
        """FLUSHALL; the sink makes the live state again."""
        before = await self.world.generation()
        self.world.valkey.command("FLUSHALL")

        async def is_another() -> bool:
            return await self.world.generation() not in {"", before}

        await until(is_another, "another generation")
        await self.world.settled()


@pytest.fixture
async def watched(valkey: Valkey) -> AsyncIterator[Watched]:
    """Everything over the log in memory, with one tenant open."""
    world, hours = World(Log(None), valkey), PostgresHours(await postgres_databases().emptied("hours"))
    await world.start()
    made = Watched(world, hours)
    await made.open()
    try:
        await world.name_tenant(TENANT)
        yield made
    finally:
        await made.close()
        await hours.close()
        await world.stop()


@pytest.mark.parametrize("restarts", [False, True], ids=["the same process", "another process"])
async def test_projections_are_what_they_were(watched: Watched, restarts: bool) -> None:
    """With the first look after the loss: in the alert and in `budget status`, to the nano-unit."""
    await watched.hours_pass()
    told, shown = await watched.alerts(), await watched.status()
    assert [AlertKind.BURN_RATE] == [alert.kind for alert in told]
    assert shown.projected is not None
    assert told[0].expected_nano == shown.projected.expected_nano

    await watched.lose_redis()
    if restarts:
        watched.restart()
    assert (await watched.status()).projected is None
    assert told == await watched.alerts()
    assert shown == await watched.status()
