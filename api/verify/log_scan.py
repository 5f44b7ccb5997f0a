"""Reads the whole log up to a barrier and folds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from processors.parity.totals import LogFold
from schemas.errors import LogUnavailableError
from schemas.ids import is_name, is_uuid
from schemas.topics import REQUESTS, TOPICS
from sinks.content import LogRow, Ranges
from sinks.runner.screen import Screen
from sinks.runner.seam import Decoded
from streams.codec import Codec
from streams.log import LogReader, LogRecord, Partition

CALL_TIMEOUT_SECONDS = 10.0
CONSUME_RECORDS_MAX = 1_000
#: Empty reads in a row, of one second each, after which the log is called stuck.
IDLE_READS_MAX = 30
Barrier = Mapping[Partition, int]
#: Takes a record, and whether its event is met for the first time; a repeated event is told again each time.
Taker = Callable[[LogRow, bool], object]
ALL_TOPICS = tuple(topic.name for topic in TOPICS)


def take_barrier(reader: LogReader, topics: Sequence[str] = ALL_TOPICS) -> dict[Partition, int]:
    """End offsets of all partitions of our topics, taken now; raises LogUnavailableError. Blocks.

    Those of requests are taken first: what is recorded with a COMPLETED below them is below the others, traffic or not.
    """
    partitions = reader.partitions(topics, CALL_TIMEOUT_SECONDS)
    first = [each for each in partitions if each.topic == REQUESTS.name]
    others = [each for each in partitions if each.topic != REQUESTS.name]
    return {**_ends(reader, first), **_ends(reader, others)}


def _ends(reader: LogReader, partitions: Sequence[Partition]) -> Barrier:
    return reader.end_offsets(partitions, CALL_TIMEOUT_SECONDS) if partitions else {}


class LogScan:
    """Reads and decodes the log as sinks do."""

    def __init__(self, reader: LogReader, codec: Codec) -> None:
        """`reader` is this scan's alone. Raises LogUnavailableError."""
        self._reader = reader
        self._screen = Screen(codec, "verify", takes_everything=True)
        self._topic_ids = reader.topic_ids(ALL_TOPICS, CALL_TIMEOUT_SECONDS)

    def fold(self, barrier: Barrier, takers: Sequence[Taker], progress: Callable[[int, int], None]) -> LogFold:
        """Fold every record below the barrier; `progress` takes records read and records in all.

        Raises LogUnavailableError when the log stops answering, IntegrityError when it no longer has its beginning.
        """
        begins = self._reader.begin_offsets(list(barrier), CALL_TIMEOUT_SECONDS)
        ranges = {partition: (begins[partition], end) for partition, end in barrier.items()}
        total = sum(after - first for first, after in ranges.values())
        fold, done = LogFold(), 0
        for rows in self.read(ranges):
            done += len(rows)
            for row in rows:
                is_new = _fold(fold, row)
                for take in takers:
                    take(row, is_new)
            progress(done, total)
        return fold

    def read(self, ranges: Ranges) -> Iterator[list[LogRow]]:
        """Every record of these ranges, in pages; raises LogUnavailableError and IntegrityError."""
        missing = {partition for partition, (first, after) in ranges.items() if after > first}
        idle = 0
        if missing:
            self._reader.assign({partition: ranges[partition][0] for partition in missing})
        while missing:
            records = self._reader.consume(CONSUME_RECORDS_MAX, 1.0)
            idle = 0 if records else idle + 1
            if idle > IDLE_READS_MAX:
                words = f"no records for {IDLE_READS_MAX} s, with {len(missing)} partitions unfinished"
                raise LogUnavailableError(words)
            inside = []
            for record in records:
                partition = Partition(record.topic, record.partition)
                if record.offset + 1 >= ranges[partition][1]:
                    missing.discard(partition)
                if record.offset < ranges[partition][1]:
                    inside.append(self._row(record))
            yield inside

    def _row(self, record: LogRecord) -> LogRow:
        topic_id = self._topic_ids[record.topic]
        screened = self._screen.screen(record, topic_id, 0)
        fields = screened.fields if isinstance(screened, Decoded) and _is_named(screened.fields) else None
        return LogRow(record, topic_id, fields)


def _is_named(fields: Mapping[str, Any]) -> bool:
    """Whether an event says which it is and whose; else sinks set it aside, and the audit log enters its bytes."""
    return is_uuid(fields["event_id"]) and is_name(fields["tenant_id"])


def _fold(fold: LogFold, row: LogRow) -> bool:
    """Whether the record holds an event that was not met before."""
    if row.fields is None:
        fold.add_undecodable(row.record.topic)
        return False
    return fold.add(row.record.topic, row.fields)
