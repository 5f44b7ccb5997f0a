"""Errands: parts of budgets partitions to be folded apart from the sink, by a reader that does nothing else.

`run_errands` says in words what came of them; words are what goes through a pipe (sinks/redis/worker.py), so that each
is bounded by a minute of holds or by one tenant's counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from processors.budgets.live import Ended, LiveFold, LiveTenant
from schemas import limits
from schemas.errors import LogUnavailableError
from schemas.topics import BUDGETS
from sinks.redis.slices import Slice, Slices
from streams.log import LogReader, Partition
from streams.runs import Run

READ_SECONDS = 1.0
#: Reads in a row that may bring nothing though there is more.
EMPTY_READS_MAX = 30


class Errand(msgspec.Struct, frozen=True, array_like=True):
    """Fold [first, end) of a partition."""

    partition: int
    #: The topic's UUID.
    topic_id: str
    first: int
    end: int
    #: Offsets that were set aside and not applied since.
    set_aside: tuple[int, ...]
    #: Whether to end before a record that can't be counted and is not set aside; else it is passed over.
    is_strict: bool
    #: How long a resolved hold is remembered.
    remembered_seconds: int


class ReadUpTo(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """How far one is."""

    partition: int
    offset: int


class OfTenant(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A tenant's state at the end."""

    partition: int
    tenant_id: str
    live: LiveTenant


class OfMinute(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """How the holds of a minute ended."""

    partition: int
    minute: str
    ended: Ended


class Over(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One is done: every record below the cursor is in the state that was told."""

    partition: int
    cursor: int


Word = ReadUpTo | OfTenant | OfMinute | Over


def run_errands(errands: Sequence[Errand], reader: LogReader, slices: Slices, entries_max: int) -> Iterator[Word]:
    """Fold them all at once, in one thread; `entries_max` holds and counters in memory end all of them where they are.

    Tells how far it is at least every READ_SECONDS. Raises LogUnavailableError, and IntegrityError when an offset is
    gone. Blocks.
    """
    left = {each.partition: _Work.of(each, slices) for each in errands}
    reader.assign({work.place: work.errand.first for work in left.values()})
    empty_reads = 0
    while left:
        runs = reader.consume_runs(limits.REBUILD_SLICE_RECORDS, READ_SECONDS)
        empty_reads = 0 if runs else empty_reads + 1
        if empty_reads > EMPTY_READS_MAX:
            raise LogUnavailableError("the log gives out nothing below its end")
        for run in runs:
            if run.partition in left:
                left[run.partition].put(run)
        if sum(work.fold.size for work in left.values()) > entries_max:
            for work in left.values():
                work.end = work.cursor
        yield from _advance(left, reader, is_idle=not runs)


def _advance(left: dict[int, _Work], reader: LogReader, *, is_idle: bool) -> Iterator[Word]:
    """Fold what has come, when it is enough; let go of what is done."""
    for number, work in list(left.items()):
        if work.is_ready or is_idle:
            work.fold_in()
            yield ReadUpTo(number, work.cursor)
        if work.cursor >= work.end:
            reader.pause([work.place])
            del left[number]
            yield from work.told()


@dataclass(slots=True)
class _Work:
    """One errand, as far as it is."""

    errand: Errand
    place: Partition
    slices: Slices
    fold: LiveFold
    #: Next offset to fold in, and the one to end at.
    cursor: int
    end: int
    #: Next offset that must come.
    expected: int
    runs: list[Run] = field(default_factory=list)

    @classmethod
    def of(cls, errand: Errand, slices: Slices) -> _Work:
        """Nothing is read."""
        place, fold = Partition(BUDGETS.name, errand.partition), LiveFold(errand.remembered_seconds)
        return cls(errand, place, slices, fold, errand.first, errand.end, errand.first)

    @property
    def is_ready(self) -> bool:
        """Whether what has come makes a slice: decoding costs about the same for a few records as for hundreds."""
        return self.expected >= self.end or self.expected - self.cursor >= limits.REBUILD_SLICE_RECORDS

    def put(self, run: Run) -> None:
        """Take what has come. Where something is missing it ends: whether that is so, the sink finds out."""
        if self.expected >= self.end:
            return
        if run.offsets[0] != self.expected or run.offsets[-1] != self.expected + len(run) - 1:
            self.end = self.expected
            return
        taken = run[: self.end - self.expected]
        self.runs.append(taken)
        self.expected += len(taken)

    def fold_in(self) -> None:
        """Fold what has come below the end."""
        runs, self.runs = self.runs, []
        if not runs or self.cursor >= self.end:
            return
        found = self._read(runs)
        if found.unknown and self.errand.is_strict:
            self.end = self.expected = found.unknown[0]
            runs = [part for run in runs if len(part := run[: max(0, self.end - run.offsets[0])])]
            found = self._read(runs)
        for tenant_id, events in found.movements.by_tenant.items():
            self.fold.apply(tenant_id, events, self.expected)
        if runs:
            self.fold.forget(runs[-1][-1].timestamp_millis)
        self.cursor = self.expected

    def _read(self, runs: Sequence[Run]) -> Slice:
        return self.slices.read(self.place, runs, self.errand.topic_id, frozenset(self.errand.set_aside))

    def told(self) -> Iterator[Word]:
        """What came of it."""
        number = self.errand.partition
        for tenant_id, live in self.fold.tenants.items():
            yield OfTenant(number, tenant_id, live)
        for minute, ended in self.fold.ended.items():
            yield OfMinute(number, minute, ended)
        yield Over(number, self.cursor)
