"""The stream runtime: consume, decide, produce, commit, on a thread of its own.

At least once with deterministic ids: a partition's position is committed only after everything decided from the records
before it is acknowledged, so what a crash repeats has the ids it had before, and every consumer drops it by id.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from schemas.errors import CodecError, IntegrityError, LogError, LogUnavailableError, RecordRefusedError
from schemas.events import Event
from schemas.limits import CONSUME_BATCH_RECORDS, DELIVERY_TIMEOUT_SECONDS
from streams.codec import Codec
from streams.company import Company
from streams.garbage import collect_seldom
from streams.kafka import KafkaGroupReader, KafkaPublisher
from streams.log import GroupReader, LogRecord, Membership, OutgoingRecord, Partition, Publisher
from streams.monitor import Monitor
from streams.quarantine import quarantined
from streams.records import event_of, outgoing, traceparent_of
from streams.waiting import back_off_seconds
from streams.warmup import warm_up_offsets

State = TypeVar("State")

CONSUME_SECONDS = 0.25
#: Records that came are joined by those that come in this time, and in more of it where batches take long: each is
#: published, acknowledged and committed on its own, which costs more than what is decided in it (docs/decisions/0113).
COLLECT_SECONDS, COLLECT_SECONDS_MAX = 0.05, 0.25
COLLECT_BATCHES = 4.0
TICK_SECONDS = 1.0
ASK_SECONDS = 10.0
#: librdkafka answers within its delivery timeout and the seconds in which it looks for what is overdue.
ACKNOWLEDGED_SECONDS_MAX = DELIVERY_TIMEOUT_SECONDS + 5
MICROS_PER_SECOND = 1_000_000
log = structlog.get_logger(__name__)


class Processor(Protocol[State]):
    """A pure decider over one or more topics. One state per partition of each topic.

    For every record: `decide(state, event)` first, its events are published; then `evolve(state, event)`. When a
    partition is taken over, the records of the last `warm_up_seconds` before the committed position are only evolved.
    A processor may name some of its topics as `stateless_topics`: those are not warmed up.
    """

    @property
    def name(self) -> str:
        """Names the consumer group `stream-<name>`."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics read."""

    @property
    def warm_up_seconds(self) -> int:
        """How much of the past makes the state whole; 0 for a stateless processor."""

    def initial(self, partition: int) -> State:
        """The state of a partition number before any record."""

    def evolve(self, state: State, event: Event) -> State:
        """The state after an event."""

    def decide(self, state: State, event: Event) -> Sequence[Event]:
        """The events that follow from an event; their ids are derived from it."""

    def tick(self, state: State, now_micros: int, caught_up: bool) -> Sequence[Event]:
        """The events that follow from time alone, asked about once a second per partition.

        `caught_up`: everything the partition held a moment ago, our own last events included, is in the state.
        """


@dataclass(slots=True)
class _Task:
    """One partition that is ours."""

    state: Any
    #: Next offset to read.
    position: int
    #: Records below this are only evolved.
    resume: int


class StreamRuntime:
    """Runs one processor over one reader and one publisher; tests run it over MemoryLog. One thread calls it."""

    def __init__(
        self,
        processor: Processor[Any],
        reader: GroupReader,
        publisher: Publisher,
        codec: Codec,
        monitor: Monitor,
        clock_micros: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """Nothing happens before run or turn; reader and publisher stay their maker's to close."""
        self._processor, self._reader, self._publisher, self._codec = processor, reader, publisher, codec
        self._monitor, self._clock_micros = monitor, clock_micros
        self._projection = f"stream/{processor.name}@v1"
        self._tasks: dict[Partition, _Task] = {}
        self._topic_ids: dict[str, str] = {}
        self._stop = threading.Event()
        self._tick_at = 0.0
        self._company = Company()

    def start(self) -> None:
        """Join the group."""
        self._reader.subscribe(self._processor.topics, self._take_over, self._give_up)

    def run(self, stop: threading.Event) -> None:
        """Turn until `stop`; waits while Kafka or the registry is away.

        Raises IntegrityError when a position it needs is gone, RecordRefusedError when Kafka refuses a derived record
        for good, and whatever the processor raises: nothing of that batch is committed then.
        """
        self._stop = stop
        self.start()
        failures = 0
        while not stop.is_set():
            try:
                self.turn()
                failures = 0
            except LogUnavailableError as error:
                failures += 1
                self._monitor.set(state="waiting")
                log.warning("stream_waits", processor=self._processor.name, error=str(error))
                stop.wait(back_off_seconds(failures))
        self._monitor.set(state="stopping")

    def turn(self) -> int:
        """Take one batch all the way, tick when it is time; returns how many records were taken."""
        records = self._consume()
        if records:
            started = time.monotonic()
            self._apply(records)
            self._company.took(time.monotonic() - started)
        if time.monotonic() >= self._tick_at:
            self._tick()
            self._tick_at = time.monotonic() + TICK_SECONDS
        return len(records)

    def _consume(self) -> list[LogRecord]:
        """What has come, and what comes in a moment."""
        records = self._reader.consume(CONSUME_BATCH_RECORDS, CONSUME_SECONDS)
        if not 0 < len(records) < CONSUME_BATCH_RECORDS:
            return records
        tasks = dict(self._tasks)
        self._stop.wait(self._company.wait_seconds(COLLECT_BATCHES, COLLECT_SECONDS, COLLECT_SECONDS_MAX))
        try:
            more = self._reader.consume(CONSUME_BATCH_RECORDS - len(records), 0.0)
        except LogUnavailableError:
            more = []  # what is at hand would be lost with it; the next turn meets it again, if it lasts
        # A partition that left meanwhile, or left and came back, is read again from where its owner begins.
        gone = {at for at, task in tasks.items() if self._tasks.get(at) is not task}
        if gone:
            records = [record for record in records if Partition(record.topic, record.partition) not in gone]
        return records + more

    def _take_over(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Where to begin: at the committed position, or before it to make the state whole."""
        committed = self._reader.committed(partitions, ASK_SECONDS)
        begins = self._reader.begin_offsets(partitions, ASK_SECONDS)
        # Asked last: the previous owner may have gone on while we asked for the rest.
        ends = self._reader.end_offsets(partitions, ASK_SECONDS)
        resumes = begins | committed
        for at, resume in resumes.items():
            if not begins[at] <= resume <= ends[at]:
                raise IntegrityError(
                    f"{at}: position {resume} is outside {begins[at]} to {ends[at]}: topic re-created?"
                )
        starts = resumes | self._warm_up_offsets(resumes, ends)
        self._topic_ids |= self._reader.topic_ids(sorted({at.topic for at in partitions}), ASK_SECONDS)
        for at, start in starts.items():
            self._tasks[at] = _Task(self._processor.initial(at.number), start, resumes[at])
            log.info("partition_taken", partition=str(at), position=resumes[at], warm_up_records=resumes[at] - start)
        return starts

    def _warm_up_offsets(self, resumes: Mapping[Partition, int], ends: Mapping[Partition, int]) -> dict[Partition, int]:
        seconds = self._processor.warm_up_seconds
        stateless: tuple[str, ...] = getattr(self._processor, "stateless_topics", ())
        stateful = {at: resume for at, resume in resumes.items() if at.topic not in stateless}
        if not seconds or not stateful:
            return {}
        return warm_up_offsets(self._reader, stateful, ends, seconds, self._clock_micros() // 1_000)

    def _give_up(self, partitions: Sequence[Partition]) -> None:
        for at in partitions:
            self._tasks.pop(at, None)

    def _apply(self, records: Sequence[LogRecord]) -> None:
        """Decide and evolve a batch, publish what follows, commit. Every record of it has been decided exactly once."""
        outcome: list[OutgoingRecord] = []
        for record in records:
            task = self._tasks.get(Partition(record.topic, record.partition))
            if task is not None:
                outcome += self._step(task, record)
        if self._publish(outcome):
            self._commit(records)

    def _step(self, task: _Task, record: LogRecord) -> list[OutgoingRecord]:
        event = self._read(record)
        task.position = record.offset + 1
        if isinstance(event, OutgoingRecord):
            return [event] if record.offset >= task.resume else []
        follows: Sequence[Event] = ()
        if record.offset >= task.resume:
            follows = self._processor.decide(task.state, event)
        task.state = self._processor.evolve(task.state, event)
        traceparent = traceparent_of(record.headers) if follows else None
        return [outgoing(self._codec, each, traceparent) for each in follows]

    def _read(self, record: LogRecord) -> Event | OutgoingRecord:
        """The record's event, or the record that quarantines it; waits as long as the registry is away."""
        failures = 0
        while True:
            try:
                return event_of(self._codec, record)
            except CodecError as error:
                return self._quarantine(record, error)
            except LogUnavailableError as error:
                failures += 1
                self._wait(error, failures)

    def _quarantine(self, record: LogRecord, error: CodecError) -> OutgoingRecord:
        log.error("record_quarantined", partition=f"{record.topic}/{record.partition}", offset=record.offset)
        schema_id = self._codec.schema_id(record.value or b"")
        topic_id, now = self._topic_ids[record.topic], self._clock_micros()
        event = quarantined(record, topic_id, self._projection, error, schema_id, now)
        labels = {"topic": record.topic, "reason": event.reason.value}
        self._monitor.metrics.counter("quaestor_records_quarantined_total").labels(**labels).inc()
        return outgoing(self._codec, event)

    def _publish(self, records: Sequence[OutgoingRecord]) -> bool:
        """Until all are acknowledged; False when told to stop before. Raises RecordRefusedError.

        What was decided is sent again as it is, never decided again.
        """
        failures = 0
        while records:
            fault = self._attempt(records)
            if fault is None:
                break
            if isinstance(fault, RecordRefusedError):
                raise fault
            if self._stop.is_set():
                return False
            failures += 1
            self._wait(fault, failures)
        return True

    def _attempt(self, records: Sequence[OutgoingRecord]) -> LogError | None:
        ended, faults = threading.Event(), list[LogError | None]()

        def done(fault: LogError | None) -> None:
            faults.append(fault)
            ended.set()

        self._publisher.publish(records, done)
        if not ended.wait(ACKNOWLEDGED_SECONDS_MAX):
            return LogUnavailableError("Kafka did not acknowledge in time")
        return faults[0]

    def _wait(self, fault: LogError, failures: int) -> None:
        """Back off with the batch in hand; raises the fault when told to stop, so that nothing of it is committed."""
        self._monitor.set(state="waiting")
        log.warning("stream_waits", processor=self._processor.name, error=str(fault), failures=failures)
        if self._stop.wait(back_off_seconds(failures)):
            raise fault

    def _commit(self, records: Sequence[LogRecord]) -> None:
        touched = {Partition(record.topic, record.partition) for record in records}
        tasks = {at: self._tasks[at] for at in touched if at in self._tasks}
        positions = {at: task.position for at, task in tasks.items() if task.position > task.resume}
        if positions:
            self._reader.commit_hint(positions)
        age = self._clock_micros() / MICROS_PER_SECOND - records[-1].timestamp_millis / 1_000
        self._monitor.set(freshness_seconds=round(max(age, 0.0), 3))
        consumed = self._monitor.metrics.counter("quaestor_records_consumed_total")
        for topic, count in Counter(record.topic for record in records).items():
            consumed.labels(topic=topic).inc(count)

    def _tick(self) -> None:
        """Ask every partition what follows from time alone, and say how far behind we are."""
        ends = self._reader.end_offsets(list(self._tasks), ASK_SECONDS) if self._tasks else {}
        now, outcome = self._clock_micros(), list[OutgoingRecord]()
        for at, task in self._tasks.items():
            if task.position >= task.resume:
                follows = self._processor.tick(task.state, now, task.position >= ends[at])
                outcome += [outgoing(self._codec, each) for each in follows]
        lag = sum(max(ends[at] - task.position, 0) for at, task in self._tasks.items())
        self._publish(outcome)
        owned = len(self._tasks)
        self._monitor.set(state="running", lag_events=lag, partitions=owned)
        self._monitor.metrics.gauge("quaestor_partitions_owned").set(owned)


async def run_stream(
    processor: Processor[Any],
    *,
    bootstrap: str,
    codec: Codec,
    monitor: Monitor,
    stop: asyncio.Event,
    membership: Membership | None = None,
) -> None:
    """Run a processor on Kafka until `stop`; raises what StreamRuntime.run raises."""
    client_id = f"quaestor-stream-{processor.name}"
    collect_seldom()
    publisher = KafkaPublisher(bootstrap, client_id=client_id)
    reader = KafkaGroupReader(bootstrap, f"stream-{processor.name}", client_id, membership)
    halt = threading.Event()
    runtime = StreamRuntime(processor, reader, publisher, codec, monitor)
    with ThreadPoolExecutor(1, thread_name_prefix=f"stream-{processor.name}") as pool:
        work = asyncio.get_running_loop().run_in_executor(pool, _run_and_close, runtime, reader, publisher, halt)
        stopped = asyncio.create_task(stop.wait())
        ends: set[asyncio.Future[Any]] = {work, stopped}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            halt.set()
            await asyncio.shield(work)


def _run_and_close(runtime: StreamRuntime, reader: GroupReader, publisher: Publisher, halt: threading.Event) -> None:
    try:
        runtime.run(halt)
    finally:
        reader.close()
        publisher.close()
