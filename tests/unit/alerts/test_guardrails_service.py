"""The loop over a log in memory: who works, what is told, and that it is told once."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from api.alerts.courier import Courier
from api.alerts.forecaster import Forecaster
from api.alerts.notes import HourNotes
from api.alerts.outlets import MemoryOutlet
from api.alerts.service import Guardrails
from api.alerts.watcher import Watcher
from processors.budgets import Counter
from processors.control import Channel, ControlState, Threshold
from schemas.events import Alert, AlertKind, BudgetKind, Event
from schemas.topics import ALERTS, BUDGETS
from sinks.redis.hours import MemoryHours
from sinks.redis.posted import MemorySums
from streams.codec import Codec, LocalSchemas
from streams.log import LogRecord, Partition
from streams.memory import MemoryLog, MemoryReader
from streams.metrics import Metrics
from streams.monitor import Monitor
from streams.partitioner import partition_of
from streams.recorder import Recorder
from streams.records import outgoing
from tests.budget_world import TENANT
from tests.budget_world import limit_on as limit
from tests.support import events

CODEC = Codec(LocalSchemas())
LIMIT = limit("tenant", TENANT, 100, window="total", thresholds=(Threshold(percent=50), Threshold(percent=90)))
COUNTER = Counter(LIMIT.limit_id, "USD", 0, 0)
CHANNEL = Channel(channel_id="ops", tenant_id=TENANT, kind="slack", target_ref="env:HOOK")
SECONDS_MAX = 10.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it; the test fails after a while."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)


class Unread(MemoryReader):
    """A reader from whom nothing comes for now."""

    def consume(self, records_max: int, timeout_seconds: float) -> list[LogRecord]:
        """Nothing."""
        super().consume(0, timeout_seconds)
        return []


class SlowForecaster(Forecaster):
    """One that has much to ask, and finds something in the end."""

    def __init__(self, world: World) -> None:
        """It waits until it may."""
        super().__init__(world.sums, HourNotes(MemoryHours(), MemoryHours()))
        self.began, self.go = asyncio.Event(), asyncio.Event()
        self.is_over = False

    async def look(self, *_: Any) -> list[Alert]:
        """One alert, once it may."""
        self.began.set()
        try:
            await self.go.wait()
        finally:
            self.is_over = True
        return [msgspec.structs.replace(events.alert(_uuid(9), kind=AlertKind.BURN_RATE), occurred_at=_now())]


class Process:
    """One run of the loop."""

    def __init__(self, world: World, budgets: MemoryReader | None = None, forecaster: Forecaster | None = None) -> None:
        """Start it."""
        recorder, self.monitor = Recorder(world.log.publisher(), CODEC), Monitor("guardrails")
        self.watcher = Watcher(world.sums)

        async def tell(end: Alert) -> None:
            await recorder.record([end])

        self.courier = Courier({"slack": world.outlet}, lambda reference: reference, tell, _now, lambda: 1.0, Metrics())
        self.alerts, self.budgets = world.log.group_reader("stream-guardrails"), budgets or world.log.reader()
        service = Guardrails(
            self.alerts,
            self.budgets,
            recorder,
            CODEC,
            lambda: world.control,
            self.watcher,
            forecaster or Forecaster(world.sums, HourNotes(MemoryHours(), MemoryHours())),
            self.courier,
            self.monitor,
        )
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(service.run(self._stop))

    @property
    def works(self) -> bool:
        """Whether it is the one that works."""
        return self.monitor.status().get("working") is True

    async def stop(self) -> None:
        """End it in order."""
        self._stop.set()
        await self._task
        await self.courier.close()
        self.alerts.close()
        self.budgets.close()


class World:
    """A log, live sums and a channel."""

    def __init__(self) -> None:
        """One limit, nothing charged."""
        self.log, self.sums, self.outlet = MemoryLog(), MemorySums(), MemoryOutlet()
        self.control: ControlState | None = ControlState(
            limits={LIMIT.limit_id: LIMIT}, channels={(TENANT, "ops"): CHANNEL}
        )
        self.sums.put(TENANT, 0, {})
        self._offsets, self._processes = itertools.count(), list[Process]()

    def start(self, budgets: MemoryReader | None = None, forecaster: Forecaster | None = None) -> Process:
        """Another process."""
        process = Process(self, budgets, forecaster)
        self._processes.append(process)
        return process

    async def close(self) -> None:
        """Stop those that run."""
        for process in self._processes:
            if not process._stop.is_set():
                await process.stop()

    def record(self, *given: Event) -> None:
        """Append events to the log."""
        with self.log.lock:
            for event in given:
                self.log.append(outgoing(CODEC, event))

    def charge(self, posted: int, offset: int | None = None) -> None:
        """A call is charged, and applied."""
        offset = next(self._offsets) if offset is None else offset
        leg = events.leg(LIMIT.limit_id, 1)
        self.record(events.budget(BudgetKind.COMMITTED, f"hold-{offset}", _uuid(offset), leg))
        self.sums.put(TENANT, offset + 1, {COUNTER: posted})

    def told(self, kind: AlertKind = AlertKind.THRESHOLD) -> list[Any]:
        """Alerts of a kind in the log."""
        records = self.log.records[Partition(ALERTS.name, 0)]
        found = [CODEC.decode_event(one.topic, one.value or b"") for one in records]
        return [event for event in found if isinstance(event, Alert) and event.kind is kind]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world that is closed in the end."""
    made = World()
    yield made
    await made.close()


def _now() -> int:
    return time.time_ns() // 1_000


def _uuid(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012d}"


async def test_a_threshold_that_is_reached_is_told_and_delivered_once(world: World) -> None:
    """From the charge in the log to the channel, and its end is in the log."""
    process = world.start()
    await until(lambda: process.works)
    world.charge(55)
    await until(lambda: len(world.told(AlertKind.DELIVERY)) == 1)
    world.charge(60)
    world.charge(95)
    await until(lambda: len(world.told(AlertKind.DELIVERY)) == 2)
    assert ["50%", "90%"] == [alert.threshold for alert in world.told()]
    assert ["50%", "90%"] == [alert.threshold for _, _, alert in world.outlet.taken]


async def test_a_process_that_takes_over_tells_nothing_again(world: World) -> None:
    """It reads what was told before it tells."""
    first = world.start()
    await until(lambda: first.works)
    world.charge(55)
    await until(lambda: len(world.told(AlertKind.DELIVERY)) == 1)
    await first.stop()
    world.charge(95)
    second = world.start()
    await until(lambda: len(world.told(AlertKind.DELIVERY)) == 2)
    assert second.works
    assert ["50%", "90%"] == [alert.threshold for alert in world.told()]
    assert 2 == len(world.outlet.taken)


async def test_what_nobody_told_is_told_by_who_takes_over(world: World) -> None:
    """Of a window that is over too, as told late; and by the one after it nothing more."""
    first = world.start()
    await until(lambda: first.works)
    await first.stop()
    ended = Counter(LIMIT.limit_id, "USD", _now() - 120_000_000, _now() - 60_000_000)
    leg = msgspec.structs.replace(
        events.leg(LIMIT.limit_id, 1), window_start=ended.window_start, window_end=ended.window_end
    )
    at = {"occurred_at": ended.window_start + 1}
    world.record(
        events.budget(BudgetKind.COMMITTED, "h1", _uuid(1), leg, **at),
        events.budget(BudgetKind.OVERAGE, "h1", _uuid(2), leg, **at),
        events.budget(
            BudgetKind.REFUSED, "h2", _uuid(3), leg, **at, refused_by_limit_id=leg.limit_id, remaining_nano=0
        ),
    )
    world.sums.put(TENANT, 3, {ended: 60})
    second = world.start()
    await until(lambda: len(world.told(AlertKind.DELIVERY)) == 3)
    await second.stop()
    world.charge(95, offset=3)
    third = world.start()
    await until(lambda: len(world.told(AlertKind.DELIVERY)) == 5)
    assert third.works
    assert ["100%", "50%", "50%", "90%"] == sorted(str(alert.threshold) for alert in world.told())
    assert [True, False] == ["Told late" in alert.detail for alert in world.told() if alert.threshold == "50%"]
    assert (1, 5) == (len(world.told(AlertKind.OVERAGE)), len(world.outlet.taken))


async def test_what_was_judged_is_not_read_again(world: World) -> None:
    """The group keeps up to where: an offset is in it once its charge is applied and told."""
    committed, at = world.log.groups, Partition(BUDGETS.name, partition_of(TENANT.encode(), BUDGETS.partitions))
    world.charge(55)
    world.charge(60)
    world.sums.put(TENANT, 1, {COUNTER: 55})
    first = world.start()
    await until(lambda: at in committed["stream-guardrails"].committed)
    before = committed["stream-guardrails"].committed[at]
    await first.stop()
    world.sums.put(TENANT, 2, {COUNTER: 95})
    world.start()
    await until(lambda: committed["stream-guardrails"].committed[at] == 2)
    assert (1, ["50%", "90%"]) == (before, [alert.threshold for alert in world.told()])


async def test_what_was_not_told_yet_counts_as_not_judged(world: World) -> None:
    """Where a look keeps alerts back, the next process reads again what they follow from."""
    ended = Counter(LIMIT.limit_id, "USD", _now() - 120_000_000, _now() - 60_000_000)
    leg = msgspec.structs.replace(
        events.leg(LIMIT.limit_id, 1), window_start=ended.window_start, window_end=ended.window_end
    )
    world.record(events.budget(BudgetKind.COMMITTED, "h1", _uuid(1), leg, occurred_at=ended.window_start + 1))
    world.sums.put(TENANT, 1, {ended: 60})
    first = world.start()
    first.watcher._told_max = 0
    await until(lambda: first.watcher.has_more)
    await first.stop()
    world.start()
    await until(lambda: len(world.told()) == 1)


async def test_what_stands_now_does_not_wait_for_what_is_read_again(world: World) -> None:
    """A day of budgets takes minutes to read; every counter that is on is looked at meanwhile."""
    world.charge(40)
    process = world.start(Unread(world.log))
    await until(lambda: process.works and not process.watcher._whole)
    world.sums.put(TENANT, 1, {COUNTER: 55})
    await until(lambda: len(world.told()) == 1)
    assert "50%" == world.told()[0].threshold


async def test_one_of_two_processes_works(world: World) -> None:
    """The other stands by, and takes over when the first ends."""
    first = world.start()
    await until(lambda: first.works)
    second = world.start()
    await until(lambda: second.monitor.status()["state"] == "running")
    world.charge(55)
    await until(lambda: len(world.told(AlertKind.DELIVERY)) == 1)
    assert [True, False] == [first.works, second.works]
    await first.stop()
    await until(lambda: second.works)
    assert 1 == len(world.told())


async def test_an_alert_of_others_is_delivered_too(world: World) -> None:
    """A sink that paused a partition tells through the same topic."""
    paused = events.alert(_uuid(7), kind=AlertKind.PARTITION_PAUSED)
    world.start()
    world.record(msgspec.structs.replace(paused, occurred_at=_now()))
    await until(lambda: len(world.outlet.taken) == 1)
    assert AlertKind.PARTITION_PAUSED is world.outlet.taken[0][2].kind


async def test_what_others_tell_is_delivered_while_the_live_state_is_away(world: World) -> None:
    """It may be the very thing that is told; limits are looked at again once it is back."""
    world.sums.away = True
    process = world.start()
    await until(lambda: process.monitor.status()["state"] == "waiting")
    paused = events.alert(_uuid(7), kind=AlertKind.PARTITION_PAUSED)
    world.record(msgspec.structs.replace(paused, occurred_at=_now()))
    world.charge(55)
    await until(lambda: len(world.outlet.taken) == 1)
    world.sums.away = False
    await until(lambda: len(world.outlet.taken) == 2)
    assert [AlertKind.PARTITION_PAUSED, AlertKind.THRESHOLD] == [alert.kind for _, _, alert in world.outlet.taken]


async def test_nothing_is_told_before_the_control_plane_is_known(world: World) -> None:
    """Without limits and channels nothing could be."""
    control, world.control = world.control, None
    world.charge(55)
    process = world.start()
    await until(lambda: process.monitor.status()["state"] == "waiting")
    assert [] == world.told()
    world.control = control
    await until(lambda: len(world.told()) == 1)


async def test_a_log_that_goes_away_is_waited_for(world: World) -> None:
    """What moved meanwhile is told when it is back."""
    process = world.start()
    await until(lambda: process.works)
    world.charge(55)
    world.log.away = True
    await until(lambda: process.monitor.status()["state"] == "waiting")
    world.log.away = False
    await until(lambda: len(world.told(AlertKind.DELIVERY)) == 1)
    assert 1 == len(world.told())


async def test_a_limit_lowered_below_what_is_charged_is_told(world: World) -> None:
    """Without any call: the change of the limit is the cause."""
    process = world.start()
    await until(lambda: process.works)
    world.charge(40)
    lower = msgspec.structs.replace(LIMIT, amount_nano=60)
    world.control = ControlState(limits={LIMIT.limit_id: lower}, channels={(TENANT, "ops"): CHANNEL})
    await until(lambda: len(world.told()) == 1)
    assert "50%" == world.told()[0].threshold


async def test_a_record_that_can_not_be_read_is_passed_over(world: World) -> None:
    """The sinks quarantine it; the loop goes on."""
    process = world.start()
    await until(lambda: process.works)
    good = outgoing(CODEC, events.budget(BudgetKind.COMMITTED, "h", _uuid(1), events.leg(LIMIT.limit_id, 1)))
    assert 0 <= partition_of(good.key, BUDGETS.partitions)
    with world.log.lock:
        world.log.append(good._replace(value=b"rubbish"))
    next(world._offsets)
    world.charge(55)
    await until(lambda: len(world.told()) == 1)


async def test_a_threshold_does_not_wait_for_the_forecast(world: World) -> None:
    """Nor does the end of the process; what the forecast finds is told when it is there."""
    forecaster = SlowForecaster(world)
    process = world.start(forecaster=forecaster)
    await asyncio.wait_for(forecaster.began.wait(), SECONDS_MAX)
    world.charge(55)
    await until(lambda: len(world.told(AlertKind.DELIVERY)) == 1)
    before = world.told(AlertKind.BURN_RATE)
    forecaster.go.set()
    await until(lambda: len(world.told(AlertKind.BURN_RATE)) == 1)
    await process.stop()
    assert [] == before

    last = SlowForecaster(world)
    process = world.start(forecaster=last)
    await asyncio.wait_for(last.began.wait(), SECONDS_MAX)
    await asyncio.wait_for(process.stop(), SECONDS_MAX)
    assert last.is_over
