"""Poison through the runner on the log in memory: parked, bisected, limited, redriven; everything ends up once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest

from schemas import limits
from schemas.errors import RejectedError, Rejection
from schemas.events import Alert, BudgetEvent, BudgetKind, QuarantineReason
from schemas.ids import uuid7
from schemas.topics import BUDGETS
from sinks.dead_letters import DeadLetter, Selection
from sinks.fake import MemorySink, MemoryStore
from sinks.runner.runner import run_sink
from sinks.runner.seam import Batch, BatchPolicy, Progress, Span
from streams.codec import Codec, LocalSchemas
from streams.log import OutgoingRecord, Partition
from streams.memory import MemoryLog
from tests.support.stories import START_MICROS, codec, outgoing, request_story

ENCODER = codec()
DEADLINE_SECONDS = 20
PEOPLE = "cli/7"
REQUESTS = "quaestor.requests"
#: One partition per topic, so that tests know where records are.
ONE_EACH = dict.fromkeys(sorted({record.topic for record in outgoing(ENCODER, request_story(0))}), 1)


class Seen(Progress):
    """Remembers what stands still and what was set aside."""

    def __init__(self) -> None:
        """Nothing was told."""
        self.still: dict[Partition, str] = {}
        self.broken_now: dict[Partition, str] = {}

    def paused(self, partitions: Mapping[Partition, str]) -> None:
        """As the seam says."""
        self.still = dict(partitions)

    def broken(self, partitions: Mapping[Partition, str]) -> None:
        """As the seam says."""
        self.broken_now = dict(partitions)


class FaultySink(MemorySink):
    """Raises what its fault says about a record, before it applies anything."""

    def __init__(self, store: MemoryStore, fault: Callable[[Mapping[str, Any]], Exception | None]) -> None:
        """A sink whose code has a bug."""
        super().__init__(store)
        self.fault = fault
        self.writes = 0

    async def write(self, batch: Batch) -> None:
        """As the seam says, if it gets that far."""
        self.writes += 1
        self._check(batch.spans)
        await super().write(batch)

    async def redrive(self, span: Span) -> None:
        """As the seam says, if it gets that far."""
        self._check([span])
        await super().redrive(span)

    def _check(self, spans: Sequence[Span]) -> None:
        for span in spans:
            for record in span.records:
                fault = self.fault(record.fields)
                if fault is not None:
                    raise fault


def publish(log: MemoryLog, records: Sequence[OutgoingRecord]) -> None:
    """Write records into the log."""
    log.publisher().publish(records, lambda _: None)


def requests(number: int) -> list[OutgoingRecord]:
    """RECEIVED and COMPLETED of one request."""
    return [record for record in outgoing(ENCODER, request_story(number)) if record.topic == REQUESTS]


def garbage(record: OutgoingRecord) -> OutgoingRecord:
    """A record with the same key that nobody can read."""
    return record._replace(value=b"garbage")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - the conditions are facts of a store, which signals nobody
            await asyncio.sleep(0.005)


def at_end(log: MemoryLog, store: MemoryStore) -> bool:
    """Whether the store stands at the end of every partition that has records."""
    ends = {partition: log.end(partition) for partition, records in log.records.items() if records}
    return all(at in store.cursors and store.cursors[at].next_offset == end for at, end in ends.items())


@asynccontextmanager
async def running(log: MemoryLog, sink: MemorySink, decoder: Codec = ENCODER) -> AsyncIterator[Seen]:
    """A runner on the log, stopped gracefully at the end."""
    seen, stop = Seen(), asyncio.Event()
    reader = log.group_reader("memory@v1")
    task = asyncio.create_task(run_sink(sink, reader, decoder, seen, stop, Random(1), sink.store.quarantine))
    try:
        yield seen
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await task


async def letters(store: MemoryStore) -> list[DeadLetter]:
    """Everything that was set aside, in the order of offsets."""
    found = await store.quarantine.find(Selection(), 10_000)
    return sorted(found, key=lambda letter: (letter.partition, letter.offset))


async def redrive(store: MemoryStore, *offsets: int) -> None:
    """Ask for these and wait until nobody is asked for any more."""
    ids = [each.event_id for each in await letters(store) if each.offset in offsets]
    await store.quarantine.request(ids, PEOPLE)
    await until(lambda: not any(row.requested for row in store.quarantine.rows.values()))


def stored(store: MemoryStore, topic: str = REQUESTS) -> list[int]:
    """Offsets of the rows of a topic."""
    return sorted(row.offset for partition, row in store.rows.values() if partition.topic == topic)


async def test_what_has_the_key_of_poison_is_parked() -> None:
    """Behind a record that can't be read its request waits; the next request goes on."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    received, completed = requests(1)
    publish(log, [garbage(received), completed, *requests(2)])
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
    found = await letters(store)
    assert [(each.offset, each.state) for each in found] == [(0, "QUARANTINED"), (1, "PARKED")]
    assert found[1].behind_event_id == found[0].event_id
    assert stored(store) == [2, 3]


async def test_a_restart_remembers_what_waits() -> None:
    """The next process parks what has the key of a record that an earlier one quarantined."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    received, completed = requests(1)
    publish(log, [garbage(received)])
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
    publish(log, [completed])
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
    assert [each.state for each in await letters(store)] == ["QUARANTINED", "PARKED"]


async def test_what_the_store_refuses_holds_its_key_up_too() -> None:
    """Records of the same batch and of the next one wait behind a record that only the store found."""
    log = MemoryLog(ONE_EACH)
    store = MemoryStore(refuses=lambda fields: "never" if fields.get("kind") == "RECEIVED" else None)
    publish(log, requests(1))
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
        publish(log, requests(1)[1:])
        await until(lambda: at_end(log, store))
    assert [each.state for each in await letters(store)] == ["QUARANTINED", "PARKED", "PARKED"]
    assert stored(store) == []


async def test_a_bug_is_bisected_to_its_record() -> None:
    """An unexpected fault costs one record of a large batch, quarantined with type and place, never its data."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    everything = [record for number in range(100) for record in requests(number)]
    bad = ENCODER.decode(REQUESTS, everything[77].value)["event_id"]
    sink = FaultySink(store, lambda fields: KeyError("secret") if fields["event_id"] == bad else None)
    sink.policy = BatchPolicy(age_milliseconds=100, poll_milliseconds=5, heartbeat_milliseconds=20)
    publish(log, everything)
    async with running(log, sink):
        await until(lambda: at_end(log, store))
    (found,) = await letters(store)
    assert (found.offset, found.reason) == (77, "BUG")
    assert found.detail.startswith("KeyError")
    assert "secret" not in found.detail
    assert found.attempts > 1
    assert len(stored(store)) == 199
    assert sink.writes < 40


async def test_a_refusal_without_names_is_bisected() -> None:
    """A store that refuses a batch and names no record has it halved: SINK_REJECT."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    everything = [record for number in range(20) for record in requests(number)]
    bad = ENCODER.decode(REQUESTS, everything[13].value)["event_id"]

    unnamed = RejectedError((Rejection(REQUESTS, 0, 10**9, "not of this batch"),))
    publish(log, everything)
    async with running(log, FaultySink(store, lambda fields: unnamed if fields["event_id"] == bad else None)):
        await until(lambda: at_end(log, store))
    (found,) = await letters(store)
    assert (found.offset, found.reason) == (13, "SINK_REJECT")
    assert len(stored(store)) == 39


async def test_a_bug_of_the_screen_is_about_its_record() -> None:
    """Code of ours that fails while it decodes or checks a record quarantines that record as BUG; the rest goes on."""

    class Buggy(Codec):
        """Divides by nothing when it meets the second record."""

        def decode(self, topic: str, value: bytes) -> dict[str, Any]:
            """As the codec does, but once."""
            if value == everything[1].value:
                raise ZeroDivisionError
            return super().decode(topic, value)

    log, store = MemoryLog(ONE_EACH), MemoryStore()
    everything = [record for number in range(3) for record in requests(number)[:1]]
    publish(log, everything)
    async with running(log, MemorySink(store), Buggy(LocalSchemas())):
        await until(lambda: at_end(log, store))
    (found,) = await letters(store)
    assert (found.offset, found.reason) == (1, "BUG")
    assert found.detail.startswith("ZeroDivisionError at ")
    assert stored(store) == [0, 2]


async def test_the_audit_log_calls_no_record_poison_for_a_bug() -> None:
    """A sink that takes everything ends its process on an unexpected fault: the next one enters the record."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    sink = FaultySink(store, lambda _: RuntimeError("bug"))
    sink.policy = BatchPolicy(age_milliseconds=5, poll_milliseconds=5, keeps_poison=True, takes_everything=True)
    publish(log, requests(1))
    reader, stop = log.group_reader("memory@v1"), asyncio.Event()
    with pytest.raises(RuntimeError, match="bug"):
        await run_sink(sink, reader, ENCODER, Seen(), stop, Random(1), store.quarantine)
    assert await letters(store) == []


async def test_a_fault_that_passes_by_itself_costs_nothing() -> None:
    """A record is blamed only when it fails again alone."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    faults = [RuntimeError("once")]
    publish(log, requests(1))
    async with running(log, FaultySink(store, lambda _: faults.pop() if faults else None)):
        await until(lambda: at_end(log, store))
    assert await letters(store) == []
    assert len(stored(store)) == 2


async def test_a_fault_that_hits_everything_stops_the_partition() -> None:
    """More in a row than the limit is not poison: the partition stands still, says so, and nothing is dropped."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    count = limits.POISON_IN_A_ROW_MAX + 50
    publish(log, [record for number in range(count) for record in requests(number)[:1]])
    sink = FaultySink(store, lambda _: RuntimeError("always"))
    async with running(log, sink) as seen:
        await until(lambda: bool(seen.still))
        assert store.cursors[Partition(REQUESTS, 0)].next_offset == limits.POISON_IN_A_ROW_MAX
        assert len(await letters(store)) == limits.POISON_IN_A_ROW_MAX
        assert [type(event) for event in store.quarantine.events.values()] == [Alert]
        sink.fault = lambda _: None
        await store.quarantine.resume(sink.projection, Partition(REQUESTS, 0), PEOPLE, 0)
        await until(lambda: at_end(log, store))
        assert seen.still == {}
        await redrive(store, *range(count))
    assert stored(store) == list(range(count))
    assert {each.state for each in await letters(store)} == {"REDRIVEN"}


async def test_a_pause_outlives_the_process() -> None:
    """A process that starts again does not swallow another hundred records, and others go on."""
    log, store = MemoryLog(), MemoryStore()
    bad = [requests(1)[0]._replace(value=b"garbage")] * (2 * limits.POISON_IN_A_ROW_MAX)
    publish(log, bad)
    async with running(log, MemorySink(store)) as seen:
        await until(lambda: bool(seen.still))
    publish(log, [record for record in outgoing(ENCODER, request_story(5)) if record.topic == "quaestor.costs"])
    async with running(log, MemorySink(store)) as seen:
        await until(lambda: bool(seen.still) and bool(stored(store, "quaestor.costs")))
    assert len(await letters(store)) == limits.POISON_IN_A_ROW_MAX


async def test_what_a_person_lets_by_is_set_aside_and_not_counted() -> None:
    """`resume --past` goes by everything below an offset, all of it kept."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    count = 3 * limits.POISON_IN_A_ROW_MAX
    publish(log, [garbage(requests(number)[0]) for number in range(count)])
    publish(log, requests(count))
    async with running(log, MemorySink(store)) as seen:
        await until(lambda: bool(seen.still))
        await store.quarantine.resume("memory@v1", Partition(REQUESTS, 0), PEOPLE, count)
        await until(lambda: at_end(log, store))
    assert len(await letters(store)) == count
    assert stored(store) == [count, count + 1]


async def test_a_redrive_applies_the_chain_in_order() -> None:
    """Once the store takes it, head and followers are applied, each at its own offset, and later records go on."""
    log = MemoryLog(ONE_EACH)
    store = MemoryStore(refuses=lambda fields: "never" if fields.get("kind") == "RECEIVED" else None)
    publish(log, requests(1))
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
        store.refuses = lambda _: None
        await redrive(store, 0)
        assert stored(store) == [0, 1]
        publish(log, requests(2))
        await until(lambda: at_end(log, store))
    assert [each.state for each in await letters(store)] == ["REDRIVEN", "REDRIVEN"]
    assert stored(store) == [0, 1, 2, 3]


async def test_a_redrive_that_fails_again_stays() -> None:
    """With one try more; what waits behind it still waits, and nothing was applied."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    received, completed = requests(1)
    publish(log, [garbage(received), completed])
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
        await redrive(store, 0)
    found = await letters(store)
    assert [(each.state, each.attempts) for each in found] == [("QUARANTINED", 2), ("PARKED", 0)]
    assert stored(store) == []


async def test_a_redrive_whose_answer_is_lost_doubles_nothing() -> None:
    """Applied, but the sink hears of a failure: the very same records are tried again and are there once."""
    log = MemoryLog(ONE_EACH)
    store = MemoryStore(refuses=lambda fields: "never" if fields.get("kind") == "RECEIVED" else None)
    publish(log, requests(1))
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
        store.refuses = lambda _: None
        store.lose_next_answer = True
        await redrive(store, 0)
    assert stored(store) == [0, 1]
    assert [each.state for each in await letters(store)] == ["REDRIVEN", "REDRIVEN"]


async def test_discarding_lets_followers_go() -> None:
    """The head never comes; what waited behind it is applied."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    received, completed = requests(1)
    publish(log, [garbage(received), completed])
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
        (first, _) = await letters(store)
        await store.quarantine.discard([first.event_id], PEOPLE, "test")
        await until(lambda: stored(store) == [1])
    assert [each.state for each in await letters(store)] == ["DISCARDED", "REDRIVEN"]


async def test_a_store_that_is_rebuilt_sets_the_same_records_aside() -> None:
    """Read again from the beginning, unresolved and discarded records stay out, redriven ones are applied."""
    log = MemoryLog(ONE_EACH)
    store = MemoryStore(refuses=lambda fields: "never" if fields.get("kind") == "RECEIVED" else None)
    publish(log, [record for number in range(3) for record in requests(number)])
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
        store.refuses = lambda _: None
        await redrive(store, 0)
        discarded = [each.event_id for each in await letters(store) if each.offset in {2, 3}]
        await store.quarantine.discard(discarded, PEOPLE, "test")
    store.rows.clear()
    for cursor in store.cursors.values():
        cursor.next_offset = 0
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
    assert stored(store) == [0, 1]
    states = [each.state for each in await letters(store)]
    assert states == ["REDRIVEN", "REDRIVEN", "DISCARDED", "DISCARDED", "QUARANTINED", "PARKED"]


async def test_a_store_that_falls_back_under_a_process_sets_the_same_records_aside() -> None:
    """Of records that were set aside before the process came, and that it reads again behind a gap."""
    log = MemoryLog(ONE_EACH)
    store = MemoryStore(refuses=lambda fields: "never" if fields.get("kind") == "RECEIVED" else None)
    publish(log, requests(0))
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
    store.refuses = lambda _: None
    async with running(log, MemorySink(store)):
        publish(log, requests(1))
        await until(lambda: at_end(log, store))
        store.rows.clear()
        for cursor in store.cursors.values():
            cursor.next_offset = 0
        publish(log, requests(2))
        await until(lambda: at_end(log, store))
    assert stored(store) == [2, 3, 4, 5]
    assert [each.state for each in await letters(store)] == ["QUARANTINED", "PARKED"]


def budget(kind: BudgetKind, hold_id: str, number: int) -> OutgoingRecord:
    """A movement of a hold."""
    story = request_story(number)
    first = next(event for event in story if isinstance(event, BudgetEvent))
    event_id = uuid7(START_MICROS + number, bytes([number, *kind.value.encode()[:9].ljust(9)]))
    event = msgspec.structs.replace(first, event_id=event_id, kind=kind, hold_id=hold_id)
    (record,) = outgoing(ENCODER, [event])
    return record


async def test_a_tenants_money_goes_on_behind_a_budget_event_that_cannot_be_read() -> None:
    """Only holds that could be the record's wait: those made before it was written."""
    log, store = MemoryLog(ONE_EACH, clock_millis=lambda: START_MICROS // 1_000), MemoryStore()
    old, young = (uuid7(START_MICROS + seconds * 1_000_000, bytes(10)) for seconds in (-60, 60))
    placed = [budget(BudgetKind.PLACED, old, 1), budget(BudgetKind.PLACED, old, 2)._replace(value=b"garbage")]
    later = [budget(BudgetKind.PLACED, young, 3), budget(BudgetKind.COMMITTED, old, 4)]
    publish(log, [*placed, *later, budget(BudgetKind.COMMITTED, young, 5)])
    async with running(log, MemorySink(store)):
        await until(lambda: at_end(log, store))
    assert stored(store, BUDGETS.name) == [0, 2, 4]
    assert [(each.offset, each.state) for each in await letters(store)] == [(1, "QUARANTINED"), (3, "PARKED")]


@pytest.mark.parametrize("reason", [QuarantineReason.UNDECODABLE, QuarantineReason.SEMANTIC])
async def test_a_sink_that_takes_everything_parks_nothing(reason: QuarantineReason) -> None:
    """The audit log enters poison as it comes, keeps no order behind it, and never stands still."""
    log, store = MemoryLog(ONE_EACH), MemoryStore()
    sink = MemorySink(store)
    sink.policy = BatchPolicy(
        age_milliseconds=5, poll_milliseconds=5, heartbeat_milliseconds=20, keeps_poison=True, takes_everything=True
    )
    received, completed = requests(1)
    bad = garbage(received) if reason is QuarantineReason.UNDECODABLE else received._replace(key=b"another")
    publish(log, [*[bad] * (limits.POISON_IN_A_ROW_MAX + 5), completed])
    async with running(log, sink):
        await until(lambda: at_end(log, store))
    assert stored(store)[-1] == limits.POISON_IN_A_ROW_MAX + 5
