"""The quarantine relay: everything kept reaches the topic, too large or repeated as it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from schemas.errors import LogUnavailableError, RecordRefusedError
from schemas.events import Event, QuarantinedRecord, QuarantineReason
from sinks.fake import MemoryQuarantine
from sinks.runner.relay import relay_once, relay_quarantine
from sinks.runner.screen import Screen
from streams.log import LogRecord
from tests.support.stories import TOPIC_ID, codec

BYTES_MAX = 100
DEADLINE_SECONDS = 10


class Topic:
    """Takes records up to a size; may be away for a while."""

    def __init__(self, failures: int = 0) -> None:
        """Refuse so many groups first."""
        self.taken: list[QuarantinedRecord] = []
        self._failures = failures

    async def record(self, events: Sequence[Event]) -> None:
        """As the relay needs it."""
        if self._failures:
            self._failures -= 1
            raise LogUnavailableError
        records = [event for event in events if isinstance(event, QuarantinedRecord)]
        if any(len(record.value_bytes or b"") > BYTES_MAX for record in records):
            raise RecordRefusedError
        self.taken += records


def poison(offset: int, size: int = 5) -> QuarantinedRecord:
    """A quarantined record with a value of this size."""
    record = LogRecord("quaestor.requests", 0, offset, 1, b"key", b"x" * size, ())
    return Screen(codec(), "a@v1").poison(record, TOPIC_ID, QuarantineReason.UNDECODABLE, "bad", 1).event


async def test_what_is_kept_is_published_once() -> None:
    """A second round finds nothing to do."""
    store, topic = MemoryQuarantine(), Topic()
    await store.put([poison(1), poison(2), poison(1)])
    assert (await relay_once(store, topic), await relay_once(store, topic)) == (2, 0)
    assert topic.taken == [poison(1), poison(2)]


async def test_a_record_too_large_for_the_topic_goes_without_its_bytes() -> None:
    """Its bytes stay in the outbox; its neighbours go as they are."""
    store, topic = MemoryQuarantine(), Topic()
    await store.put([poison(1), poison(2, BYTES_MAX + 1), poison(3)])
    await relay_once(store, topic)
    assert [(record.source_offset, record.value_bytes) for record in topic.taken] == [
        (1, b"xxxxx"),
        (2, None),
        (3, b"xxxxx"),
    ]


async def test_a_log_that_is_away_is_waited_for() -> None:
    """The relay goes on until everything is published, then stops when told."""
    store, topic, stop = MemoryQuarantine(), Topic(failures=2), asyncio.Event()
    await store.put([poison(1)])
    relay = asyncio.create_task(relay_quarantine(store, topic, stop, Random(1)))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not store.published:  # noqa: ASYNC110 - the store signals nobody
            await asyncio.sleep(0.01)
        stop.set()
        await relay
    assert len(topic.taken) == 1
