"""The forecaster over sums and hours in memory."""

from __future__ import annotations

from api.alerts.forecaster import Forecaster
from api.alerts.notes import HourNotes
from processors.budgets import Counter
from processors.control import Limit
from processors.guardrails import AlertBook
from processors.guardrails.hours import MICROS_PER_HOUR, Standing, counter_at, hour_of
from schemas.events import AlertKind
from sinks.redis.hours import MemoryHours
from sinks.redis.posted import MemorySums
from tests.budget_world import NOW_MICROS, TENANT
from tests.budget_world import limit_on as limit

DAY = limit("tenant", TENANT, 1_000, window="day")
MINUTE = 60_000_000
#: 04:00 UTC and one second.
START = NOW_MICROS + 1_000_000


class World:
    """One limit, watched once a minute."""

    def __init__(self) -> None:
        """Nothing is charged."""
        self.sums, self.hours, self.kept, self.book = MemorySums(), MemoryHours(), MemoryHours(), AlertBook()
        self.restart()

    def restart(self) -> None:
        """Another process."""
        self.forecaster = Forecaster(self.sums, HourNotes(self.hours, self.kept))

    async def look(self, now: int, posted: int, *, of: Limit = DAY, is_open: bool = True) -> list[AlertKind]:
        """What is told when so much is charged; told alerts are known."""
        counters: dict[Counter, int] = {counter_at(of, now): posted}
        self.sums.put(TENANT, 1, counters, is_open=is_open)
        found = await self.forecaster.look([of], self.book, now)
        for alert in found:
            self.book.apply(alert)
        return [alert.kind for alert in found]


async def test_hours_are_noted_as_they_end() -> None:
    """The first look of an hour notes how the one before ended; later looks leave it."""
    world = World()
    for minutes, posted in ((0, 100), (1, 110), (60, 150), (90, 170)):
        await world.look(START + minutes * MINUTE, posted)
    midnight = counter_at(DAY, START).window_start
    expected = {hour_of(START) - 1: Standing(midnight, 100), hour_of(START): Standing(midnight, 150)}
    assert expected == await world.hours.standings(TENANT, DAY.limit_id)


async def test_an_hour_whose_end_was_missed_is_not_noted() -> None:
    """What was charged since would count for it."""
    world = World()
    await world.look(START + 3 * MINUTE, 100)
    assert {} == await world.hours.standings(TENANT, DAY.limit_id)


async def test_a_budget_that_will_not_last_is_told_once() -> None:
    """Sixty an hour from four in the morning on, and a thousand a day."""
    world = World()
    told = []
    for hour in range(6):
        told.append(await world.look(START + hour * MICROS_PER_HOUR, 100 + 60 * hour))
        told.append(await world.look(START + hour * MICROS_PER_HOUR + MINUTE, 100 + 60 * hour + 1))
    assert [AlertKind.BURN_RATE] == [kind for each in told for kind in each]


async def test_what_is_foreseen_is_told_without_postgres() -> None:
    """Nothing that is told waits for where hours are kept."""
    world = World()
    world.kept.away = True
    told = [await world.look(START + hour * MICROS_PER_HOUR, 100 + 60 * hour) for hour in range(6)]
    assert [AlertKind.BURN_RATE] == [kind for each in told for kind in each]


async def test_hours_are_known_after_a_restart() -> None:
    """The store has them."""
    world = World()
    for hour in range(3):
        await world.look(START + hour * MICROS_PER_HOUR, 100 + 60 * hour)
    world.restart()
    assert [AlertKind.BURN_RATE] == await world.look(START + 3 * MICROS_PER_HOUR, 280)


async def test_a_state_that_is_being_rebuilt_is_not_noted() -> None:
    """It shows less than was charged."""
    world = World()
    assert [] == await world.look(START, 5, is_open=False)
    assert {} == await world.hours.standings(TENANT, DAY.limit_id)


async def test_an_unusual_hour_is_told() -> None:
    """A week of nothing much in it, then a tenth of the day at once."""
    world = World()
    week = [hour_of(START) - 1 - 24 * day for day in range(1, 8)]
    for hour in week:
        await world.hours.put(TENANT, DAY.limit_id, {hour - 1: Standing(0, 10), hour: Standing(0, 20)})
    midnight = counter_at(DAY, START).window_start
    await world.hours.put(TENANT, DAY.limit_id, {hour_of(START) - 2: Standing(midnight, 10)})
    assert [AlertKind.ANOMALY] == await world.look(START, 250)
