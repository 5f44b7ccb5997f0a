"""Assembles records into batches: one open span per partition, cut by size, bytes or age."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from schemas.errors import IntegrityError
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, BatchPolicy, Span
from streams.log import Partition
from streams.runs import Run


class Assembler:
    """The records between the log and the store. Used by the consuming thread alone; makes no calls to either side."""

    def __init__(self, screen: Screen, policy: BatchPolicy) -> None:
        """Nothing is owned and nothing waits."""
        self._screen = screen
        #: When a batch is cut; the sink may change its mind.
        self.policy = policy
        #: Runs of one partition's records, as they were consumed.
        self._raw: deque[Run] = deque()
        #: Runs of the open batch that are not screened yet.
        self._unscreened: list[Run] = []
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
                mine = [run for run in self._unscreened if _partition_of(run) == partition]
                self._records -= len(span.records) + len(span.poison) + sum(map(len, mine))
                self._unscreened = [run for run in self._unscreened if _partition_of(run) != partition]
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
    def spans(self) -> list[Span]:
        """The open batch as it stands."""
        return list(self._open.values())

    @property
    def full(self) -> bool:
        """Whether a batch is as large as it may get."""
        return self._records >= self.policy.records_max or self._bytes >= self.policy.bytes_max

    def due(self, now: float) -> bool:
        """Whether a batch should be cut at this monotonic time, seconds."""
        if self._opened_at is None:
            return False
        return self.full or (now - self._opened_at) * 1_000 >= self.policy.age_milliseconds

    def has(self, partitions: Iterable[Partition]) -> bool:
        """Whether anything of these waits in the open batch."""
        return any(partition in self._open for partition in partitions)

    def enqueue(self, runs: Iterable[Run]) -> None:
        """Take records as consumed, still undecoded."""
        self._raw.extend(runs)

    def place(self, now: float) -> None:
        """Put what waits into the open batch until that is full."""
        while self._raw and not self.full:
            run = self._raw.popleft()
            partition = _partition_of(run)
            expected = self._expected.get(partition)
            if expected is None:
                continue
            room = self.policy.records_max - self._records
            taken = run if len(run) <= room else run[:room]
            size = taken.value_bytes
            whole = taken.offsets[0] == expected and taken.offsets[-1] == expected + len(taken) - 1
            if not whole or self._bytes + size > self.policy.bytes_max:
                # What is unusual, and what fills a batch by its bytes, goes record by record.
                taken = run[:1]
                size = taken.value_bytes
                whole = self._continues(partition, expected, run.offsets[0])
            if whole:
                self._place(partition, taken, size)
                if self._opened_at is None:
                    self._opened_at = now
            if len(taken) < len(run):
                self._raw.appendleft(run[len(taken) :])

    def screen(self, now_micros: int) -> None:
        """Decode and check the open batch; raises LogUnavailableError, with nothing done, when the registry is away."""
        by_topic: dict[str, list[Run]] = {}
        for run in sorted(self._unscreened, key=_partition_of):
            by_topic.setdefault(run.topic, []).append(run)
        topic_ids = {at.topic: topic_id for at, topic_id in self._topic_ids.items()}
        together = self.policy.takes_columns
        screened = [
            self._screen.screen_runs(runs, topic_ids[topic], now_micros, together=together)
            for topic, runs in by_topic.items()
        ]
        for of_topic in screened:
            for partition, verdicts in of_topic.items():
                span = self._open[partition]
                span.records = [*span.records, *verdicts.records] if span.records else verdicts.records
                span.poison += verdicts.poison
        self._unscreened = []

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

    def _place(self, partition: Partition, run: Run, size: int) -> None:
        if self._gaps_confirmed:
            # A jump was seen from the place before this record; the same one from here is another mistake.
            self._gaps_confirmed.pop(partition, None)
        span = self._open.get(partition)
        if span is None:
            first_offset = self._expected[partition]
            span = self._open[partition] = Span(partition, self._topic_ids[partition], first_offset, first_offset)
        self._unscreened.append(run)
        span.next_offset = self._expected[partition] = run.offsets[-1] + 1
        self._records += len(run)
        self._bytes += size


def _partition_of(run: Run) -> Partition:
    return Partition(run.topic, run.partition)


def cursors_after(batch: Batch) -> dict[Partition, int]:
    """Where the store stands once this batch is applied; raises IntegrityError for a partition that occurs twice."""
    cursors = {span.partition: span.next_offset for span in batch.spans}
    if len(cursors) != len(batch.spans):
        raise IntegrityError("a batch has two spans of one partition")
    return cursors
