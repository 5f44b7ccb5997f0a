"""Records as they were consumed: runs of one partition, whose records are made when somebody asks for them.

A sink that catches up looks at a record's offset, key and value and at nothing else, for many records at once; an
object per record, with its fields and its headers, costs more than decoding it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, overload

from streams.log import LogRecord

_place_of = attrgetter("topic", "partition")


class Run(Sequence[LogRecord]):
    """Records of one partition in the order they were consumed; never empty."""

    __slots__ = ("_record", "_sources", "keys", "offsets", "partition", "topic", "values")

    def __init__(
        self,
        topic: str,
        partition: int,
        columns: tuple[Sequence[int], Sequence[bytes | None], Sequence[bytes | None]],
        sources: Sequence[Any],
        record: Callable[[Any], LogRecord],
    ) -> None:
        """`columns` are offsets, keys and values; `record` makes a record of the source at its place."""
        self.topic, self.partition = topic, partition
        self.offsets, self.keys, self.values = columns
        self._sources, self._record = sources, record

    def __len__(self) -> int:
        """How many records."""
        return len(self.offsets)

    @overload
    def __getitem__(self, place: int) -> LogRecord: ...
    @overload
    def __getitem__(self, place: slice) -> Run: ...
    def __getitem__(self, place: int | slice) -> LogRecord | Run:
        """One record, or a part of the run."""
        if isinstance(place, slice):
            columns = self.offsets[place], self.keys[place], self.values[place]
            return Run(self.topic, self.partition, columns, self._sources[place], self._record)
        return self._record(self._sources[place])

    @property
    def value_bytes(self) -> int:
        """Bytes of all values."""
        return sum(map(len, filter(None, self.values)))


def runs_of(records: Sequence[LogRecord]) -> list[Run]:
    """Records as runs, in their order."""
    found = []
    for (topic, partition), run in groupby(records, _place_of):
        of_run = list(run)
        columns = [each.offset for each in of_run], [each.key for each in of_run], [each.value for each in of_run]
        found.append(Run(topic, partition, columns, of_run, _itself))
    return found


def _itself(record: LogRecord) -> LogRecord:
    return record
