"""Batches are cut by the bytes of their values: memory holds what one batch may weigh, however few its records."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

from sinks.fake import MemorySink, MemoryStore
from sinks.runner import BatchPolicy
from sinks.runner.assembler import Assembler
from sinks.runner.runner import run_sink
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, Span
from streams.log import LogRecord, Partition
from streams.memory import MemoryLog
from streams.runs import runs_of
from tests.support.stories import TOPIC_ID, Offsets, request_story
from tests.unit.sinks.test_runner import ENCODER, Seen, assert_all_there, at_end, publish, running, stories, until

COSTS = Partition("quaestor.costs", 0)
#: So long that no batch is cut for its age.
NEVER_MILLISECONDS = 3_600_000


def records(count: int) -> list[LogRecord]:
    """The first records of a partition, all of about one size."""
    offsets = Offsets()
    made = [record for number in range(count) for record in offsets.records(ENCODER, request_story(number), 1)]
    return [record for record in made if record.topic == COSTS.topic]


def size(record: LogRecord) -> int:
    """Bytes of its value."""
    return len(record.value or b"")


def weight(spans: list[Span]) -> int:
    """Bytes of the values of spans without poison."""
    return sum(size(item.record) for span in spans for item in span.records)


def filled(given: list[LogRecord], bytes_max: int) -> Assembler:
    """An assembler that was given these records at once and placed as many as a batch takes."""
    assembler = Assembler(Screen(ENCODER, "test@v1"), BatchPolicy(bytes_max=bytes_max))
    assembler.own(COSTS, TOPIC_ID, 0)
    assembler.enqueue(runs_of(given))
    assembler.place(0.0)
    return assembler


def cut(assembler: Assembler) -> list[int]:
    """The offsets of the open batch, which is cut."""
    assembler.screen(1)
    return [item.offset for span in assembler.cut(1).spans for item in span.records]


def test_a_batch_of_enough_bytes_is_due_at_once() -> None:
    """It has neither the records nor the age for it."""
    given = records(4)

    assert filled(given, sum(map(size, given))).due(0.0)
    assert not filled(given, sum(map(size, given)) + 1).due(0.0)


def test_of_records_read_together_a_batch_takes_no_more_than_its_bytes() -> None:
    """Only the record that fills it may go beyond; the next batch begins with the one behind that."""
    given = records(10)
    assembler = filled(given, sum(map(size, given[:3])) + 1)

    assert assembler.full
    assert [0, 1, 2, 3] == cut(assembler)

    assembler.place(0.0)
    assert [4, 5, 6, 7] == cut(assembler)


def test_a_batch_that_was_cut_leaves_no_bytes_behind() -> None:
    """What is in the next one counts for it alone."""
    given = records(4)
    assembler = filled(given[:2], sum(map(size, given[:2])))
    cut(assembler)
    assembler.enqueue(runs_of(given[2:3]))
    assembler.place(0.0)

    assert not assembler.full


async def test_records_larger_than_a_batch_go_one_by_one() -> None:
    """A limit that no record keeps stops nothing."""
    log, store = MemoryLog(), MemoryStore()
    publish(log, stories(3))
    async with running(log, store, policy=BatchPolicy(bytes_max=1, age_milliseconds=NEVER_MILLISECONDS)) as seen:
        await until(lambda: at_end(log, store))
    assert {1} == set(seen.sizes)
    assert_all_there(log, store)


class Weighing(MemorySink):
    """Remembers how many bytes each batch had."""

    def __init__(self, store: MemoryStore, policy: BatchPolicy) -> None:
        """Nothing was written."""
        super().__init__(store, "one", policy)
        self.weights: list[int] = []

    async def write(self, batch: Batch) -> None:
        """As the seam says."""
        await super().write(batch)
        self.weights.append(weight(batch.spans))


async def test_a_backlog_is_cut_by_bytes() -> None:
    """Every batch has its bytes and at most one record more; only the last is not full, and waits for company."""
    log, store, seen, stop = MemoryLog(), MemoryStore(), Seen(), asyncio.Event()
    publish(log, stories(100))
    sizes = [size(record) for kept in log.records.values() for record in kept]
    policy = BatchPolicy(bytes_max=sum(sizes) // 10, age_milliseconds=NEVER_MILLISECONDS, poll_milliseconds=5)
    sink = Weighing(store, policy)
    task = asyncio.create_task(run_sink(sink, log.group_reader("memory@v1"), ENCODER, seen, stop, Random(1)))
    await until(lambda: sum(sizes) - sum(sink.weights) < policy.bytes_max)
    full = list(sink.weights)
    sink.policy = replace(policy, age_milliseconds=0)
    await until(lambda: at_end(log, store))
    stop.set()
    await task

    assert policy.bytes_max <= min(full)
    assert policy.bytes_max + max(sizes) > max(full)
    assert_all_there(log, store)
