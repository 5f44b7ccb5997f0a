"""Reading a range of the log again: what a plan that was left open needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Protocol

from schemas.errors import IntegrityError, LogUnavailableError, StoreUnavailableError
from sinks.runner.seam import Decoded
from streams.codec import Codec
from streams.log import LogReader, LogRecord, Partition

RANGE_SECONDS = 30.0
POLL_SECONDS = 1.0
RECORDS_PER_POLL = 1_000


class RangeReader(Protocol):
    """Reads exactly a range of one partition."""

    async def read(self, partition: Partition, first: int, after: int, excluded: Collection[int]) -> list[Decoded]:
        """The decoded records of [first, after) without the excluded offsets.

        Raises IntegrityError when the log no longer has the range, StoreUnavailableError when it can't be read now.
        """


class LogRangeReader(RangeReader):
    """RangeReader over a reader of its own, opened for the purpose and closed after."""

    def __init__(self, open_reader: Callable[[], LogReader], codec: Codec) -> None:
        """`open_reader` makes a reader that nobody else uses."""
        self._open_reader = open_reader
        self._codec = codec

    async def read(self, partition: Partition, first: int, after: int, excluded: Collection[int]) -> list[Decoded]:
        """As the seam says."""
        try:
            return await asyncio.to_thread(self._read, partition, first, after, frozenset(excluded))
        except LogUnavailableError as error:
            raise StoreUnavailableError(f"a planned range can't be read again: {error}") from error

    def _read(self, partition: Partition, first: int, after: int, excluded: frozenset[int]) -> list[Decoded]:
        reader = self._open_reader()
        try:
            reader.assign({partition: first})
            return [self._decoded(each) for each in _until(reader, partition, after) if each.offset not in excluded]
        finally:
            reader.close()

    def _decoded(self, record: LogRecord) -> Decoded:
        return Decoded(record.offset, self._codec.decode(record.topic, record.value or b""), record)


def _until(reader: LogReader, partition: Partition, after: int) -> list[LogRecord]:
    """Records up to an offset; the end of the partition also ends it, since its last offsets may hold no records."""
    until = time.monotonic() + RANGE_SECONDS
    found: list[LogRecord] = []
    while not found or found[-1].offset + 1 < after:
        if time.monotonic() > until:
            raise LogUnavailableError(f"{partition} did not answer up to offset {after} within {RANGE_SECONDS} s")
        records = reader.consume(RECORDS_PER_POLL, POLL_SECONDS)
        found += [record for record in records if record.offset < after]
        if any(record.offset >= after for record in records):
            break
        if not records and reader.end_offsets([partition], RANGE_SECONDS)[partition] < after:
            raise IntegrityError(f"{partition} ends before offset {after}, which was planned: is it another log?")
    return found
