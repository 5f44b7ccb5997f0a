"""Budget events that were set aside and are applied to a real Valkey after all: each once, below the cursor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from processors.budgets import BudgetFold
from schemas.errors import FencedError, StoreUnavailableError
from schemas.events import BudgetEvent, ProviderHealth, QuarantineReason
from schemas.topics import BUDGETS, HEALTH
from sinks.redis.reads import RedisReads, compare
from sinks.redis.sink import RedisSink
from sinks.runner import Batch, Decoded, Span
from sinks.runner.screen import Screen
from streams.log import LogRecord, Partition
from tests.budget_world import NOW_MICROS, TENANT, Events, hold_id, leg
from tests.support.live_budgets import PARTITION
from tests.support.stories import TOPIC_ID, codec, health_window, outgoing
from tests.valkey import Valkey

CODEC = codec()
SCREEN = Screen(CODEC, "redis@v1")
AT = Partition(BUDGETS.name, PARTITION)
TOPIC_IDS = {BUDGETS.name: TOPIC_ID, HEALTH.name: TOPIC_ID}


@pytest.fixture
async def reads(valkey: Valkey) -> AsyncIterator[RedisReads]:
    """Reads of the server."""
    reads = RedisReads(valkey.url)
    await reads.open()
    yield reads
    await reads.close()


async def owner(valkey: Valkey, at: Partition = AT) -> RedisSink:
    """A process that owns the partition, which is open: nothing of it is folded in memory alone."""
    sink = RedisSink(valkey.url)
    await sink.open()
    await sink.claim([at], TOPIC_IDS)
    await sink.heartbeat({at: 0})
    return sink


def events() -> list[BudgetEvent]:
    """Two holds: placed, the first charged 3, the second released."""
    made = Events()
    placed = [made.placed(hold_id(number), leg(10)) for number in (1, 2)]
    return [*placed, made.committed(placed[0], 3), made.released(placed[1])]


def decoded(given: Sequence[BudgetEvent | ProviderHealth], at: Partition = AT) -> list[Decoded]:
    """Records of these events at offsets from 0 on."""
    found = []
    for offset, record in enumerate(outgoing(CODEC, given)):
        entry = LogRecord(at.topic, at.number, offset, NOW_MICROS // 1_000, record.key, record.value, ())
        found.append(Decoded(offset, CODEC.decode(at.topic, record.value), entry))
    return found


def span_of(records: Sequence[Decoded], at: Partition = AT) -> Span:
    """What a redrive brings."""
    return Span(at, TOPIC_ID, records[0].offset, records[-1].offset + 1, list(records))


async def write_without(sink: RedisSink, records: Sequence[Decoded], left_out: set[int]) -> None:
    """A batch of these records, of which some were set aside."""
    span = span_of([each for each in records if each.offset not in left_out] or records)
    span.first_offset, span.next_offset = 0, len(records)
    aside = [each for each in records if each.offset in left_out]
    span.records = [each for each in records if each.offset not in left_out]
    span.poison = [SCREEN.poison(each.record, TOPIC_ID, QuarantineReason.BUG, "test", 1) for each in aside]
    await sink.write(Batch([span], NOW_MICROS))


async def assert_is_the_fold(reads: RedisReads) -> None:
    """The live state is the fold of all events."""
    fold = BudgetFold()
    for event in events():
        fold.apply(event)
    state = await reads.tenant_state(TENANT)
    assert compare(fold.sums, fold.open_holds, state) == []
    assert state.cursor == len(events())


async def test_a_hold_that_was_set_aside_is_applied_below_the_cursor(valkey: Valkey, reads: RedisReads) -> None:
    """Its movements in order, twice, by this owner and by the next one: the state is the fold of the log."""
    sink, records = await owner(valkey), decoded(events())
    await write_without(sink, records, {0, 2})
    late = span_of([records[0], records[2]])
    for _ in range(2):
        await sink.redrive(late)
        await assert_is_the_fold(reads)
    successor = await owner(valkey)
    await successor.redrive(late)
    await assert_is_the_fold(reads)
    await sink.close()
    await successor.close()


async def test_a_tenant_whose_every_event_was_set_aside_gets_its_slot(valkey: Valkey, reads: RedisReads) -> None:
    """The slot is made by the redrive and stands where the partition stands."""
    sink, records = await owner(valkey), decoded(events())
    await write_without(sink, records, {0, 1, 2, 3})
    await sink.redrive(span_of(records))
    await assert_is_the_fold(reads)
    await sink.close()


async def test_a_fenced_owner_redrives_nothing(valkey: Valkey, reads: RedisReads) -> None:
    """After another process claimed."""
    zombie, records = await owner(valkey), decoded(events())
    await write_without(zombie, records, {2})
    before = await reads.tenant_state(TENANT)
    successor = await owner(valkey)
    with pytest.raises(FencedError):
        await zombie.redrive(span_of(records[2:3]))
    assert (await reads.tenant_state(TENANT)).sums == before.sums
    await zombie.close()
    await successor.close()


async def test_nothing_is_redriven_into_slots_that_are_not_written_yet(valkey: Valkey) -> None:
    """What is folded in memory counts for nothing: the record stays set aside, and is asked for again."""
    sink, records = RedisSink(valkey.url), decoded(events())
    await sink.open()
    await sink.claim([AT], TOPIC_IDS)
    await write_without(sink, records, {0, 2})
    with pytest.raises(StoreUnavailableError, match="rebuilt"):
        await sink.redrive(span_of(records[:1]))
    await sink.close()


async def test_a_late_window_does_not_replace_a_newer_one(valkey: Valkey, reads: RedisReads) -> None:
    """Health keeps the last window; one that was set aside and is older changes nothing, a newer one does."""
    at = Partition(HEALTH.name, 0)
    sink = await owner(valkey, at)
    records = decoded([health_window(1), health_window(3), health_window(2), health_window(4)], at)
    span = span_of(records[:2], at)
    await sink.write(Batch([span], NOW_MICROS))
    found = []
    for late in (records[2], records[3], records[3]):
        await sink.redrive(span_of([late], at))
        found.append((await reads.provider_health())[0]["attempts"])
    assert found == ["3", "4", "4"]
    await sink.close()
