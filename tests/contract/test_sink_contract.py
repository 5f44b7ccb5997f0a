"""What every sink keeps, on the fake and on real stores: claims, fences, gaps, repeats, refusals, crashes.

To put another sink under the contract, give it a harness (tests/support/sink_harnesses.py), which also says what of
it does not apply, and why. test_clickhouse_sink_contract.py runs the same on ClickHouse.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from schemas.errors import FencedError, GapError, IntegrityError, RejectedError, StoreUnavailableError
from schemas.events import Event, QuarantinedRecord, QuarantineReason
from sinks.fake import MemorySink, MemoryStore
from sinks.postgres.sink import PostgresSink
from sinks.runner import Batch, Decoded, Poison, Sink, Span, columns
from sinks.runner.assembler import cursors_after
from sinks.runner.screen import Screen
from streams.log import Partition
from tests.support.sink_harnesses import ENCODER, FAR, HARNESSES, WAYS, Ground, Harness, MemoryHarness
from tests.support.stories import TOPIC_ID, Offsets, codec, health_window, request_story
from tests.valkey import Valkey

SCREEN = Screen(ENCODER, "contract@v1")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each clause on each store, in each way, but for stores whose harness is excused from it."""
    if "harness" in metafunc.fixturenames:
        clause = metafunc.function.__name__
        chosen = [(name, way) for name, kind in HARNESSES.items() if clause not in kind.excused for way in kind.ways]
        metafunc.parametrize(("harness", "screened"), chosen, indirect=True)
    else:
        metafunc.parametrize("screened", WAYS, indirect=True)


@pytest.fixture
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    """Each store in turn, empty."""
    made = await HARNESSES[request.param].made(Ground(tmp_path, lambda: request.getfixturevalue("valkey")))
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def screened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How records come: decoded side by side, as in a large batch, or each by itself."""
    monkeypatch.setattr(columns, "RECORDS_MIN", 1 if request.param == "columns" else FAR)


def batches(harness: Harness, stories: Sequence[Sequence[Event]]) -> list[Batch]:
    """One batch per story, as a runner would cut them for the sink."""
    offsets = Offsets()
    return [batch_of(offsets, harness.taken(story)) for story in stories]


def batch_of(offsets: Offsets, story: Sequence[Event]) -> Batch:
    """A batch of the next records of these events."""
    spans: dict[Partition, Span] = {}
    records = offsets.records(ENCODER, story)
    for topic in dict.fromkeys(record.topic for record in records):
        of_topic = [record for record in records if record.topic == topic]
        for screened in SCREEN.screen_topic(of_topic, TOPIC_ID, 1, together=True):
            _place(spans, screened)
    return Batch(list(spans.values()), 1)


def _place(spans: dict[Partition, Span], screened: Decoded | Poison) -> None:
    assert isinstance(screened, Decoded)
    record = screened.record
    at = Partition(record.topic, record.partition)
    span = spans.setdefault(at, Span(at, TOPIC_ID, record.offset, record.offset))
    span.records.append(screened)
    span.next_offset = record.offset + 1


async def claim(sink: Sink, batch: Batch) -> dict[Partition, int]:
    """Open a sink and claim what a batch needs, of a log that held nothing when it was asked for its end."""
    await sink.open()
    partitions = [span.partition for span in batch.spans]
    cursors = dict(await sink.claim(partitions, {partition.topic: TOPIC_ID for partition in partitions}))
    await sink.heartbeat(dict.fromkeys(partitions, 0))
    return cursors


STORIES = [[*request_story(number), health_window(number)] for number in range(5)]


async def applied(sink: Sink, harness: Harness) -> list[Batch]:
    """All stories claimed and written."""
    made = batches(harness, STORIES)
    for batch in made:
        await claim(sink, batch)
        await sink.write(batch)
    return made


async def test_a_new_partition_starts_at_zero(harness: Harness) -> None:
    """A store that has nothing of a partition stands at 0."""
    sink = harness.sink("one")
    assert set((await claim(sink, batches(harness, STORIES)[0])).values()) == {0}
    await sink.close()


async def test_everything_written_is_there(harness: Harness) -> None:
    """After the batches, each topic's distinct ids, digest and money are those of the events."""
    sink = harness.sink("one")
    await applied(sink, harness)
    await sink.close()
    await harness.assert_holds(STORIES)


async def test_a_claim_tells_where_the_store_stands(harness: Harness) -> None:
    """The next owner begins exactly after the last batch."""
    first, second = harness.sink("one"), harness.sink("two")
    last = (await applied(first, harness))[-1]
    assert await claim(second, last) == cursors_after(last)
    await first.close()
    await second.close()


async def test_a_repeated_batch_changes_nothing(harness: Harness) -> None:
    """The runner may repeat a batch whose outcome it does not know."""
    sink = harness.sink("one")
    for batch in await applied(sink, harness):
        await sink.write(batch)
    await sink.close()
    await harness.assert_holds(STORIES)


async def test_a_batch_that_was_partly_applied_is_trimmed(harness: Harness) -> None:
    """A batch cut differently on retry applies only what is new."""
    sink = harness.sink("one")
    small = batches(harness, STORIES[:1])[0]
    large = batch_of(Offsets(), harness.taken([event for story in STORIES for event in story]))
    await claim(sink, large)
    await sink.write(small)
    await sink.write(large)
    await sink.close()
    await harness.assert_holds(STORIES)


async def test_an_event_produced_twice_counts_once(harness: Harness) -> None:
    """The same event at two offsets is one row, in the same batch and in a later one."""
    sink = harness.sink("one")
    offsets, story = Offsets(), harness.taken(STORIES[0])
    for batch in (batch_of(offsets, [*story, *story]), batch_of(offsets, story)):
        await claim(sink, batch)
        await sink.write(batch)
    await sink.close()
    await harness.assert_holds(STORIES[:1])


async def test_the_same_id_with_other_bytes_stops(harness: Harness) -> None:
    """An id that comes back with another content is a fault, not a duplicate, and nothing of its batch stays."""
    sink = harness.sink("one")
    offsets = Offsets()
    first, second = batch_of(offsets, STORIES[0]), batch_of(offsets, request_story(0, amount_nano=7))
    await claim(sink, first)
    await sink.write(first)
    with pytest.raises(IntegrityError):
        await sink.write(second)
    await sink.close()
    await harness.assert_holds(STORIES[:1])


async def test_a_gap_is_refused(harness: Harness) -> None:
    """A batch that begins above the cursor is refused and names where the store stands."""
    sink = harness.sink("one")
    made = batches(harness, STORIES)
    single = next(iter(made[1].each()))
    ahead = Span(single.spans[0].partition, TOPIC_ID, 3, 4)
    await claim(sink, single)
    with pytest.raises(GapError) as refused:
        await sink.write(Batch([ahead], 1))
    await sink.close()
    assert (refused.value.cursor, refused.value.first_offset) == (0, 3)


async def test_a_zombie_is_fenced(harness: Harness) -> None:
    """After another process claimed, the earlier owner's write fails and changes nothing."""
    zombie, owner = harness.sink("zombie"), harness.sink("owner")
    batch = batches(harness, STORIES)[0]
    await claim(zombie, batch)
    await claim(owner, batch)
    with pytest.raises(FencedError):
        await zombie.write(batch)
    await harness.assert_holds([])
    await owner.write(batch)
    await harness.assert_holds(STORIES[:1])
    await zombie.close()
    await owner.close()


async def test_one_fenced_partition_keeps_the_whole_batch_out(harness: Harness) -> None:
    """A batch is all or nothing over its partitions."""
    zombie, owner = harness.sink("zombie"), harness.sink("owner")
    batch = batches(harness, STORIES)[0]
    await claim(zombie, batch)
    await claim(owner, next(batch.each()))
    with pytest.raises(FencedError):
        await zombie.write(batch)
    await harness.assert_holds([])
    await zombie.close()
    await owner.close()


async def test_a_recreated_topic_is_refused(harness: Harness) -> None:
    """A cursor of an earlier topic of the same name is never taken for the new one's."""
    sink = harness.sink("one")
    batch = batches(harness, STORIES)[0]
    await claim(sink, batch)
    partitions = [span.partition for span in batch.spans]
    with pytest.raises(IntegrityError):
        await sink.claim(partitions, dict.fromkeys((partition.topic for partition in partitions), "another"))
    await sink.close()


async def test_what_can_not_be_claimed_keeps_no_other_partition_from_it(harness: Harness) -> None:
    """Claimed one by one, the partitions that nothing disagrees about are had, and written to."""
    sink, successor = harness.sink("one"), harness.sink("two")
    first, second = batches(harness, STORIES)[:2]
    await claim(sink, first)
    await sink.write(first)
    ids = {span.partition.topic: TOPIC_ID for span in first.spans} | {first.spans[0].partition.topic: "another"}
    sound = [span for span in second.spans if ids[span.partition.topic] == TOPIC_ID]
    await successor.open()
    with pytest.raises(IntegrityError):
        await successor.claim([span.partition for span in first.spans], ids)
    cursors = {}
    for span in sound:
        cursors |= await successor.claim([span.partition], ids)
    await successor.heartbeat(dict.fromkeys(cursors, 0))
    await successor.write(Batch(sound, 1))
    assert cursors == {span.partition: span.first_offset for span in sound}
    await sink.close()
    await successor.close()


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_write_cancelled_anywhere_is_whole_or_absent(harness: Harness, steps: int) -> None:
    """Cancelled at any await, the batch is applied whole or not at all, and the cursor says which."""
    sink = harness.sink("one")
    batch = batches(harness, STORIES)[0]
    await claim(sink, batch)
    writing = asyncio.ensure_future(sink.write(batch))
    for _ in range(steps):
        await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    successor = harness.sink("two")
    cursors = await claim(successor, batch)
    stories = STORIES[:1] if any(cursors.values()) else []
    assert cursors in (cursors_after(batch), dict.fromkeys(cursors, 0))
    await harness.assert_holds(stories)
    await successor.write(batch)
    await harness.assert_holds(STORIES[:1])
    await sink.close()
    await successor.close()


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
async def test_a_write_cancelled_anywhere_is_ended_by_the_next(harness: Harness, steps: int) -> None:
    """Wherever it was cancelled, and whatever the cursor says, the next owner's batch leaves each event there once."""
    sink, successor, batch = harness.sink("one"), harness.sink("two"), batches(harness, STORIES)[0]
    await claim(sink, batch)
    writing = asyncio.ensure_future(sink.write(batch))
    for _ in range(steps):
        await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await claim(successor, batch)
    await successor.write(batch)
    assert await claim(successor, batch) == cursors_after(batch)
    await harness.assert_holds(STORIES[:1])
    await sink.close()
    await successor.close()


async def test_poison_is_kept_with_the_cursor(harness: Harness) -> None:
    """Poison in a batch is in quarantine once the cursor has passed it, once however often it is repeated."""
    sink = harness.sink("one")
    batch = batches(harness, STORIES)[0]
    span = batch.spans[0]
    taken = span.records.pop()
    poison = Screen(ENCODER, sink.projection).poison(taken.record, TOPIC_ID, QuarantineReason.SEMANTIC, "test", 1)
    span.poison.append(poison)
    await claim(sink, batch)
    await sink.write(batch)
    await sink.write(batch)
    assert await harness.kept_poison() == 1
    await sink.close()


async def test_an_event_produced_twice_is_two_entries(tmp_path: Path) -> None:
    """What the audit log does instead: it proves what stood in Kafka, where the event stands twice."""
    harness = await HARNESSES["audit"].made(Ground(tmp_path, no_valkey))
    sink, story = harness.sink("one"), harness.taken(STORIES[0])
    batch = batch_of(Offsets(), [*story, *story])
    await claim(sink, batch)
    await sink.write(batch)
    await sink.close()
    await harness.assert_holds([STORIES[0], STORIES[0]])
    await harness.close()


def no_valkey() -> Valkey:
    """Who is no Redis sink needs none."""
    raise AssertionError


def test_a_harness_is_excused_from_clauses_that_there_are() -> None:
    """A clause that is renamed must not be lost for the sinks it does not apply to; every excuse has its reason."""
    excuses = {clause: reason for kind in HARNESSES.values() for clause, reason in kind.excused.items()}
    assert (excuses.keys() - globals().keys(), [clause for clause, reason in excuses.items() if not reason]) == (
        set(),
        [],
    )


def test_poison_has_a_deterministic_id() -> None:
    """The id of a quarantined record is a function of where it stands and who met it."""
    record = batches(MemoryHarness(), STORIES)[0].spans[0].records[0].record
    made: list[Poison] = [
        Screen(codec(), "a@v1").poison(record, TOPIC_ID, QuarantineReason.BUG, "test", now) for now in (1, 2)
    ]
    events: list[QuarantinedRecord] = [poison.event for poison in made]
    assert events[0].event_id == events[1].event_id


async def test_a_fresh_sink_of_an_unreachable_store_says_so() -> None:
    """A store that can't be reached is StoreUnavailableError, which the runner repeats."""
    sink = PostgresSink("postgresql://postgres@127.0.0.1:9/none", "one")
    with pytest.raises(StoreUnavailableError):
        await sink.open()


async def test_what_the_store_never_takes_is_named() -> None:
    """The fake names the records it refuses, and applies nothing."""
    store = MemoryStore(refuses=lambda fields: "no" if fields.get("kind") == "COMPLETED" else None)
    sink = MemorySink(store)
    batch = batches(MemoryHarness(), STORIES)[0]
    await claim(sink, batch)
    with pytest.raises(RejectedError) as refused:
        await sink.write(batch)
    assert [each.topic for each in refused.value.rejections] == ["quaestor.requests"]
    assert store.rows == {}
