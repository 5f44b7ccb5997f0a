"""The quarantine relay: everything kept reaches the topic, too large or repeated as it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from hashlib import sha256
from random import Random

import msgspec
import pytest
import structlog

from processors.quarantine.order import key_text
from schemas.errors import LogUnavailableError, RecordRefusedError
from schemas.events import Event, QuarantinedRecord, QuarantineReason
from schemas.topics import TOPICS
from sinks.fake import MemoryQuarantine
from sinks.runner.relay import AGAIN_SECONDS, Relay, relay_quarantine
from sinks.runner.screen import Screen
from sinks.runner.seam import Unreadable
from streams.log import LogRecord, Partition
from streams.memory import MemoryLog
from streams.recorder import Recorder
from streams.records import event_of, outgoing
from tests.support.stories import TOPIC_ID, codec

#: Of a whole record; one of these tests without much in it has about a third of that.
BYTES_MAX = 2_000
DEADLINE_SECONDS = 10
CODEC = codec()


class Topic:
    """Takes records up to a size; may be away for a while, and refuse some whatever is done about them."""

    def __init__(self, failures: int = 0, refused: Collection[str] = ()) -> None:
        """Be away for so many groups first; never take these ids."""
        self.taken: list[QuarantinedRecord] = []
        self._failures, self._refused = failures, refused
        #: Be away once so many are taken.
        self.away_after: int | None = None

    async def record(self, events: Sequence[Event]) -> None:
        """As the relay needs it."""
        if self.away_after == len(self.taken):
            raise LogUnavailableError
        if self._failures:
            self._failures -= 1
            raise LogUnavailableError
        if any(size_of(event) > BYTES_MAX or event.event_id in self._refused for event in events):
            raise RecordRefusedError
        self.taken += [event for event in events if isinstance(event, QuarantinedRecord)]


def size_of(event: Event) -> int:
    """As the broker counts a record."""
    made = outgoing(CODEC, event)
    return len(made.key) + len(made.value) + sum(len(name) + len(value) for name, value in made.headers)


def poison(offset: int, size: int = 5, key: bytes = b"key") -> QuarantinedRecord:
    """A quarantined record with a value of this size."""
    record = LogRecord("quaestor.requests", 0, offset, 1, key, b"x" * size, (("ce_id", b"1"),))
    return Screen(CODEC, "a@v1").poison(record, TOPIC_ID, QuarantineReason.UNDECODABLE, "bad", 1).event


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
    assert [(record.source_offset, record.value_bytes, record.key_bytes) for record in topic.taken] == [
        (1, b"xxxxx", b"key"),
        (2, None, b"key"),
        (3, b"xxxxx", b"key"),
    ]


async def test_a_record_whose_key_is_too_large_goes_without_its_key() -> None:
    """A byte that is no text is four characters of its order_key: that goes as a hash, the same for the same key."""
    store, topic, key = MemoryQuarantine(), Topic(), b"\xff" * (BYTES_MAX // 5)
    await store.put([poison(1, key=key), poison(2, key=key), poison(3)])
    await Relay(store, topic).once()
    told = f"sha256:{sha256((key_text(key)).encode()).hexdigest()}"
    assert [(each.key_bytes, each.value_bytes, each.order_key) for each in topic.taken] == [
        (None, None, told),
        (None, None, told),
        (b"key", b"xxxxx", "key"),
    ]
    assert await store.unpublished(10) == []


async def test_a_record_that_is_refused_whatever_is_done_holds_nothing_up() -> None:
    """It is said and left where it is; the others go, and later ones too."""
    store, topic = MemoryQuarantine(), Topic(refused=[poison(2).event_id])
    relay = Relay(store, topic)
    await store.put([poison(1), poison(2), poison(3)])
    with structlog.testing.capture_logs() as said:
        await relay.once()
        await store.put([poison(4)])
        await relay.once()
    assert topic.taken == [poison(1), poison(3), poison(4)]
    assert await store.unpublished(10) == [poison(2)]
    assert [(line["log_level"], line["event_id"]) for line in said] == [("error", poison(2).event_id)]


async def test_an_event_that_does_not_fit_its_schema_holds_nothing_up() -> None:
    """The recorder hands nothing of its group over."""
    log = MemoryLog({topic.name: 1 for topic in TOPICS})
    store, recorder = MemoryQuarantine(), Recorder(log.publisher(), CODEC)
    await store.put([msgspec.structs.replace(poison(1), source_offset="seven"), poison(2)])
    await Relay(store, recorder).once()
    (record,) = log.records[Partition("quaestor.quarantine", 0)]
    assert event_of(CODEC, record) == poison(2)


async def test_what_went_before_the_log_was_away_does_not_go_again() -> None:
    """Beside one that is too large each goes, and is marked, by itself."""
    store, topic = MemoryQuarantine(), Topic()
    relay = Relay(store, topic)
    await store.put([poison(1), poison(2, BYTES_MAX + 1), poison(3)])
    topic.away_after = 2
    with pytest.raises(LogUnavailableError):
        await relay.once()
    topic.away_after = None
    await relay.once()
    assert [record.source_offset for record in topic.taken] == [1, 2, 3]


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
