"""When a batch is cut, and how its records are fetched, as long as there is time to wait for company."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

import pytest

from sinks.fake import MemorySink, MemoryStore
from sinks.runner.assembler import COMPANY_WRITES, Assembler
from sinks.runner.progress import MonitorProgress
from sinks.runner.reading import Reading
from sinks.runner.screen import Screen
from sinks.runner.seam import BatchPolicy
from sinks.runner.tending import Tending
from sinks.runner.writer import Writer
from streams.company import WORKS_REMEMBERED
from streams.log import Partition
from streams.memory import MemoryGroup, MemoryGroupReader, MemoryLog
from streams.monitor import Monitor
from streams.runs import Run, runs_of
from tests.support.stories import TOPIC_ID, Offsets, codec, outgoing, request_story

CODEC = codec()
PARTITION = Partition("quaestor.costs", 0)
POLICY = BatchPolicy(age_milliseconds=250, age_milliseconds_max=1_200)


def opened(policy: BatchPolicy) -> Assembler:
    """An assembler whose batch was opened at 100 s."""
    assembler = Assembler(Screen(CODEC, "test@v1"), policy)
    assembler.own(PARTITION, TOPIC_ID, 0)
    records = Offsets().records(CODEC, request_story(0), 1)
    assembler.enqueue(runs_of([record for record in records if record.topic == PARTITION.topic]))
    assembler.place(100.0)
    return assembler


@pytest.mark.parametrize(
    ("policy", "write_seconds", "age_seconds"),
    [(POLICY, 0.01, 0.25), (POLICY, 0.2, 0.2 * COMPANY_WRITES), (POLICY, 30.0, 1.2), (BatchPolicy(), 30.0, 0.25)],
)
def test_a_batch_is_as_old_as_writes_are_slow(policy: BatchPolicy, write_seconds: float, age_seconds: float) -> None:
    """Within the bounds of its policy, of which one may have no upper."""
    assembler = opened(policy)
    for _ in range(WORKS_REMEMBERED):
        assembler.company.took(write_seconds)
    assert assembler.due_in_seconds(100.0) == pytest.approx(age_seconds)
    assert not assembler.due(100.0 + 0.99 * age_seconds)
    assert assembler.due(100.0 + 1.01 * age_seconds)


class CountingReader(MemoryGroupReader):
    """Says how often it was asked."""

    asked = 0

    def consume_runs(self, records_max: int, timeout_seconds: float) -> list[Run]:
        """As the seam says."""
        self.asked += 1
        return super().consume_runs(records_max, timeout_seconds)


class Moment(threading.Event):
    """A wait in which something happens."""

    def __init__(self, happens: Callable[[], None]) -> None:
        """Nothing happened yet."""
        super().__init__()
        self._happens = happens

    def wait(self, timeout: float | None = None) -> bool:
        """As an event that is not set, with nothing to wait for."""
        assert timeout is not None
        self._happens()
        return False


def test_records_gather_while_a_batch_is_open() -> None:
    """What comes in that moment, of every partition, is taken at one look."""
    log = MemoryLog()
    reader = CountingReader(log, MemoryGroup())
    reader.subscribe(list(log.counts), lambda given: dict.fromkeys(given, 0), lambda _: None)
    assembler = Assembler(Screen(CODEC, "test@v1"), BatchPolicy(age_milliseconds=3_600_000))
    for partition in log.records:
        assembler.own(partition, TOPIC_ID, 0)
    sink = MemorySink(MemoryStore(), "one")
    progress = MonitorProgress(Monitor("test"), "test@v1")
    writer = Writer(sink, Screen(CODEC, "test@v1"), progress, None, Random(1))
    reading = Reading(sink, reader, assembler, Tending(sink, writer, progress), progress, Random(1))
    stories = iter(range(3))

    def publish() -> None:
        log.publisher().publish(outgoing(CODEC, request_story(next(stories))), lambda _: None)

    publish()
    reading._take_together(None)
    assembler.place(0.0)
    publish()
    reading._stopping = Moment(publish)
    reading._take_together(None)
    assembler.place(0.0)
    assert list(stories) == []
    assert reader.asked == 2
    assert sum(assembler.owned.values()) == sum(map(len, log.records.values()))
