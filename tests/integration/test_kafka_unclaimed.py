"""A partition of real Kafka that its sink can't claim: assigned, silent, and no end of the process."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from sinks.fake import Cursor, MemorySink, MemoryStore
from sinks.runner.runner import run_sink
from streams.kafka import KafkaGroupReader, KafkaPublisher
from streams.log import OutgoingRecord, Partition
from streams.partitioner import partition_of
from tests.support.kafka_server import fresh_topic, kafka_bootstrap
from tests.unit.sinks.test_runner import ENCODER, Seen, until

pytestmark = pytest.mark.stack
PARTITIONS = 2
#: One key of each partition.
KEYS = list({partition_of(key, PARTITIONS): key for key in map(str.encode, map(str, range(20)))}.values())


class Process:
    """A sink of one topic, which keeps what it can't read, and whoever writes into the topic."""

    def __init__(self, store: MemoryStore) -> None:
        """Of a topic of its own."""
        self.topic = fresh_topic(PARTITIONS)
        self.partitions = [Partition(self.topic, number) for number in range(PARTITIONS)]
        self.store = store
        self.seen, self.stop = Seen(), asyncio.Event()
        self.publisher = KafkaPublisher(kafka_bootstrap())

    async def run(self) -> None:
        """Until it is stopped."""
        sink = MemorySink(self.store)
        sink.topics = (self.topic,)
        reader = KafkaGroupReader(kafka_bootstrap(), f"{self.topic}.group")
        await run_sink(sink, reader, ENCODER, self.seen, self.stop, Random(1), self.store.quarantine)

    async def write(self, *keys: bytes) -> None:
        """A record that nobody can read, per key."""
        records = [OutgoingRecord(self.topic, key, b"poison", ()) for key in keys]
        self.publisher.publish(records, lambda _: None)
        assert 0 == await asyncio.to_thread(self.publisher.flush, 20.0)


async def test_a_partition_that_cannot_be_claimed_is_kept_and_not_read() -> None:
    """The other one goes on, whatever comes in both; how far behind the one is is told; it leaves like any other."""
    store = MemoryStore()
    process = Process(store)
    stopped, sound = process.partitions
    store.cursors[stopped] = Cursor("an earlier topic")
    await process.write(*KEYS, *KEYS)
    running = asyncio.create_task(process.run())
    await until(lambda: stopped in process.seen.broken_now and store.cursors[sound].next_offset == 2)
    await process.write(*KEYS)
    await until(lambda: process.seen.lag_events == {stopped: 3, sound: 0})
    process.stop.set()
    await running
    process.publisher.close()

    assert {(sound.number, offset) for offset in range(3)} == {
        (each.source_partition, each.source_offset) for each in store.quarantine.kept.values()
    }
