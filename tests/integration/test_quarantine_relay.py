"""Poison from a real log into the quarantine and back onto its topic: whatever its headers and its key are."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.topics import REQUESTS
from sinks.dead_letters import DeadLetter, Selection
from sinks.postgres.dead_letters import PostgresDeadLetters
from sinks.postgres.quarantine import PostgresQuarantine
from sinks.postgres.sink import PostgresSink
from sinks.postgres.tables import PROJECTION
from sinks.runner.progress import MonitorProgress
from sinks.runner.relay import relay_quarantine
from sinks.runner.runner import run_sink
from streams.kafka import KafkaGroupReader, KafkaPublisher, KafkaReader
from streams.log import LogRecord, OutgoingRecord
from streams.monitor import Monitor
from streams.recorder import Recorder
from tests.support.databases import postgres_databases
from tests.support.kafka_server import fresh_product_topics
from tests.support.loop_publisher import ThreadedPublisher
from tests.support.stories import codec

pytestmark = pytest.mark.stack
CODEC = codec()
QUARANTINE = "quaestor.quarantine"
DEADLINE_SECONDS = 60
FETCH_SECONDS = 0.2
#: Every byte is four characters of its order_key: with the key itself twice, more than a record may have.
LONG_KEY = b"\xff" * 170_000


class World:
    """A broker, the Postgres sink on it with its relay, and what people ask."""

    def __init__(self, bootstrap: str, dsn: str) -> None:
        """Nothing runs yet."""
        self.letters = PostgresDeadLetters(dsn)
        self.bootstrap, self._dsn = bootstrap, dsn
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self._reader = KafkaReader(bootstrap)
        self._reader.assign(self._reader.begin_offsets(self._reader.partitions([QUARANTINE], 10), 10))
        self._told: list[LogRecord] = []

    def poison(self, key: bytes, headers: list[tuple[str, Any]]) -> None:
        """Write a record that nobody can read."""
        self._producer.produce(REQUESTS.name, b"garbage", key, headers=headers)
        assert self._producer.flush(DEADLINE_SECONDS) == 0

    async def run(self, stop: asyncio.Event) -> None:
        """Sink and relay until told to stop."""
        outbox, publisher = PostgresQuarantine(self._dsn), KafkaPublisher(self.bootstrap)
        progress = MonitorProgress(Monitor("sink-postgres"), PROJECTION)
        reader = KafkaGroupReader(self.bootstrap, PROJECTION, "sink")
        sink = PostgresSink(self._dsn, "test")
        await asyncio.gather(
            run_sink(sink, reader, CODEC, progress, stop, Random(1), outbox),
            relay_quarantine(outbox, Recorder(publisher, CODEC), stop, Random(1)),
        )
        await outbox.close()
        await asyncio.to_thread(publisher.close)

    async def close(self) -> None:
        """Let go of what asks."""
        await self.letters.close()
        self._reader.close()

    async def told(self, count: int) -> list[dict[str, Any]]:
        """What stands on the quarantine's topic, once it is so much."""

        async def enough() -> bool:
            self._told += await asyncio.to_thread(self._reader.consume, 100, FETCH_SECONDS)
            return len(self._told) >= count

        await until(enough)
        return [dict(CODEC.decode(QUARANTINE, record.value or b"")) for record in self._told]

    async def found(self) -> list[DeadLetter]:
        """Everything that was set aside."""
        return await self.letters.find(Selection(), 100)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - the conditions are facts of servers, which signal nobody
            await asyncio.sleep(0.02)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Everything at work, and empty."""
    made = World(fresh_product_topics(), await postgres_databases().emptied("relay"))
    stop = asyncio.Event()
    running = asyncio.create_task(made.run(stop))
    yield made
    stop.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await running
    await made.close()


async def test_a_header_without_a_value_holds_nothing_up(world: World) -> None:
    """It is empty in the quarantine; of a name that comes again the last stands; what comes later is told as well."""
    world.poison(b"acme/one", [("none", None), ("twice", b"1"), ("twice", b"2")])
    world.poison(b"acme/one", [])

    first, second = sorted(await world.told(2), key=lambda event: int(event["source_offset"]))

    assert (first["headers"], second["headers"]) == ({"none": b"", "twice": b"2"}, {})


async def test_a_record_with_a_header_without_a_value_can_be_redriven(world: World) -> None:
    """It fails again, as it must, and the sink goes on; the failure is told."""
    world.poison(b"acme/one", [("none", None)])
    await world.told(1)
    (letter,) = await world.found()

    await world.letters.request([letter.event_id], "cli/7")

    assert [event["kind"] for event in await world.told(2)] == ["QUARANTINED", "FAILED"]
    assert [(each.attempts, each.requested) for each in await world.found()] == [(2, False)]


class NoText(str):
    """A header's name that stands in the log as bytes that are no UTF-8, as other clients may write it."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:  # type: ignore[override]
        """Not as told."""
        return b"\xff\xfe"


async def test_a_header_whose_name_is_no_text_holds_nothing_up(world: World) -> None:
    """The record is set aside without headers, as often as one comes: the client's fault shows after some."""
    publisher, done = ThreadedPublisher(world.bootstrap), concurrent.futures.Future[object]()
    record = OutgoingRecord(REQUESTS.name, b"acme/one", b"garbage", ((NoText("x"), b"1"), ("y", b"2")))
    publisher.publish([record] * 40, done.set_result)
    assert await asyncio.wrap_future(done) is None
    await asyncio.to_thread(publisher.close)

    events = await world.told(40)

    assert {(event["value_bytes"], *event["headers"]) for event in events} == {(b"garbage",)}


async def test_a_record_with_a_long_key_holds_nothing_up(world: World) -> None:
    """It is told without its key, with a hash of what waits for it; what comes later is told as well."""
    world.poison(LONG_KEY, [])
    world.poison(b"acme/one", [])

    events = {len(event["key_bytes"] or b""): event for event in await world.told(2)}

    assert events.keys() == {0, len(b"acme/one")}
    assert events[0]["order_key"].startswith("sha256:")
