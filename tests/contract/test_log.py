"""What `streams.log` promises, on the log in memory and on a real Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from uuid import uuid4

import pytest

from schemas.errors import IntegrityError, LogError, LogUnavailableError, RecordRefusedError
from schemas.limits import RECORD_BYTES_MAX
from streams.kafka import KafkaGroupReader, KafkaPublisher, KafkaReader
from streams.log import GroupReader, LogReader, LogRecord, OutgoingRecord, Partition, Publisher
from streams.memory import MemoryLog
from streams.partitioner import partition_of
from tests.support.kafka_server import fresh_topic, kafka_bootstrap
from tests.support.loop_publisher import ThreadedPublisher

PARTITIONS = 4
SECONDS = 20.0


class Bed:
    """One topic on one log, and the clients that a test opened on it."""

    def __init__(self, topic: str, reader: Callable[[], LogReader], publisher: Callable[[], Publisher]) -> None:
        """Make clients with these."""
        self.topic = topic
        self.partitions = [Partition(topic, number) for number in range(PARTITIONS)]
        self._make_reader, self._make_publisher = reader, publisher
        self.opened: list[LogReader | Publisher] = []
        self.group_reader: Callable[[str], GroupReader]
        self.other: Partition

    def reader(self) -> LogReader:
        """A reader, closed with the test."""
        self.opened.append(reader := self._make_reader())
        return reader

    def member(self, group: str) -> Member:
        """A member of a group, closed with the test."""
        self.opened.append(reader := self.group_reader(group))
        return Member(self, reader)

    def publisher(self) -> Publisher:
        """A publisher, closed with the test."""
        self.opened.append(publisher := self._make_publisher())
        return publisher

    def record(self, key: bytes, value: bytes) -> OutgoingRecord:
        """A record for the topic."""
        return OutgoingRecord(self.topic, key, value, (("ce_id", value),))

    def write(self, *records: OutgoingRecord, publisher: Publisher | None = None) -> LogError | None:
        """Publish a group and wait for its end."""
        ended, faults = threading.Event(), list[LogError | None]()

        def done(fault: LogError | None) -> None:
            faults.append(fault)
            ended.set()

        (publisher or self.publisher()).publish(records, done)
        assert ended.wait(SECONDS)
        (fault,) = faults
        return fault

    def fill(self, count: int) -> list[bytes]:
        """Write `count` records of as many keys; returns the values."""
        values = [b"%d" % number for number in range(count)]
        assert self.write(*(self.record(value, value) for value in values)) is None
        return values


class Member:
    """A group reader with what happened to it."""

    def __init__(self, bed: Bed, reader: GroupReader) -> None:
        """Join at once, from the beginning or what the group committed."""
        self.reader = reader
        self.given: list[Partition] = []
        self.taken: list[Partition] = []
        self.records: list[LogRecord] = []
        self.refusals: list[LogError] = []
        reader.subscribe([bed.topic], self._cursors_of, self._revoked)

    def _cursors_of(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        if self.refusals:
            raise self.refusals.pop()
        self.given += partitions
        return dict.fromkeys(partitions, 0) | self.reader.committed(partitions, SECONDS)

    def _revoked(self, partitions: Sequence[Partition]) -> None:
        self.taken += partitions

    @property
    def owned(self) -> set[Partition]:
        """What it has now."""
        return {at for at in self.given if self.given.count(at) > self.taken.count(at)}

    def turn(self) -> None:
        """Consume once."""
        self.records += self.reader.consume(100, 0.05)


def read(reader: LogReader, count: int) -> list[LogRecord]:
    """Consume until `count` records have come."""
    records: list[LogRecord] = []
    deadline = time.monotonic() + SECONDS
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += reader.consume(100, 0.2)
    return records


def until(condition: Callable[[], bool], *members: Member) -> None:
    """Let the members take turns until the condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        for member in members:
            member.turn()


def memory_bed() -> Bed:
    """A topic in memory."""
    topic = f"test.{uuid4().hex}"
    log = MemoryLog({topic: PARTITIONS, "other": 1})
    bed = Bed(topic, log.reader, log.publisher)
    bed.group_reader, bed.other = log.group_reader, Partition("other", 0)
    return bed


def kafka_bed(publisher: Callable[[str], Publisher] = KafkaPublisher) -> Bed:
    """A topic on Kafka."""
    bootstrap = kafka_bootstrap()
    bed = Bed(fresh_topic(PARTITIONS), lambda: KafkaReader(bootstrap), lambda: publisher(bootstrap))
    bed.group_reader = lambda group: KafkaGroupReader(bootstrap, f"{bed.topic}.{group}")
    bed.other = Partition(fresh_topic(1), 0)
    return bed


def loop_bed() -> Bed:
    """A topic on Kafka, written by the gateway's publisher."""
    return kafka_bed(ThreadedPublisher)


KAFKA = pytest.param(kafka_bed, marks=pytest.mark.stack, id="kafka")
LOOP = pytest.param(loop_bed, marks=pytest.mark.stack, id="kafka-loop")
#: For what is said of publishers; what is said of readers holds whoever wrote.
every_publisher = pytest.mark.parametrize("bed", [pytest.param(memory_bed, id="memory"), KAFKA, LOOP], indirect=True)


@pytest.fixture(params=[pytest.param(memory_bed, id="memory"), KAFKA])
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A fresh topic on each log."""
    made: Bed = request.param()
    yield made
    for client in reversed(made.opened):
        client.close()


@every_publisher
def test_a_group_is_acknowledged_once_and_can_be_read(bed: Bed) -> None:
    """`done` gets None, and every record is there with its key, value and headers."""
    values = bed.fill(50)
    reader = bed.reader()
    reader.assign(dict.fromkeys(bed.partitions, 0))

    records = read(reader, len(values))

    assert sorted(values) == sorted(record.value or b"" for record in records)
    assert all(record.key == record.value and record.headers == (("ce_id", record.value),) for record in records)


@every_publisher
def test_an_empty_group_is_done_at_once(bed: Bed) -> None:
    """Nothing to acknowledge is nothing to wait for."""
    assert bed.write() is None


@every_publisher
def test_a_key_decides_the_partition_as_murmur2(bed: Bed) -> None:
    """Every record is where the JVM's partitioner would have put it."""
    bed.fill(50)
    reader = bed.reader()
    reader.assign(dict.fromkeys(bed.partitions, 0))

    for record in read(reader, 50):
        assert record.partition == partition_of(record.key or b"", PARTITIONS)


@every_publisher
def test_records_of_a_key_keep_their_order_across_groups(bed: Bed) -> None:
    """What was handed over first has the lower offset."""
    publisher = bed.publisher()
    ended = threading.Semaphore(0)
    for start in range(0, 100, 10):
        group = [bed.record(b"key", b"%d" % number) for number in range(start, start + 10)]
        publisher.publish(group, lambda _: ended.release())
    for _ in range(10):
        assert ended.acquire(timeout=SECONDS)
    reader = bed.reader()
    reader.assign({Partition(bed.topic, partition_of(b"key", PARTITIONS)): 0})

    records = read(reader, 100)

    assert [b"%d" % number for number in range(100)] == [record.value for record in records]
    assert list(range(100)) == [record.offset for record in records]


@every_publisher
def test_a_record_over_the_limit_is_refused_for_good(bed: Bed) -> None:
    """Size is not a matter of trying again."""
    fault = bed.write(bed.record(b"key", bytes(RECORD_BYTES_MAX + 10_000)))

    assert isinstance(fault, RecordRefusedError)


@every_publisher
def test_flush_waits_for_what_is_under_way(bed: Bed) -> None:
    """After flush nothing is left, and `done` was called."""
    publisher = bed.publisher()
    ended = threading.Event()
    publisher.publish([bed.record(b"key", b"value")], lambda _: ended.set())

    assert publisher.flush(SECONDS) == 0
    assert ended.is_set()


def test_reading_starts_at_the_cursor_and_assign_replaces(bed: Bed) -> None:
    """A cursor is the next offset; a second assignment forgets the first."""
    bed.write(*(bed.record(b"key", b"%d" % number) for number in range(10)))
    at = Partition(bed.topic, partition_of(b"key", PARTITIONS))
    reader = bed.reader()
    reader.assign({at: 0})
    read(reader, 10)

    reader.assign({at: 7})

    assert [7, 8, 9] == [record.offset for record in read(reader, 3)]


def test_an_empty_log_answers_with_an_empty_list(bed: Bed) -> None:
    """The timeout ends the wait."""
    reader = bed.reader()
    reader.assign(dict.fromkeys(bed.partitions, 0))

    assert reader.consume(10, 0.1) == []


def test_no_more_records_come_than_were_asked_for(bed: Bed) -> None:
    """The bound holds."""
    bed.fill(30)
    reader = bed.reader()
    reader.assign(dict.fromkeys(bed.partitions, 0))

    batches = [reader.consume(5, 0.5) for _ in range(10)]

    assert all(len(batch) <= 5 for batch in batches)
    assert any(batches)


def test_offsets_of_begin_end_and_time(bed: Bed) -> None:
    """Begin is 0, end counts the records, a time finds the first record at or after it."""
    before = time.time_ns() // 1_000_000 - 1_000
    bed.write(*(bed.record(b"key", b"value") for _ in range(5)))
    at = Partition(bed.topic, partition_of(b"key", PARTITIONS))
    reader = bed.reader()

    assert dict.fromkeys(bed.partitions, 0) == reader.begin_offsets(bed.partitions, SECONDS)
    assert dict.fromkeys(bed.partitions, 0) | {at: 5} == reader.end_offsets(bed.partitions, SECONDS)
    assert reader.offsets_at(before, [at], SECONDS) == {at: 0}
    assert reader.offsets_at(before + 3_600_000, [at], SECONDS) == {at: 5}


def test_partitions_and_ids_of_a_topic(bed: Bed) -> None:
    """All partitions are named; the id stays the same."""
    reader = bed.reader()

    assert bed.partitions == reader.partitions([bed.topic], SECONDS)
    assert reader.topic_ids([bed.topic], SECONDS) == reader.topic_ids([bed.topic], SECONDS)


def test_a_paused_partition_is_silent_and_loses_nothing(bed: Bed) -> None:
    """After resume its records come, in order."""
    at = Partition(bed.topic, partition_of(b"key", PARTITIONS))
    bed.write(*(bed.record(b"key", b"%d" % number) for number in range(20)))
    reader = bed.reader()
    reader.assign({at: 0})
    first: list[LogRecord] = []
    while not first:
        first = reader.consume(5, 0.2)
    reader.pause([at])

    assert reader.consume(100, 0.3) == []

    reader.resume([at])
    assert list(range(len(first), 20)) == [record.offset for record in read(reader, 20 - len(first))]


def test_an_offset_that_does_not_exist_is_never_skipped(bed: Bed) -> None:
    """Beyond the end is an integrity fault, not a jump."""
    bed.fill(3)
    reader = bed.reader()
    reader.assign({bed.partitions[0]: 1_000})

    with pytest.raises(IntegrityError):
        read(reader, 1)


def test_a_lone_member_gets_everything(bed: Bed) -> None:
    """All partitions are given to it, from the cursors it named."""
    values = bed.fill(40)
    member = bed.member("lone")

    until(lambda: len(member.records) == len(values), member)

    assert set(bed.partitions) == member.owned
    assert sorted(values) == sorted(record.value or b"" for record in member.records)


def test_a_member_is_confirmed_for_what_it_owns(bed: Bed) -> None:
    """The group counts on it, whatever it read so far."""
    member = bed.member("sure")
    until(lambda: len(member.owned) == PARTITIONS, member)

    assert member.reader.confirm(dict.fromkeys(member.owned, 0))


def test_a_second_member_takes_a_share_after_it_was_revoked(bed: Bed) -> None:
    """Nobody owns a partition twice, and together they own all."""
    first = bed.member("pair")
    until(lambda: first.owned == set(bed.partitions), first)
    second = bed.member("pair")

    until(lambda: bool(second.owned) and len(first.owned) + len(second.owned) == PARTITIONS, first, second)

    assert first.owned.isdisjoint(second.owned)
    assert set(first.taken) >= second.owned


def test_a_member_that_leaves_hands_its_partitions_and_position_on(bed: Bed) -> None:
    """The next owner starts where the last one committed."""
    values = bed.fill(40)
    first = bed.member("chain")
    until(lambda: len(first.records) == len(values), first)
    ends = first.reader.end_offsets(bed.partitions, SECONDS)
    first.reader.commit_hint(ends)
    first.reader.close()
    bed.opened.remove(first.reader)
    second = bed.member("chain")

    until(lambda: second.owned == set(bed.partitions), second)

    assert set(bed.partitions) == set(first.taken)
    assert {at: end for at, end in ends.items() if end} == {
        at: end for at, end in second.reader.committed(bed.partitions, SECONDS).items() if end
    }
    assert [] == second.records


def test_a_position_in_a_topic_that_is_not_shared_is_kept_for_the_next_owner(bed: Bed) -> None:
    """The guardrails read budgets whole, and say in their group how far."""
    first = bed.member("watch")
    until(lambda: first.owned == set(bed.partitions), first)
    assert {} == first.reader.committed([bed.other], SECONDS)
    first.reader.commit_hint({bed.other: 7})
    until(lambda: first.reader.committed([bed.other], SECONDS) == {bed.other: 7}, first)
    first.reader.close()
    bed.opened.remove(first.reader)
    second = bed.member("watch")

    until(lambda: second.owned == set(bed.partitions), second)

    assert {bed.other: 7} == second.reader.committed([bed.other], SECONDS)


def test_cursors_that_cannot_be_had_are_asked_for_again(bed: Bed) -> None:
    """The fault comes out of consume, nothing is read meanwhile, and then everything is read from the right place."""
    values = bed.fill(40)
    member = bed.member("patient")
    member.refusals = [LogUnavailableError(), LogUnavailableError()]

    for _ in range(2):
        with pytest.raises(LogUnavailableError):
            until(lambda: bool(member.records), member)
    until(lambda: len(member.records) == len(values), member)

    assert set(bed.partitions) == member.owned
    assert sorted(values) == sorted(record.value or b"" for record in member.records)
