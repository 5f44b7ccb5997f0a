"""A partition that another member gets: what is under way of it ends first, then it is let go, then it is claimed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from sinks.fake import MemorySink, MemoryStore
from sinks.runner import BatchPolicy, runner
from sinks.runner.runner import run_sink
from sinks.runner.seam import Batch
from streams.log import OutgoingRecord, Partition
from streams.memory import MemoryLog
from streams.partitioner import partition_of
from tests.unit.sinks.test_runner import ENCODER, Seen, assert_all_there, at_end, publish, stories, until

COSTS = "quaestor.costs"
#: How long a write under way lets a release come that does not wait for it: none should, so it takes that long.
RELEASE_SECONDS = 0.2
PATIENT = BatchPolicy(age_milliseconds=3_600_000, poll_milliseconds=5, heartbeat_milliseconds=20)

Journal = list[tuple[str, str, Partition]]


class Noting(MemorySink):
    """Notes what becomes of its partitions."""

    def __init__(self, store: MemoryStore, owner: str, journal: Journal, policy: BatchPolicy | None = None) -> None:
        """The journal may be shared."""
        super().__init__(store, owner, policy)
        self._journal = journal

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """As the seam says."""
        cursors = await super().claim(partitions, topic_ids)
        self._note("claimed", partitions)
        return cursors

    async def write(self, batch: Batch) -> None:
        """As the seam says."""
        await super().write(batch)
        self._note("applied", [span.partition for span in batch.spans])

    async def release(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        await super().release(partitions)
        self._note("released", partitions)

    def _note(self, what: str, partitions: Sequence[Partition]) -> None:
        self._journal += [(what, self.owner, partition) for partition in partitions]


class Slow(Noting):
    """Its writes end only after partitions began to leave; forever: only where one is cancelled or they are gone."""

    def __init__(self, store: MemoryStore, journal: Journal, *, forever: bool = False) -> None:
        """Nothing leaves, nothing is written."""
        super().__init__(store, "one", journal)
        self.is_writing = self.is_cancelled = False
        self.leaving, self._released = asyncio.Event(), asyncio.Event()
        self._forever = forever

    async def write(self, batch: Batch) -> None:
        """As the seam says."""
        self.is_writing = True
        await self.leaving.wait()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if self._forever else RELEASE_SECONDS):
                    await self._released.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        await super().write(batch)

    async def release(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        await super().release(partitions)
        self._released.set()


def tell_leaving(reader: Any, leaving: asyncio.Event) -> None:
    """Have a reader say when partitions begin to leave, before the runner hears of it."""
    subscribe, loop = reader.subscribe, asyncio.get_running_loop()

    def subscribed(topics: Sequence[str], cursors_of: Any, on_revoke: Callable[[Sequence[Partition]], None]) -> None:
        def revoked(partitions: Sequence[Partition]) -> None:
            loop.call_soon_threadsafe(leaving.set)
            on_revoke(partitions)

        subscribe(topics, cursors_of, revoked)

    reader.subscribe = subscribed


def moving(log: MemoryLog) -> tuple[Partition, OutgoingRecord]:
    """A record of a partition that the second member of a group gets, and the partition."""
    for record in stories(20):
        number = partition_of(record.key, log.counts[COSTS])
        if record.topic == COSTS and number % 2 == 1:
            return Partition(COSTS, number), record
    raise AssertionError("no record of such a partition")


class World:
    """A log, a store, and the first member of the group."""

    def __init__(self) -> None:
        """Nobody runs."""
        self.log, self.store = MemoryLog(), MemoryStore()
        self.journal: Journal = []
        self.partition, self.record = moving(self.log)
        self.reader = self.log.group_reader("memory@v1")
        self._stop = asyncio.Event()

    async def start(self, sink: MemorySink) -> None:
        """The first member, until it has the partition."""
        self._task = asyncio.create_task(run_sink(sink, self.reader, ENCODER, Seen(), self._stop, Random(1)))
        await until(lambda: ("claimed", "one") in self.became())

    async def stop(self) -> None:
        """The first member leaves."""
        self._stop.set()
        await self._task

    def became(self) -> list[tuple[str, str]]:
        """What became of the partition so far."""
        return [(what, owner) for what, owner, partition in self.journal if partition == self.partition]


async def joined(world: World) -> list[tuple[str, str]]:
    """What became of the partition until a second member has claimed it; the store has everything in the end."""
    stop = asyncio.Event()
    sink, reader = Noting(world.store, "two", world.journal), world.log.group_reader("memory@v1")
    task = asyncio.create_task(run_sink(sink, reader, ENCODER, Seen(), stop, Random(1)))
    await until(lambda: ("claimed", "two") in world.became())
    found = world.became()
    await until(lambda: at_end(world.log, world.store))
    stop.set()
    await task
    await world.stop()
    assert_all_there(world.log, world.store)
    return found


IN_ORDER = [("claimed", "one"), ("applied", "one"), ("released", "one"), ("claimed", "two")]


async def writing_slowly(world: World, *, forever: bool = False) -> Slow:
    """Have the first member begin a write that ends only once partitions leave; answers its sink."""
    sink = Slow(world.store, world.journal, forever=forever)
    tell_leaving(world.reader, sink.leaving)
    await world.start(sink)
    publish(world.log, [world.record])
    await until(lambda: sink.is_writing)
    return sink


async def test_a_write_under_way_ends_before_its_partition_is_let_go() -> None:
    """Were it fenced instead, the other member would have to read and write all of it again."""
    world = World()
    await writing_slowly(world)

    assert IN_ORDER == await joined(world)


async def test_what_waits_for_company_is_written_before_its_partition_is_let_go() -> None:
    """It was read already."""
    world = World()
    await world.start(Noting(world.store, "one", world.journal, PATIENT))
    publish(world.log, [world.record])
    await until(lambda: world.reader._cursors.get(world.partition) == 1)

    assert IN_ORDER == await joined(world)


async def test_a_write_that_does_not_end_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The partition goes all the same, and its next owner applies what was under way."""
    monkeypatch.setattr(runner, "DRAIN_SECONDS", 0.05)
    world = World()
    sink = await writing_slowly(world, forever=True)

    assert [("claimed", "one"), ("released", "one"), ("claimed", "two")] == await joined(world)
    assert sink.is_cancelled
