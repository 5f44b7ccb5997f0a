"""Reads the whole log up to a barrier and folds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from processors.parity.totals import LogFold
from schemas.errors import LogUnavailableError, SchemaUnknownError, UndecodableError
from schemas.topics import TOPICS
from streams.codec import Codec
from streams.log import LogReader, Partition

CALL_TIMEOUT_SECONDS = 10.0
CONSUME_RECORDS_MAX = 1_000
#: Empty reads in a row, of one second each, after which the log is called stuck.
IDLE_READS_MAX = 30
Barrier = Mapping[Partition, int]


def take_barrier(reader: LogReader) -> dict[Partition, int]:
    """End offsets of all our partitions, taken now; raises LogUnavailableError."""
    partitions = reader.partitions([topic.name for topic in TOPICS], CALL_TIMEOUT_SECONDS)
    return reader.end_offsets(partitions, CALL_TIMEOUT_SECONDS)


def scan(reader: LogReader, codec: Codec, barrier: Barrier, progress: Callable[[int, int], None]) -> LogFold:
    """Fold every record below the barrier; `progress` takes records read and records in all.

    Raises LogUnavailableError when the log stops answering, IntegrityError when it no longer has its beginning.
    """
    begins = reader.begin_offsets(list(barrier), CALL_TIMEOUT_SECONDS)
    missing = {partition for partition, end in barrier.items() if end > begins[partition]}
    total = sum(end - begins[partition] for partition, end in barrier.items())
    fold, done, idle = LogFold(), 0, 0
    if missing:
        reader.assign({partition: begins[partition] for partition in missing})
    while missing:
        records = reader.consume(CONSUME_RECORDS_MAX, 1.0)
        idle = 0 if records else idle + 1
        if idle > IDLE_READS_MAX:
            raise LogUnavailableError(f"no records for {IDLE_READS_MAX} s, with {len(missing)} partitions unfinished")
        for record in records:
            partition = Partition(record.topic, record.partition)
            if record.offset >= barrier[partition]:
                missing.discard(partition)
                continue
            done += 1
            _take(fold, codec, record.topic, record.value)
            if record.offset == barrier[partition] - 1:
                missing.discard(partition)
        progress(done, total)
    return fold


def _take(fold: LogFold, codec: Codec, topic: str, value: bytes | None) -> None:
    try:
        fold.add(topic, codec.decode(topic, value or b""))
    except (UndecodableError, SchemaUnknownError):
        fold.add_undecodable(topic)
