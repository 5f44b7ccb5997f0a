"""Records that were set aside and are applied after all: once, fenced, whoever died on the way; fake and Postgres.

test_clickhouse_redrive.py runs the same on ClickHouse; Redis, which keeps no rows to count, has
tests/integration/test_redis_redrive.py; nothing is ever set aside from the audit log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from schemas.errors import FencedError, IntegrityError
from schemas.events import QuarantineReason
from sinks.runner import Batch, Decoded, Sink, Span
from sinks.runner.screen import Screen
from tests.contract.test_sink_contract import STORIES, batch_of, claim
from tests.support.databases import postgres_databases
from tests.support.sink_harnesses import ENCODER, TOPICS, CountedHarness, MemoryHarness, PostgresHarness, expected
from tests.support.stories import Offsets, request_story

SCREEN = Screen(ENCODER, "test@v1")


@pytest.fixture(params=["memory", "postgres"])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[CountedHarness]:
    """Each store in turn, empty."""
    is_fake = request.param == "memory"
    made = MemoryHarness() if is_fake else PostgresHarness(await postgres_databases().emptied("sinks"))
    yield made
    await made.close()


def set_aside(batch: Batch, topic: str) -> list[Span]:
    """Turns every record of a topic into poison; answers spans of these records, as a redrive brings them."""
    spans = []
    for span in batch.spans:
        if span.partition.topic == topic:
            for each in span.records:
                event = SCREEN.poison(each.record, span.topic_id, QuarantineReason.BUG, "test", 1)
                span.poison.append(event)
            spans.append(redriven(span, span.records))
            span.records = []
    return spans


def redriven(span: Span, records: list[Decoded]) -> Span:
    """What a redrive of these records brings."""
    decoded = [each._replace(fields=dict(each.fields)) for each in records]
    return Span(span.partition, span.topic_id, decoded[0].offset, decoded[-1].offset + 1, decoded)


async def written(sink: Sink, topic: str) -> tuple[Batch, list[Span]]:
    """All stories written, but for one topic's records, which were set aside."""
    batch = batch_of(Offsets(), [event for story in STORIES for event in story])
    spans = set_aside(batch, topic)
    await claim(sink, batch)
    await sink.write(batch)
    return batch, spans


async def assert_all_there(harness: CountedHarness) -> None:
    """Each topic's ids, digest and money are those of all events."""
    for topic in TOPICS:
        assert await harness.totals(topic) == expected(topic, STORIES)


@pytest.mark.parametrize("topic", TOPICS)
async def test_a_redriven_record_is_there_once(harness: CountedHarness, topic: str) -> None:
    """Below the cursor, applied after all; repeated, it changes nothing, and the cursor stays."""
    sink = harness.sink("one")
    batch, spans = await written(sink, topic)
    for span in (*spans, *spans):
        await sink.redrive(span)
    await assert_all_there(harness)
    stands = await claim(sink, batch)
    assert stands == {span.partition: span.next_offset for span in batch.spans}
    await sink.close()


async def test_a_successor_may_repeat_a_redrive(harness: CountedHarness) -> None:
    """Whoever took over after a death does it again and doubles nothing."""
    first, second = harness.sink("one"), harness.sink("two")
    batch, spans = await written(first, "quaestor.costs")
    for span in spans:
        await first.redrive(span)
    await first.close()
    await claim(second, batch)
    for span in spans:
        await second.redrive(span)
    await assert_all_there(harness)
    await second.close()


async def test_a_zombie_redrives_nothing(harness: CountedHarness) -> None:
    """After another process claimed, the earlier owner's redrive is fenced."""
    zombie, owner = harness.sink("zombie"), harness.sink("owner")
    batch, spans = await written(zombie, "quaestor.costs")
    await claim(owner, batch)
    before = await harness.totals("quaestor.costs")
    with pytest.raises(FencedError):
        await zombie.redrive(spans[0])
    assert await harness.totals("quaestor.costs") == before
    await zombie.close()
    await owner.close()


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_redrive_cancelled_anywhere_is_completed_by_the_next(harness: CountedHarness, steps: int) -> None:
    """Cancelled at any await and done again by a successor, every record is there once."""
    first, second = harness.sink("one"), harness.sink("two")
    batch, spans = await written(first, "quaestor.ledger")
    redriving = asyncio.ensure_future(first.redrive(spans[0]))
    for _ in range(steps):
        await asyncio.sleep(0)
    redriving.cancel()
    await asyncio.gather(redriving, return_exceptions=True)
    await claim(second, batch)
    for span in spans:
        await second.redrive(span)
    await assert_all_there(harness)
    await first.close()
    await second.close()


async def test_an_event_that_came_again_meanwhile_counts_once(harness: CountedHarness) -> None:
    """The event was produced twice: one of its records was set aside, the other applied; the redrive adds nothing."""
    sink = harness.sink("one")
    offsets = Offsets()
    batch, again = batch_of(offsets, STORIES[0]), batch_of(offsets, STORIES[0])
    spans = set_aside(batch, "quaestor.costs")
    await claim(sink, batch)
    await sink.write(batch)
    await sink.write(again)
    for span in spans:
        await sink.redrive(span)
    for topic in TOPICS:
        assert await harness.totals(topic) == expected(topic, STORIES[:1])
    await sink.close()


async def test_a_redrive_with_other_bytes_is_refused(harness: CountedHarness) -> None:
    """The same id with another content is a fault here too, and adds nothing."""
    sink = harness.sink("one")
    offsets = Offsets()
    batch, other = batch_of(offsets, STORIES[0]), batch_of(offsets, request_story(0, amount_nano=7))
    spans = set_aside(other, "quaestor.costs")
    await claim(sink, batch)
    await sink.write(batch)
    with pytest.raises(IntegrityError):
        await sink.redrive(spans[0])
    assert await harness.totals("quaestor.costs") == expected("quaestor.costs", STORIES[:1])
    await sink.close()
