"""Notes of hours over both stores in memory: each makes good what the other lost."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from api.alerts.notes import HourNotes, Series
from processors.control import Limit
from processors.guardrails.hours import MICROS_PER_HOUR, Standing, hour_of
from schemas.errors import StoreUnavailableError
from sinks.redis.hours import KEPT_HOURS, MemoryHours
from tests.budget_world import NOW_MICROS, TENANT
from tests.budget_world import limit_on as limit

LIMITS = [limit("tenant", TENANT, 1_000, window=window) for window in ("day", "week")]
LIMIT = LIMITS[0]
FIRST_HOUR = hour_of(NOW_MICROS) - 1


class World:
    """Two stores and one process that looks at limits once an hour."""

    def __init__(self) -> None:
        """Nothing is noted."""
        self.served, self.kept = MemoryHours(), MemoryHours()
        self.hour = FIRST_HOUR
        self.restart()

    def restart(self) -> None:
        """Another process."""
        self.notes = HourNotes(self.served, self.kept)

    async def note_hours(self, count: int, limits: list[Limit] = LIMITS[:1]) -> dict[int, Standing]:
        """So many looks, each of which notes an hour; what was noted."""
        noted = {}
        for _ in range(count):
            noted[self.hour] = Standing(0, self.hour)
            await self.look(limits, noted[self.hour])
            self.hour += 1
        return noted

    async def look(self, limits: list[Limit] = LIMITS[:1], standing: Standing | None = None) -> None:
        """As the forecaster does, a second after the hour."""
        self.notes.begin([one.limit_id for one in limits])
        for one in limits:
            series = await self.read(one)
            if standing is not None:
                await self.notes.note(one, series, self.hour, standing)
        await self.notes.keep(limits)

    async def read(self, limit: Limit) -> Series:
        """What the process knows of a limit."""
        return await self.notes.read(limit, (self.hour + 1) * MICROS_PER_HOUR + 1_000_000)

    async def known(self) -> tuple[dict[int, Standing], dict[int, Standing]]:
        """What is served of the first limit, and what is kept."""
        at = (TENANT, LIMIT.limit_id)
        return await self.served.standings(*at), await self.kept.standings(*at)


async def test_hours_are_served_and_kept() -> None:
    """In both stores, at once."""
    world = World()
    noted = await world.note_hours(3)
    assert (noted, noted) == await world.known()


@pytest.mark.parametrize("restarts", [False, True], ids=["at once", "after a restart"])
async def test_a_loss_of_redis_is_made_good(restarts: bool) -> None:
    """With the next look, by the process that noted them or by the next."""
    world = World()
    noted = await world.note_hours(3)
    world.served.lose()
    if restarts:
        world.restart()
    await world.look()
    assert (noted, noted) == await world.known()


async def test_a_loss_of_the_last_hour_is_made_good() -> None:
    """A replica that took over lacked it."""
    world = World()
    noted = await world.note_hours(3)
    world.served.lose()
    await world.served.put(TENANT, LIMIT.limit_id, dict(list(noted.items())[:2]))
    await world.look()
    assert (noted, noted) == await world.known()


@pytest.mark.parametrize("restarts", [False, True], ids=["at once", "after a restart"])
async def test_hours_are_noted_without_postgres_and_kept_once_it_is_back(restarts: bool) -> None:
    """From Redis, if the process that noted them is gone."""
    world = World()
    before = await world.note_hours(2)
    world.kept.away = True
    noted = before | await world.note_hours(2)
    if restarts:
        world.restart()
        await world.look()
    world.kept.away = False
    await world.look()
    assert (noted, noted) == await world.known()


async def test_a_loss_of_redis_without_postgres_is_made_good_once_it_is_back() -> None:
    """And what was noted meanwhile stays."""
    world = World()
    noted = await world.note_hours(3)
    world.served.lose()
    world.kept.away = True
    world.restart()
    noted |= await world.note_hours(1)
    world.kept.away = False
    await world.look()
    assert (noted, noted) == await world.known()


async def test_a_loss_of_postgres_is_made_good_by_who_takes_over() -> None:
    """From what is served: an older process noted in Redis alone, too."""
    world = World()
    noted = await world.note_hours(3)
    world.kept.lose()
    world.notes.forget()
    await world.look()
    assert (noted, noted) == await world.known()


async def test_what_postgres_missed_for_five_weeks_is_not_kept_any_more() -> None:
    """What waits for it is bounded."""
    world = World()
    await world.look()
    world.kept.away = True
    await world.note_hours(2)
    world.hour += KEPT_HOURS - 1
    noted = await world.note_hours(1)
    world.kept.away = False
    await world.look()
    assert noted == (await world.known())[1]


async def test_an_hour_that_both_have_is_what_was_served() -> None:
    """What people saw does not change."""
    world = World()
    at = (TENANT, LIMIT.limit_id)
    await world.served.put(*at, {FIRST_HOUR: Standing(0, 1)})
    await world.kept.put(*at, {FIRST_HOUR: Standing(0, 2)})
    assert {FIRST_HOUR: Standing(0, 1)} == (await world.read(LIMIT)).standings


async def test_an_absence_of_postgres_is_said_once_a_look_and_asked_for_once() -> None:
    """However many limits there are: each question may take its time."""
    world = World()
    world.kept.away = True
    with capture_logs() as told:
        await world.note_hours(2, LIMITS)
    assert ["hours_not_kept", "hours_not_kept"] == [line["event"] for line in told]


async def test_an_absence_of_redis_is_a_fault() -> None:
    """Not an empty past."""
    world = World()
    world.served.away = True
    with pytest.raises(StoreUnavailableError):
        await world.look()


async def test_five_weeks_are_known() -> None:
    """Of what the process noted itself."""
    world = World()
    await world.note_hours(2)
    world.hour += KEPT_HOURS - 1
    noted = await world.note_hours(1)
    assert noted == (await world.read(LIMIT)).standings


@pytest.mark.parametrize("lost", ["neither", "served", "kept"])
async def test_older_hours_are_not_brought_back(lost: str) -> None:
    """Nobody watched for five weeks: nothing is known, whichever store has it still."""
    world = World()
    await world.note_hours(2)
    stores = {"served": world.served, "kept": world.kept}
    if lost in stores:
        stores[lost].lose()
    world.hour += KEPT_HOURS
    world.restart()
    assert {} == (await world.read(LIMIT)).standings


async def test_a_limit_that_is_not_watched_any_more_is_forgotten() -> None:
    """Its hours stay in the stores alone."""
    world = World()
    await world.note_hours(2)
    await world.look(LIMITS[1:])
    world.served.lose()
    world.kept.lose()
    await world.look()
    assert ({}, {}) == await world.known()
