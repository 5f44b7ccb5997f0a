"""The quarantine relay: everything kept reaches the topic, too large or repeated as it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from random import Random

import structlog

from schemas.errors import LogUnavailableError, RecordRefusedError
from schemas.events import Event, QuarantinedRecord, QuarantineReason
from sinks.fake import MemoryQuarantine
from sinks.runner.relay import AGAIN_SECONDS, Relay, relay_quarantine
from sinks.runner.screen import Screen
from sinks.runner.seam import Unreadable
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
    relay = Relay(store, topic)
    assert (await relay.once(), await relay.once()) == (2, 0)
    assert topic.taken == [poison(1), poison(2)]


class Damaged(MemoryQuarantine):
    """One of its rows can't be read, until it is mended."""

    def __init__(self, event_id: str) -> None:
        """By its id."""
        super().__init__()
        self.damaged = event_id

    async def unpublished(self, events_max: int, without: Collection[str] = ()) -> list[Event | Unreadable]:
        """As the seam says."""
        found = await super().unpublished(events_max, without)
        return [
            Unreadable(self.damaged, "is not JSON") if getattr(each, "event_id", "") == self.damaged else each
            for each in found
        ]


async def test_an_event_that_cannot_be_read_holds_nothing_up() -> None:
    """It is said and left where it is; the others go, and later ones too."""
    store, topic = Damaged(poison(1).event_id), Topic()
    relay = Relay(store, topic)
    await store.put([poison(1), poison(2)])
    with structlog.testing.capture_logs() as said:
        await relay.once()
        await store.put([poison(3)])
        await relay.once()
    assert topic.taken == [poison(2), poison(3)]
    assert [(line["log_level"], line["event_id"], line["why"]) for line in said] == [
        ("error", poison(1).event_id, "is not JSON")
    ]


async def test_what_was_passed_over_is_tried_again_later() -> None:
    """A new release may read it."""
    store, topic, now = Damaged(poison(1).event_id), Topic(), [0.0]
    relay = Relay(store, topic, lambda: now[0])
    await store.put([poison(1)])
    await relay.once()
    store.damaged, now[0] = "", AGAIN_SECONDS - 1
    assert await relay.once() == 0
    now[0] = AGAIN_SECONDS
    await relay.once()
    assert topic.taken == [poison(1)]


async def test_a_record_too_large_for_the_topic_goes_without_its_bytes() -> None:
    """Its bytes stay in the outbox; its neighbours go as they are."""
    store, topic = MemoryQuarantine(), Topic()
    await store.put([poison(1), poison(2, BYTES_MAX + 1), poison(3)])
    await Relay(store, topic).once()
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
