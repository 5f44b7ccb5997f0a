"""Live budgets that come back from a snapshot: on a real Valkey and a real Postgres, over the log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from schemas.events import BudgetEvent
from schemas.topics import BUDGETS
from sinks.postgres.snapshots import PostgresSnapshots
from sinks.redis.keys import gate_key, slot_keys
from sinks.redis.snapshots import MemorySnapshots, SnapshotStore
from streams.log import GroupReader, LogRecord, Partition
from streams.memory import MemoryGroup, MemoryGroupReader, MemoryLog
from tests.budget_world import TENANT, leg
from tests.support.databases import postgres_databases
from tests.support.live_budgets import PARTITION, Log, SinkProcess, World, until
from tests.valkey import Valkey

PLACE = Partition(BUDGETS.name, PARTITION)


class NotingReader(MemoryGroupReader):
    """A member of the sink's group that notes what it was given of the tenant's partition."""

    def __init__(self, log: MemoryLog, group: MemoryGroup, given: list[int]) -> None:
        """Note into `given`."""
        super().__init__(log, group)
        self._given = given

    def consume(self, records_max: int, timeout_seconds: float) -> list[LogRecord]:
        """As the seam says."""
        records = super().consume(records_max, timeout_seconds)
        self._given += [record.offset for record in records if (record.topic, record.partition) == PLACE]
        return records


class NotingLog(Log):
    """A log in memory that knows which offsets the sink has read."""

    def __init__(self) -> None:
        """Nothing is read."""
        super().__init__(None)
        self.given: list[int] = []

    def group_reader(self) -> GroupReader:
        """As the log's."""
        group = self.memory.groups.setdefault("sink-redis", MemoryGroup())
        return NotingReader(self.memory, group, self.given)


class Rebuilt(World):
    """A world whose sink takes snapshots."""

    log: NotingLog
    snapshots: SnapshotStore

    async def kept(self) -> int:
        """The cursor of the newest snapshot, 0 without one."""
        topic_id = self.log.reader().topic_ids([BUDGETS.name], 1)[BUDGETS.name]
        found = await self.snapshots.newest(PARTITION, topic_id)
        return found[0].cursor if found else 0

    async def keep(self) -> int:
        """Wait until there is a snapshot of all that is recorded; answers its cursor."""
        end = self.ends(PLACE)[PLACE]

        async def there() -> bool:
            return await self.kept() >= end

        await until(there, "a snapshot of the end of the log")
        return await self.kept()

    async def spend(self, times: int) -> None:
        """Holds: most are charged, some stay open, some run out."""
        for number in range(times):
            placed = self.events.placed(self.hold(), leg(3, "another"))
            await self.record(placed, *self.ending(placed, number))

    def ending(self, placed: BudgetEvent, number: int) -> Sequence[BudgetEvent]:
        """How it ends."""
        events = self.events
        ends = [events.committed(placed, 2), events.released(placed), events.expired(placed), None]
        chosen = ends[number % len(ends)]
        return [] if chosen is None else [chosen]

    async def lose(self) -> int:
        """FLUSHALL; answers where the log ended then."""
        end = self.ends(PLACE)[PLACE]
        self.log.given.clear()
        await asyncio.to_thread(self.valkey.command, "FLUSHALL")
        return end


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, valkey: Valkey) -> AsyncIterator[Rebuilt]:
    """Everything, with one tenant open."""
    store: SnapshotStore = MemorySnapshots()
    if request.param == "postgres":
        store = PostgresSnapshots(await postgres_databases().emptied("rebuilt"))
    world = Rebuilt(NotingLog(), valkey, store)
    await world.start()
    try:
        await world.name_tenant(TENANT)
        yield world
    finally:
        await world.stop()
        if isinstance(store, PostgresSnapshots):
            await store.close()


async def test_a_lost_server_goes_on_from_the_snapshot(world: Rebuilt) -> None:
    """Under load: opened at the barrier and not before, equal to the fold, and nothing below the snapshot is read."""
    await world.spend(200)
    snapshot = await world.keep()
    before, ending = await world.generation(), asyncio.Event()
    load = asyncio.create_task(spend_until(world, ending))
    barrier = await world.lose()
    seen = await opened_at(world, before)
    ending.set()
    await load
    await world.settled()

    assert seen >= barrier
    assert min(world.log.given, default=snapshot) >= snapshot
    assert await world.differences() == []


async def spend_until(world: Rebuilt, ending: asyncio.Event) -> None:
    """Load."""
    while not ending.is_set():
        await world.spend(4)
        await asyncio.sleep(0)


async def opened_at(world: Rebuilt, before: str) -> int:
    """The cursor of the gate when it is first seen open under another generation."""
    seen: list[int] = []

    async def is_open() -> bool:
        seen[:] = [each.cursor for each in await world.reads.gates() if each.partition == PARTITION and each.is_open]
        return bool(seen) and await gate_generation(world) != before

    await until(is_open, "another generation, open")
    return seen[0]


async def gate_generation(world: Rebuilt) -> str:
    """The gate's."""
    return next(each.generation for each in await world.reads.gates() if each.partition == PARTITION)


async def test_without_a_snapshot_the_log_is_read_from_zero(valkey: Valkey) -> None:
    """And what comes of it is the same."""
    world = Rebuilt(NotingLog(), valkey)
    await world.start()
    try:
        await world.name_tenant(TENANT)
        await world.spend(50)
        await world.settled()
        before = await world.generation()
        barrier = await world.lose()
        assert await opened_at(world, before) >= barrier
        await world.settled()
        assert min(world.log.given) == 0
        assert await world.differences() == []
    finally:
        await world.stop()


async def test_a_slot_that_is_lost_alone_is_restored_too(world: Rebuilt) -> None:
    """The rest of the server is fine: the others' slots stay as they are."""
    await world.spend(20)
    snapshot = await world.keep()
    before = await world.generation()
    world.log.given.clear()
    for key in slot_keys(TENANT)[:3]:
        world.valkey.command("DEL", key)
    await world.spend(4)
    await opened_at(world, before)
    await world.settled()

    assert min(world.log.given) >= snapshot
    assert await world.differences() == []


async def test_a_sink_that_died_while_it_rebuilt_leaves_nothing_to_go_on_from(world: Rebuilt) -> None:
    """Its successor sees the mark on the gate and begins again, whatever the slots say."""
    await world.spend(20)
    await world.keep()
    before = await world.generation()
    await world.sink.stop()
    world.valkey.command("HSET", gate_key(PARTITION), "rebuilding", "1", "open", "0")
    world.sink = SinkProcess(world.log, world.valkey.url, world.snapshots)
    await opened_at(world, before)
    await world.settled()

    assert await world.differences() == []


async def test_more_than_fits_in_memory_is_written_out_and_applied_to(valkey: Valkey) -> None:
    """A rebuild from zero of more entries than are allowed ends in the same state."""
    world = Rebuilt(NotingLog(), valkey)
    await world.start()
    try:
        await world.name_tenant(TENANT)
        await world.spend(60)
        await world.settled()
        await world.sink.stop()
        await world.lose()
        world.sink = SinkProcess(world.log, world.valkey.url, entries_max=10)
        await world.settled()
        assert await world.differences() == []
    finally:
        await world.stop()


async def test_a_hold_that_ended_long_before_the_loss_stays_ended(world: Rebuilt) -> None:
    """Its PLACED comes again, after the snapshot: nothing is held."""
    placed = world.events.placed(world.hold(), leg(5))
    await world.record(placed, world.events.committed(placed, 5))
    await world.keep()
    before = await world.generation()
    await world.lose()
    await opened_at(world, before)
    await world.record(placed)
    await world.settled()

    assert (await world.reads.tenant_state(TENANT)).holds == {}
    assert await world.differences() == []


async def test_every_tenant_comes_back(world: Rebuilt) -> None:
    """Also those that nothing happened to since the snapshot."""
    names = [f"tenant-{number}" for number in range(12)]
    for name in names:
        await world.name_tenant(name)
    await world.spend(3)
    await world.keep()
    before = await world.generation()
    await world.lose()
    await opened_at(world, before)

    for name in names:
        await until(lambda name=name: world.admits(name), f"admission for {name}")  # type: ignore[misc]
