"""The runner over the log in memory: everything arrives once, whatever the store, the log and the group do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import msgspec
import pytest

from schemas import limits
from schemas.errors import LogUnavailableError
from schemas.events import QuarantinedRecord, QuarantineReason, RequestEvent, RequestKind
from schemas.topics import TOPICS
from sinks.fake import MemorySink, MemoryStore
from sinks.runner import BatchPolicy, backoff
from sinks.runner.priority import CROWDED_SECONDS, REST_SHARE, Courtesy, MemoryPriority
from sinks.runner.runner import run_sink
from sinks.runner.seam import Progress
from sinks.totals import totals_of
from streams.codec import Codec, LocalSchemas
from streams.log import OutgoingRecord, Partition
from streams.memory import MemoryLog
from tests.support.stories import codec, outgoing, request_story

ENCODER = codec()
DEADLINE_SECONDS = 20
REQUESTS = Partition("quaestor.requests", 0)


class Seen(Progress):
    """Remembers what the runner told."""

    def __init__(self) -> None:
        """Nothing was told."""
        self.waits: list[str] = []
        self.retries = 0
        self.largest = 0
        self.sizes: list[int] = []
        self.steps: dict[str, float] = {}
        self.broken_now: dict[Partition, str] = {}
        self.quarantines: list[QuarantinedRecord] = []
        self.lag_events: dict[Partition, int] = {}

    def running(self) -> None:
        """As the seam says."""

    def waiting(self, detail: str) -> None:
        """As the seam says."""
        self.waits.append(detail)

    def broken(self, partitions: Mapping[Partition, str]) -> None:
        """As the seam says."""
        self.broken_now = dict(partitions)

    def lag(self, lag_events: Mapping[Partition, int], oldest_seconds: float) -> None:
        """As the seam says."""
        self.lag_events = dict(lag_events)

    def batch(self, records: int, write_seconds: float, steps: Mapping[str, float]) -> None:
        """As the seam says."""
        self.largest = max(self.largest, records)
        self.sizes.append(records)
        self.steps = dict(steps)

    def retry(self) -> None:
        """As the seam says."""
        self.retries += 1

    def quarantined(self, records: Sequence[QuarantinedRecord]) -> None:
        """As the seam says."""
        self.quarantines += records


def publish(log: MemoryLog, records: Sequence[OutgoingRecord]) -> None:
    """Write records into the log."""
    log.publisher().publish(records, lambda _: None)


def stories(count: int, start: int = 0) -> list[OutgoingRecord]:
    """Records of so many requests."""
    return [record for number in range(start, start + count) for record in outgoing(ENCODER, request_story(number))]


def at_end(log: MemoryLog, store: MemoryStore) -> bool:
    """Whether the store stands at the end of every partition that has records."""
    return all(
        store.cursors.get(partition) is not None and store.cursors[partition].next_offset == log.end(partition)
        for partition, records in log.records.items()
        if records
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - the conditions are facts of a store, which signals nobody
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    log: MemoryLog,
    store: MemoryStore,
    owner: str = "one",
    policy: BatchPolicy | None = None,
    decoder: Codec = ENCODER,
    courtesy: Courtesy | None = None,
) -> AsyncIterator[Seen]:
    """A runner on the log, stopped gracefully at the end."""
    seen, stop = Seen(), asyncio.Event()
    sink, reader = MemorySink(store, owner, policy), log.group_reader("memory@v1")
    task = asyncio.create_task(run_sink(sink, reader, decoder, seen, stop, Random(1), store.quarantine, courtesy))
    try:
        yield seen
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await task


def assert_all_there(log: MemoryLog, store: MemoryStore) -> None:
    """Each topic's totals in the store are those of its distinct events in the log."""
    for topic in TOPICS:
        records = [record for at, kept in log.records.items() if at.topic == topic.name for record in kept]
        decoded = [ENCODER.decode(topic.name, record.value or b"") for record in records]
        expected = totals_of(
            (fields["tenant_id"], fields["event_id"], fields.get("amount_nano") or 0) for fields in decoded
        )
        assert store.totals(topic.name, {at: log.end(at) for at in log.records}) == expected


async def test_a_backlog_and_what_comes_after_are_applied() -> None:
    """Records from before and after the start reach the store, each once."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(300))
    async with running(log, store) as seen:
        await until(lambda: at_end(log, store))
        publish(log, stories(20, 300))
        await until(lambda: at_end(log, store))
        await until(lambda: bool(seen.lag_events) and not any(seen.lag_events.values()))
    assert_all_there(log, store)


async def test_batches_keep_their_limit() -> None:
    """No batch has more records than its policy allows."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(300))
    async with running(log, store, policy=BatchPolicy(records_max=100, age_milliseconds=5)) as seen:
        await until(lambda: at_end(log, store))
    assert 0 < seen.largest <= 100


async def test_a_graceful_stop_finishes_the_batch() -> None:
    """What was consumed before the stop is applied, though its batch was not old enough yet."""
    log, store = MemoryLog(), MemoryStore()
    policy = BatchPolicy(age_milliseconds=60_000, poll_milliseconds=5, heartbeat_milliseconds=10)
    async with running(log, store, policy=policy) as seen:
        await until(lambda: bool(seen.lag_events))
        publish(log, stories(5))
        await until(lambda: any(seen.lag_events.values()))
    assert at_end(log, store)


async def test_a_store_that_is_away_is_waited_for() -> None:
    """While the store is away nothing is lost, and the runner says that it waits."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(50))
    async with running(log, store) as seen:
        await until(lambda: at_end(log, store))
        store.away = True
        publish(log, stories(50, 50))
        await until(lambda: seen.retries >= 2)
        store.away = False
        await until(lambda: at_end(log, store))
    assert seen.waits
    assert_all_there(log, store)


async def test_a_store_away_keeps_memory_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a backlog, a batch that is tried again, the next one and what was read last are held, no more."""
    monkeypatch.setattr(backoff, "DOUBLINGS_MAX", 3)
    log, store, seen, stop = MemoryLog(), MemoryStore(), Seen(), asyncio.Event()
    policy = BatchPolicy(records_max=50, age_milliseconds=5, poll_milliseconds=5, heartbeat_milliseconds=20)
    reader, sink = log.group_reader("memory@v1"), MemorySink(store, "one", policy)
    bound = 2 * policy.records_max + limits.CONSUME_BATCH_RECORDS
    publish(log, stories(bound // 2))
    assert sum(map(log.end, log.records)) > 4 * bound
    task = asyncio.create_task(run_sink(sink, reader, ENCODER, seen, stop, Random(1), store.quarantine))
    await until(lambda: bool(store.cursors) and seen.largest > 0)
    store.away = True
    await until(lambda: bool(reader._paused))
    tried = seen.retries
    await until(lambda: seen.retries > tried)
    held = sum(reader._cursors.values()) - sum(cursor.next_offset for cursor in store.cursors.values())
    store.away = False
    await until(lambda: at_end(log, store))
    stop.set()
    await task
    assert 0 < held <= bound
    assert_all_there(log, store)


async def test_a_sink_gives_way_while_it_is_behind() -> None:
    """Its priority is down while old events wait, and as everybody's once all of them are applied."""
    log, store, priority = MemoryLog(), MemoryStore(), MemoryPriority()
    publish(log, stories(5))
    async with running(log, store, courtesy=Courtesy(priority, 0.001)):
        await until(lambda: at_end(log, store))
        store.away = True
        publish(log, stories(5, 5))
        await until(lambda: priority.gives_way)
        store.away = False
        await until(lambda: at_end(log, store) and not priority.gives_way)


class FarBehind(Courtesy):
    """Of a sink that is far behind from the first look on, whatever is looked at."""

    def __init__(self, waited_share: float = 1.0) -> None:
        """Behind already, on a machine that others want too."""
        super().__init__(MemoryPriority(waited_share), 0.001)
        self.taken: list[float] = []
        for end in (10_000, 10_001):
            self.look(0.0, 0, 0.0, {REQUESTS: end})

    def look(self, now: float, lag_events: int, oldest_seconds: float, calls: Mapping[Partition, int]) -> None:
        """As of a log that is long and old."""
        super().look(0.0, max(lag_events, 10_000), max(oldest_seconds, 1.0), calls)

    def rest_seconds(self, spent_seconds: float) -> float:
        """Noted, and none."""
        self.taken.append(super().rest_seconds(spent_seconds))
        return 0.0


@pytest.mark.parametrize(("smaller", "most"), [(10, 10), (None, 100)])
async def test_batches_are_smaller_while_a_sink_gives_way(smaller: int | None, most: int) -> None:
    """Its server gives way to nobody, so less is asked of it at once; a sink without such a size keeps its own."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(300))
    policy = BatchPolicy(records_max=100, yielding_records_max=smaller, age_milliseconds=60_000)
    async with running(log, store, policy=policy, courtesy=FarBehind()) as seen:
        await until(lambda: len(seen.sizes) >= 25)
    assert most == max(seen.sizes)


async def test_a_sink_that_gives_way_rests_after_each_write() -> None:
    """Longer than it wrote, so that cores are free now and then; half a second at most."""
    log, store, courtesy = MemoryLog(), MemoryStore(), FarBehind()
    publish(log, stories(300))
    policy = BatchPolicy(records_max=100, age_milliseconds=60_000)
    async with running(log, store, policy=policy, courtesy=courtesy):
        await until(lambda: len(courtesy.taken) >= 10)

    assert 0 < min(courtesy.taken)
    assert 0.5 >= max(courtesy.taken)


async def test_a_sink_that_keeps_up_does_not_rest() -> None:
    """Nor does one that is behind by less than is far."""
    courtesy = Courtesy(MemoryPriority(1.0), 10.0)
    courtesy.look(0.0, 10_000, 9.9, {REQUESTS: 10_000})
    courtesy.look(1.0, 10_000, 9.9, {REQUESTS: 10_001})

    assert courtesy.rest_seconds(1.0) == 0.0


def test_a_sink_far_behind_rests_while_somebody_calls() -> None:
    """Where the log of requests grows, and for a while after; what works beside it alone is its own server."""
    courtesy = Courtesy(MemoryPriority(1.0), 1.0)
    rested = []
    for now, end in enumerate((10_000, 10_000, 10_001, 10_001)):
        courtesy.look(now, 10_000, 2.0, {REQUESTS: end})
        rested.append(courtesy.rests)
    courtesy.look(2 + CROWDED_SECONDS, 10_000, 2.0, {REQUESTS: 10_001})

    assert [False, False, True, True] == rested
    assert not courtesy.rests


def test_partitions_that_come_with_a_rebalance_are_no_calls() -> None:
    """Nor those that go: only what grew since it was looked at."""
    courtesy, other = Courtesy(MemoryPriority(1.0), 1.0), Partition("quaestor.requests", 1)
    for now, calls in enumerate(({}, {REQUESTS: 10_000}, {REQUESTS: 10_000, other: 500}, {other: 500}, {})):
        courtesy.look(now, 10_000, 2.0, calls)
        assert not courtesy.rests


async def test_a_sink_far_behind_does_not_rest_where_nobody_else_wants_the_cpu() -> None:
    """Rests are for others; it catches up at full speed on a machine that is its own."""
    alone, crowded = FarBehind(0.1), FarBehind(0.3)
    for each in (alone, crowded):
        each.rest_seconds(0.01)

    assert (alone.taken, crowded.taken) == ([0.0], [pytest.approx(0.01 * REST_SHARE)])


@pytest.mark.parametrize(("waited_share", "prepares"), [(0.0, True), (1.0, False)])
async def test_a_sink_that_rests_does_one_thing_at_a_time(
    monkeypatch: pytest.MonkeyPatch, waited_share: float, prepares: bool
) -> None:
    """The next batch is made ready beside a write where nobody else wants the other core."""
    log, store, prepared = MemoryLog(), MemoryStore(), list[int]()
    monkeypatch.setattr(MemorySink, "prepare", lambda _, spans: prepared.append(len(spans)))
    publish(log, stories(300))
    policy = BatchPolicy(records_max=100, age_milliseconds=60_000, takes_columns=True)
    async with running(log, store, policy=policy, courtesy=FarBehind(waited_share)):
        await until(lambda: at_end(log, store))

    assert prepares == bool(prepared)


async def test_the_steps_of_a_batch_are_told() -> None:
    """With every batch it is told how old its oldest record was when it was cut."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(5))
    async with running(log, store) as seen:
        await until(lambda: at_end(log, store) and "wait" in seen.steps)


async def test_a_lost_answer_is_repeated_without_doubling() -> None:
    """A batch that was applied but whose answer was lost is written again and changes nothing."""
    log, store = MemoryLog(), MemoryStore(lose_next_answer=True)
    publish(log, stories(20))
    async with running(log, store) as seen:
        await until(lambda: at_end(log, store) and seen.retries > 0)
    assert_all_there(log, store)


async def test_poison_goes_to_quarantine_and_the_rest_goes_on() -> None:
    """Undecodable bytes, a wrong key, an unknown schema and a refused record: each set aside once, with its reason."""
    log = MemoryLog()
    store = MemoryStore(refuses=lambda fields: "never" if fields.get("kind") == "FAILED" else None)
    good = stories(10)
    refused = outgoing(ENCODER, request_story(99))[-1]
    event = ENCODER.decode_event("quaestor.requests", refused.value)
    assert isinstance(event, RequestEvent)
    failed = ENCODER.encode(msgspec.structs.replace(event, kind=RequestKind.FAILED))
    topic, key = "quaestor.requests", refused.key
    poison = [
        OutgoingRecord(topic, b"acme/one", b"garbage", ()),
        OutgoingRecord(topic, b"someone/else", good[0].value, ()),
        OutgoingRecord(topic, b"acme/two", b"\x00\x00\x00\xff\xff" + good[0].value[5:], ()),
        OutgoingRecord(topic, key, failed, (("ce_id", b"1"),)),
        OutgoingRecord(topic, b"acme/three", good[0].value[:-3], ()),
    ]
    publish(log, [*good[:40], *poison, *good[40:]])
    async with running(log, store) as seen:
        await until(lambda: at_end(log, store))
    reasons = sorted(record.reason.value for record in store.quarantine.kept.values())
    assert reasons == ["SCHEMA_UNKNOWN", "SEMANTIC", "SINK_REJECT", "UNDECODABLE", "UNDECODABLE"]
    assert len(seen.quarantines) == 5
    assert len(store.rows) == len(good)


async def test_a_record_of_another_topics_schema_is_undecodable() -> None:
    """A valid event on the wrong topic is quarantined."""
    log, store = MemoryLog(), MemoryStore()
    cost = next(record for record in stories(1) if record.topic == "quaestor.costs")
    publish(log, [OutgoingRecord("quaestor.requests", cost.key, cost.value, ())])
    async with running(log, store):
        await until(lambda: at_end(log, store))
    assert [record.reason for record in store.quarantine.kept.values()] == [QuarantineReason.UNDECODABLE]


async def test_a_registry_that_is_away_is_waited_for() -> None:
    """While the registry can't be asked nothing is quarantined and nothing is lost."""
    source = AwaySchemas()
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(10))
    async with running(log, store, decoder=Codec(source)) as seen:
        await until(lambda: source.refused > 1)
        source.away = False
        await until(lambda: at_end(log, store))
    assert seen.waits
    assert not store.quarantine.kept
    assert_all_there(log, store)


class AwaySchemas(LocalSchemas):
    """A registry that does not answer at first."""

    def __init__(self) -> None:
        """Be away."""
        self.away = True
        self.refused = 0

    def schema_text(self, schema_id: int) -> str:
        """As the seam says."""
        if self.away:
            self.refused += 1
            raise LogUnavailableError
        return super().schema_text(schema_id)


async def test_partitions_move_between_processes_without_gap_or_duplicate() -> None:
    """A second process joins and leaves under load; every event is applied once."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(100))
    async with running(log, store, "one"):
        for turn in range(3):
            async with running(log, store, f"two-{turn}"):
                publish(log, stories(50, 100 + 50 * turn))
                await until(lambda: len({cursor.owner for cursor in store.cursors.values()}) > 1)
        await until(lambda: at_end(log, store))
    assert_all_there(log, store)


async def test_a_fenced_process_gives_its_partitions_up() -> None:
    """When another owner claims behind the group's back, this process stops writing there and the rest goes on."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(20))
    async with running(log, store):
        await until(lambda: at_end(log, store))
        stolen = Partition("quaestor.control", 0)
        store.cursors[stolen].epoch += 1
        publish(log, [OutgoingRecord("quaestor.control", b"x/y", b"poison", ())])
        publish(log, stories(20, 20))
        await until(
            lambda: all(at.topic == stolen.topic or c.next_offset == log.end(at) for at, c in store.cursors.items())
        )
    assert store.cursors[stolen].next_offset == 0


async def test_a_store_that_fell_back_is_read_to_again() -> None:
    """A cursor that went back (a restored store) makes the runner seek to it and apply again what is missing."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(20))
    async with running(log, store):
        await until(lambda: at_end(log, store))
        store.rows.clear()
        for cursor in store.cursors.values():
            cursor.next_offset = 0
        publish(log, stories(60, 20))
        await until(lambda: at_end(log, store))
    assert_all_there(log, store)


async def test_a_disagreement_stops_its_partition_alone() -> None:
    """The same id with other bytes stops that partition and is shown; others go on."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, outgoing(ENCODER, request_story(1)))
    publish(log, outgoing(ENCODER, request_story(1, amount_nano=7)))
    async with running(log, store) as seen:
        await until(lambda: bool(seen.broken_now))
        publish(log, [OutgoingRecord("quaestor.health", b"x", b"poison", ())])
        await until(lambda: len(store.quarantine.kept) == 1)
    assert all("met before with other bytes" in why for why in seen.broken_now.values())


async def test_a_partition_that_stopped_still_counts_as_lag() -> None:
    """It is ours and falls behind: the number that says so must not go with it."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, outgoing(ENCODER, request_story(1)))
    publish(log, outgoing(ENCODER, request_story(1, amount_nano=7)))
    async with running(log, store) as seen:
        await until(lambda: bool(seen.broken_now))
        stopped = next(iter(seen.broken_now))

        await until(lambda: seen.lag_events.get(stopped, 0) > 0)


async def test_a_sink_may_change_when_its_batches_are_cut() -> None:
    """What waited for company is written as soon as the sink says so."""
    log, store, seen, stop = MemoryLog(), MemoryStore(), Seen(), asyncio.Event()
    patient = BatchPolicy(age_milliseconds=3_600_000, poll_milliseconds=5, heartbeat_milliseconds=20)
    sink, reader = MemorySink(store, "one", patient), log.group_reader("memory@v1")
    publish(log, stories(3))
    task = asyncio.create_task(run_sink(sink, reader, ENCODER, seen, stop, Random(1), store.quarantine))
    await until(lambda: sum(seen.lag_events.values()) > 0)
    assert store.rows == {}
    sink.policy = replace(patient, age_milliseconds=0)
    await until(lambda: at_end(log, store))
    stop.set()
    await task
