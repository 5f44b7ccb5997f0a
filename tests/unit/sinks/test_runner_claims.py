"""Partitions that can't be claimed, since two things disagree: they stop, and nothing else does."""

from __future__ import annotations

import asyncio
from random import Random

from sinks.fake import Cursor, MemorySink, MemoryStore
from sinks.runner.runner import run_sink
from streams.log import OutgoingRecord, Partition
from streams.memory import MemoryLog
from tests.unit.sinks.test_runner import ENCODER, Seen, assert_all_there, at_end, publish, running, stories, until

#: The one partition of its topic.
HEALTH = Partition("quaestor.health", 0)
NOTHING_READABLE = OutgoingRecord("quaestor.health", b"x", b"poison", ())


def disagreeing() -> MemoryStore:
    """A store whose cursor of one partition is of an earlier topic."""
    return MemoryStore(cursors={HEALTH: Cursor("an earlier topic", 7)})


async def test_a_partition_that_cannot_be_claimed_stops_alone() -> None:
    """The process goes on with the others, and says of this one why it stands."""
    log, store = MemoryLog(), disagreeing()
    publish(log, stories(20))
    async with running(log, store) as seen:
        await until(lambda: HEALTH in seen.broken_now and at_end(log, store))
        assert {HEALTH: f"{HEALTH}: the topic was re-created"} == seen.broken_now
    assert_all_there(log, store)


async def test_nothing_is_read_of_a_partition_that_cannot_be_claimed() -> None:
    """It is silent, also for what comes later; how far behind it is is told all the same."""
    log, store = MemoryLog(), disagreeing()
    publish(log, [NOTHING_READABLE])
    async with running(log, store) as seen:
        await until(lambda: seen.lag_events.get(HEALTH) == 1)
        publish(log, [NOTHING_READABLE, *stories(5)])
        await until(lambda: seen.lag_events.get(HEALTH) == 2)
        await until(lambda: all(at == HEALTH or log.end(at) == store.cursors[at].next_offset for at in log.records))
    assert not store.quarantine.kept
    assert Cursor("an earlier topic", 7) == store.cursors[HEALTH]


async def test_a_partition_that_stopped_before_is_told_to_lag_from_where_the_group_knew_it() -> None:
    """Its store does not say where it stands; the last hint does."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, [NOTHING_READABLE])
    async with running(log, store):
        await until(lambda: at_end(log, store))
    store.cursors[HEALTH].topic_id = "an earlier topic"
    publish(log, [NOTHING_READABLE])
    async with running(log, store) as seen:
        await until(lambda: seen.lag_events.get(HEALTH) == 1)


async def test_a_partition_that_can_be_claimed_again_goes_on() -> None:
    """Once somebody mended it, its next owner reads on."""
    log, store = MemoryLog(), disagreeing()
    publish(log, [NOTHING_READABLE])
    async with running(log, store) as seen:
        await until(lambda: HEALTH in seen.broken_now)
    del store.cursors[HEALTH]
    async with running(log, store) as seen:
        await until(lambda: at_end(log, store))
        assert {} == seen.broken_now


async def test_a_partition_that_is_fenced_and_cannot_be_claimed_again_stops_alone() -> None:
    """Claims come in the middle of a run too."""
    log, store, seen, stop = MemoryLog(), MemoryStore(), Seen(), asyncio.Event()
    publish(log, stories(5))
    sink, reader = MemorySink(store), log.group_reader("memory@v1")
    task = asyncio.create_task(run_sink(sink, reader, ENCODER, seen, stop, Random(1), store.quarantine))
    await until(lambda: HEALTH in store.cursors and at_end(log, store))
    store.cursors[HEALTH] = Cursor("an earlier topic", epoch=99)
    publish(log, [NOTHING_READABLE, *stories(5, 5)])
    await until(lambda: HEALTH in seen.broken_now and seen.lag_events.get(HEALTH) == 1)
    await until(lambda: all(at == HEALTH or log.end(at) == store.cursors[at].next_offset for at in log.records))
    stop.set()
    await task
