"""Snapshots of live budgets over the log in memory: folds of what is applied, and which of them are trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from processors.budgets.live import LiveTenant
from schemas.errors import FencedError, IntegrityError, StoreUnavailableError
from schemas.events import BudgetEvent, QuarantineReason
from schemas.topics import BUDGETS
from sinks.fake_quarantine import MemoryQuarantine
from sinks.redis import snapshotter as module
from sinks.redis.owned import Applied
from sinks.redis.recall import Recall
from sinks.redis.snapshots import MemorySnapshots, Snapshot
from sinks.redis.snapshotter import Snapshotter
from sinks.runner.screen import Screen
from streams.log import Partition
from streams.memory import MemoryLog, MemoryReader
from streams.partitioner import partition_of
from streams.records import outgoing
from tests.budget_world import TENANT, Events, hold_id, leg
from tests.support.stories import codec

NUMBER = partition_of(TENANT.encode(), BUDGETS.partitions)
PLACE = Partition(BUDGETS.name, NUMBER)
PROJECTION = "redis@v1"
CODEC = codec()


class Watched(MemoryReader):
    """A reader that notes where it was sent."""

    def __init__(self, log: MemoryLog, starts: list[int]) -> None:
        """Note into `starts`."""
        super().__init__(log)
        self._starts = starts

    def assign(self, cursors: Mapping[Partition, int]) -> None:
        """As the seam says."""
        self._starts += cursors.values()
        super().assign(cursors)


class World:
    """A log, a store, a quarantine, and one process's snapshotter at a time."""

    def __init__(self) -> None:
        """Nothing is recorded."""
        self.log = MemoryLog()
        self.store = MemorySnapshots()
        self.quarantine = MemoryQuarantine()
        self.starts: list[int] = []
        self.events = Events()
        self.topic_id = self.log.reader().topic_ids([BUDGETS.name], 1)[BUDGETS.name]
        self.recall = Recall(self.store, self.end_of, self.quarantine, PROJECTION)
        self.made: list[Snapshotter] = []
        self.start()

    def start(self) -> None:
        """Another process."""
        made = Snapshotter(self.store, self.recall, lambda: Watched(self.log, self.starts), CODEC, PROJECTION)
        self.made.append(made)
        self.snapshotter = made

    async def end_of(self, partition: Partition) -> int:
        """Where the log ends."""
        return self.log.end(partition)

    def record(self, *events: BudgetEvent) -> None:
        """Into the log."""
        self.log.publisher().publish([outgoing(CODEC, event) for event in events], lambda _: None)

    def spend(self, count: int, amount: int = 5) -> None:
        """So many holds, each placed and charged."""
        for _ in range(count):
            placed = self.events.placed(hold_id(self.log.end(PLACE)), leg(amount))
            self.record(placed, self.events.committed(placed, amount))

    def applied(self, cursor: int | None = None, epoch: int = 1) -> Applied:
        """What the sink says: all of the log, or less."""
        return Applied(NUMBER, self.topic_id, self.log.end(PLACE) if cursor is None else cursor, epoch)

    async def take(self, **options: int) -> Any:
        """A snapshot."""
        return await self.snapshotter.take(self.applied(**options), 1)

    async def newest(self) -> Snapshot:
        """The last one kept."""
        return (await self.store.newest(NUMBER, self.topic_id))[0]

    async def tenant(self) -> LiveTenant:
        """What it says of the tenant."""
        return (await self.recall.state(await self.newest())).tenants[TENANT]

    def posted(self, live: LiveTenant) -> int:
        """What is spent."""
        return sum(live.posted.values())


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """An empty one."""
    made = World()
    yield made
    for each in made.made:
        await each.close()


async def test_a_snapshot_is_the_fold_of_what_is_applied(world: World) -> None:
    """Not of what came after: the sink has not decided about it."""
    world.spend(10)
    await world.take(cursor=7)

    live = await world.tenant()
    assert ((await world.newest()).cursor, world.posted(live), len(live.holds)) == (7, 15, 1)


async def test_the_next_one_reads_only_what_came_since(world: World) -> None:
    """No event is read twice by the same process."""
    world.spend(3)
    await world.take()
    world.spend(4)
    taken = await world.take()

    assert (taken.events, world.starts, world.posted(await world.tenant())) == (8, [0], 35)


async def test_another_process_goes_on_from_the_newest(world: World) -> None:
    """Its reader begins at the snapshot's cursor."""
    world.spend(3)
    await world.take()
    world.start()
    world.spend(4)
    await world.take(epoch=2)

    assert (world.starts, world.posted(await world.tenant())) == ([0, 6], 35)


async def test_nothing_new_is_no_snapshot(world: World) -> None:
    """Nothing is written for it."""
    world.spend(1)
    await world.take()

    assert await world.take() is None


async def test_two_are_kept_and_share_what_did_not_change(world: World) -> None:
    """The newest two, and no chunk that neither of them needs."""
    for _ in range(4):
        world.spend(1)
        await world.take()

    kept = await world.store.newest(NUMBER, world.topic_id)
    assert [each.cursor for each in kept] == [8, 6]
    assert {digest for each in kept for digest in each.chunks} == {digest for _, digest in world.store.bodies}


async def test_a_hold_of_long_ago_is_looked_up(world: World) -> None:
    """A duplicate of its PLACED, after its minute has left the memory, holds nothing."""
    placed = world.events.placed(hold_id(1), leg(5))
    world.record(placed, world.events.committed(placed, 5))
    await world.take()
    world.start()
    world.record(placed)
    await world.take(epoch=2)

    assert (await world.tenant()).holds == {}


async def test_what_was_set_aside_is_left_out(world: World) -> None:
    """As the sink left it out."""
    world.spend(2)
    await world.quarantine.put([aside(world, 0)])
    await world.take()

    assert (world.posted(await world.tenant()), (await world.newest()).set_aside) == (5, (0,))


async def test_a_snapshot_without_what_was_redriven_since_is_not_trusted(world: World) -> None:
    """The next one begins from nothing, and has it."""
    world.spend(2)
    event = aside(world, 0)
    await world.quarantine.put([event])
    await world.take()
    await world.quarantine.request([event.event_id], "cli/test")
    await world.quarantine.take(PROJECTION, PLACE, 4, 10)
    await world.quarantine.settle(PROJECTION, PLACE, [event.event_id], [])

    assert (await world.recall.newest(NUMBER, world.topic_id, 0)).state is None
    world.spend(1)
    await world.take()
    assert (world.starts[-1], world.posted(await world.tenant())) == (0, 15)


async def test_a_record_that_nobody_set_aside_and_nobody_can_read_ends_it(world: World) -> None:
    """Better none than one that differs from what is applied."""
    world.spend(1)
    world.log.records[PLACE][0] = world.log.records[PLACE][0]._replace(value=b"\0")

    with pytest.raises(IntegrityError, match="not set aside"):
        await world.take()


async def test_an_owner_of_before_keeps_nothing(world: World) -> None:
    """Its successor's are newer, whatever it says."""
    world.spend(1)
    await world.take(epoch=2)
    world.start()
    world.spend(1)

    with pytest.raises(FencedError):
        await world.take(epoch=1)


async def test_much_at_once_is_kept_in_between(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: what ended is let go of, and looked up when it is asked for."""
    monkeypatch.setattr(module.limits, "SNAPSHOT_ENDED_MAX", 2)
    monkeypatch.setattr(module.limits, "SNAPSHOT_SLICE_RECORDS", 4)
    world.spend(10)
    await world.take()

    assert [each.cursor for each in await world.store.newest(NUMBER, world.topic_id)] == [20, 16]
    assert world.posted(await world.tenant()) == 50


def aside(world: World, offset: int) -> Any:
    """A record, quarantined."""
    record = world.log.records[PLACE][offset]
    return Screen(CODEC, PROJECTION).poison(record, world.topic_id, QuarantineReason.BUG, "bad", 1).event


def another_topic(world: World) -> None:
    """The topic is re-created."""
    world.log.recreate(BUDGETS.name)
    world.topic_id = world.log.reader().topic_ids([BUDGETS.name], 1)[BUDGETS.name]


def shorter_log(world: World) -> None:
    """The log has lost its tail."""
    del world.log.records[PLACE][-1]


def damaged_chunk(world: World) -> None:
    """Bytes of it are others."""
    world.store.bodies = dict.fromkeys(world.store.bodies, b"\x90")


@pytest.mark.parametrize("spoil", [another_topic, shorter_log, damaged_chunk])
async def test_a_snapshot_that_can_not_be_trusted_is_not_used(world: World, spoil: Callable[[World], None]) -> None:
    """Then the log is read from zero."""
    world.spend(2)
    await world.take()
    assert (await world.recall.newest(NUMBER, world.topic_id, 0)).state is not None
    spoil(world)

    assert (await world.recall.newest(NUMBER, world.topic_id, 0)).state is None


async def test_a_snapshot_that_spares_nothing_is_not_used(world: World) -> None:
    """The slots are further already."""
    world.spend(2)
    await world.take()

    assert (await world.recall.newest(NUMBER, world.topic_id, 4)).state is None


class Away(MemorySnapshots):
    """A store that can't be reached."""

    async def newest(self, partition: int, topic_id: str) -> list[Snapshot]:
        """As the seam says."""
        raise StoreUnavailableError("Postgres is away")


async def test_a_store_that_is_away_is_a_reason_to_read_the_log(world: World) -> None:
    """And people are told."""
    found = await Recall(Away(), world.end_of, None, PROJECTION).newest(NUMBER, world.topic_id, 0)

    assert (found.state, found.detail) == (None, "no snapshot can be read: Postgres is away")
