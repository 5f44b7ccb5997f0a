"""Assembles records into batches: one open span per partition, cut by size, bytes or age."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby, islice
from operator import attrgetter

from schemas.errors import IntegrityError
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, BatchPolicy, Decoded, Poison, Span
from streams.log import LogRecord, Partition

_place_of = attrgetter("topic", "partition")


class Assembler:
    """The records between the log and the store. Used by the consuming thread alone; makes no calls to either side."""

    def __init__(self, screen: Screen, policy: BatchPolicy) -> None:
        """Nothing is owned and nothing waits."""
        self._screen = screen
        self._policy = policy
        #: Runs of one partition's records, as they were consumed.
        self._raw: deque[list[LogRecord]] = deque()
        #: Runs of the open batch that are not screened yet.
        self._unscreened: list[list[LogRecord]] = []
        self._topic_ids: dict[Partition, str] = {}
        self._expected: dict[Partition, int] = {}
        self._gaps_confirmed: dict[Partition, int] = {}
        self._open: dict[Partition, Span] = {}
        self._records = 0
        self._bytes = 0
        self._opened_at: float | None = None
        #: Where to read again because the log gave out a later record than the next one; taken by the runner.
        self.rereads: dict[Partition, int] = {}

    def own(self, partition: Partition, topic_id: str, cursor: int) -> None:
        """Take records of this partition from `cursor` on, and nothing of it that waited before."""
        self.drop([partition])
        self._topic_ids[partition] = topic_id
        self._expected[partition] = cursor

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forget these partitions and whatever waits of them."""
        for partition in partitions:
            self._expected.pop(partition, None)
            self.rereads.pop(partition, None)
            self._gaps_confirmed.pop(partition, None)
            span = self._open.pop(partition, None)
            if span is not None:
                mine = [run for run in self._unscreened if _partition_of(run[0]) == partition]
                self._records -= len(span.records) + len(span.poison) + sum(map(len, mine))
                self._unscreened = [run for run in self._unscreened if _partition_of(run[0]) != partition]
        if not self._open:
            self._clear()

    def reread(self, partition: Partition, cursor: int) -> None:
        """Expect this owned partition from `cursor` on again."""
        if partition in self._expected:
            self.own(partition, self._topic_ids[partition], cursor)

    @property
    def owned(self) -> Mapping[Partition, int]:
        """Owned partitions and the next offset expected of each."""
        return self._expected

    @property
    def waiting(self) -> bool:
        """Whether consumed records are not in the open batch yet."""
        return bool(self._raw)

    @property
    def unscreened(self) -> bool:
        """Whether there are records in the open batch that nobody has decoded yet."""
        return bool(self._unscreened)

    @property
    def full(self) -> bool:
        """Whether a batch is as large as it may get."""
        return self._records >= self._policy.records_max or self._bytes >= self._policy.bytes_max

    def due(self, now: float) -> bool:
        """Whether a batch should be cut at this monotonic time, seconds."""
        if self._opened_at is None:
            return False
        return self.full or (now - self._opened_at) * 1_000 >= self._policy.age_milliseconds

    def has(self, partitions: Iterable[Partition]) -> bool:
        """Whether anything of these waits in the open batch."""
        return any(partition in self._open for partition in partitions)

    def enqueue(self, records: Sequence[LogRecord]) -> None:
        """Take records as consumed, still undecoded."""
        self._raw.extend(list(run) for _, run in groupby(records, _place_of))

    def place(self, now: float) -> None:
        """Put what waits into the open batch until that is full."""
        while self._raw and not self.full:
            run = self._raw.popleft()
            partition = _partition_of(run[0])
            expected = self._expected.get(partition)
            if expected is None:
                continue
            taken = run[: self._policy.records_max - self._records]
            size = sum(len(record.value or b"") for record in taken)
            whole = taken[0].offset == expected and taken[-1].offset == expected + len(taken) - 1
            if not whole or self._bytes + size > self._policy.bytes_max:
                # What is unusual, and what fills a batch by its bytes, goes record by record.
                taken = run[:1]
                size = len(run[0].value or b"")
                whole = self._continues(partition, expected, run[0].offset)
            if whole:
                self._place(partition, taken, size)
                if self._opened_at is None:
                    self._opened_at = now
            if len(taken) < len(run):
                self._raw.appendleft(run[len(taken) :])

    def screen(self, now_micros: int) -> None:
        """Decode and check the open batch; raises LogUnavailableError, with nothing done, when the registry is away."""
        by_topic: dict[str, list[list[LogRecord]]] = {}
        for run in self._unscreened:
            by_topic.setdefault(run[0].topic, []).append(run)
        topic_ids = {at.topic: topic_id for at, topic_id in self._topic_ids.items()}
        together = self._policy.takes_columns
        screened = {
            topic: self._screen.screen_topic(
                list(chain.from_iterable(runs)), topic_ids[topic], now_micros, together=together
            )
            for topic, runs in by_topic.items()
        }
        for topic, runs in by_topic.items():
            verdicts = iter(screened[topic])
            for run in runs:
                self._keep(self._open[_partition_of(run[0])], list(islice(verdicts, len(run))))
        self._unscreened = []

    def _keep(self, span: Span, verdicts: Sequence[Decoded | Poison]) -> None:
        decoded = [each for each in verdicts if isinstance(each, Decoded)]
        span.records += decoded
        if len(decoded) < len(verdicts):
            span.poison += [each for each in verdicts if not isinstance(each, Decoded)]

    def cut(self, now_micros: int) -> Batch:
        """The open batch, which must be screened; empty when there is none. Raises IntegrityError when it is not."""
        if self._unscreened:
            raise IntegrityError("a batch was cut before it was screened")
        batch = Batch(list(self._open.values()), now_micros)
        self._open = {}
        self._clear()
        return batch

    def _clear(self) -> None:
        self._records = self._bytes = 0
        self._opened_at = None

    def _continues(self, partition: Partition, expected: int, offset: int) -> bool:
        """Whether this offset may be taken next; a jump forward is believed only when a second read shows it again."""
        if offset == expected or self._gaps_confirmed.get(partition) == offset > expected:
            return True
        if offset > expected and partition not in self.rereads:
            self._gaps_confirmed[partition] = offset
            self.rereads[partition] = expected
        return False

    def _place(self, partition: Partition, run: list[LogRecord], size: int) -> None:
        if self._gaps_confirmed:
            # A jump was seen from the place before this record; the same one from here is another mistake.
            self._gaps_confirmed.pop(partition, None)
        span = self._open.get(partition)
        if span is None:
            first_offset = self._expected[partition]
            span = self._open[partition] = Span(partition, self._topic_ids[partition], first_offset, first_offset)
        self._unscreened.append(run)
        span.next_offset = self._expected[partition] = run[-1].offset + 1
        self._records += len(run)
        self._bytes += size


def _partition_of(record: LogRecord) -> Partition:
    return Partition(record.topic, record.partition)


def cursors_after(batch: Batch) -> dict[Partition, int]:
    """Where the store stands once this batch is applied; raises IntegrityError for a partition that occurs twice."""
    cursors = {span.partition: span.next_offset for span in batch.spans}
    if len(cursors) != len(batch.spans):
        raise IntegrityError("a batch has two spans of one partition")
    return cursors
