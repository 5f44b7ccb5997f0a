"""Assembles records into batches: one open span per partition, cut by size, bytes or age."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from schemas.errors import IntegrityError
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, BatchPolicy, Decoded, Span
from streams.log import LogRecord, Partition


class Assembler:
    """The records between the log and the store. Used by the consuming thread alone; makes no calls to either side."""

    def __init__(self, screen: Screen, policy: BatchPolicy) -> None:
        """Nothing is owned and nothing waits."""
        self._screen = screen
        self._policy = policy
        self._raw: deque[LogRecord] = deque()
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
                self._records -= len(span.records) + len(span.poison)
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
    def undecoded(self) -> int:
        """Consumed records that are not in the open batch yet."""
        return len(self._raw)

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
        self._raw.extend(records)

    def decode(self, now: float, now_micros: int) -> None:
        """Decode what waits until the batch is full; raises LogUnavailableError while the registry is away."""
        while self._raw and not self.full:
            record = self._raw[0]
            partition = Partition(record.topic, record.partition)
            expected = self._expected.get(partition)
            if expected is not None and self._continues(partition, expected, record.offset):
                self._place(partition, record, now_micros)
                if self._opened_at is None:
                    self._opened_at = now
            self._raw.popleft()

    def cut(self, now_micros: int) -> Batch:
        """Everything that waits as one batch; empty when nothing does."""
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

    def _place(self, partition: Partition, record: LogRecord, now_micros: int) -> None:
        topic_id = self._topic_ids[partition]
        screened = self._screen.screen(record, topic_id, now_micros)
        span = self._open.get(partition)
        if span is None:
            first_offset = self._expected[partition]
            span = self._open[partition] = Span(partition, topic_id, first_offset, first_offset)
        if isinstance(screened, Decoded):
            span.records.append(screened)
        else:
            span.poison.append(screened)
        span.next_offset = self._expected[partition] = record.offset + 1
        self._records += 1
        self._bytes += len(record.value or b"")


def cursors_after(batch: Batch) -> dict[Partition, int]:
    """Where the store stands once this batch is applied; raises IntegrityError for a partition that occurs twice."""
    cursors = {span.partition: span.next_offset for span in batch.spans}
    if len(cursors) != len(batch.spans):
        raise IntegrityError("a batch has two spans of one partition")
    return cursors
