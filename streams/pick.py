"""Reads single records of the log by their places, in few rounds, for as long as something comes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from schemas.errors import IntegrityError, LogUnavailableError
from streams.log import LogReader, LogRecord, Partition

#: Partition and offset of a record.
At = tuple[Partition, int]
CONSUME_RECORDS_MAX = 1_000
CONSUME_SECONDS = 0.1
#: Reading over so many records costs less than fetching anew.
GAP_RECORDS_MAX = 500


def pick(reader: LogReader, wanted: Collection[At], idle_seconds_max: float) -> dict[At, LogRecord]:
    """The records at these places; without those that are no longer there, or when nothing comes for so long. Blocks.

    `reader` is this call's alone for as long as it runs.
    """
    found: dict[At, LogRecord] = {}
    for together in _rounds(wanted):
        try:
            _read(reader, together, found, idle_seconds_max)
        except (IntegrityError, LogUnavailableError):
            return found
    return found


def _rounds(wanted: Collection[At]) -> Iterator[dict[Partition, list[int]]]:
    """The offsets by partition, in rounds: within one, those of a partition lie close together."""
    clusters: dict[Partition, list[list[int]]] = {}
    for partition, offset in sorted(wanted):
        of_partition = clusters.setdefault(partition, [[offset]])
        if offset - of_partition[-1][-1] > GAP_RECORDS_MAX:
            of_partition.append([offset])
        else:
            of_partition[-1].append(offset)
    for number in range(max((len(each) for each in clusters.values()), default=0)):
        yield {partition: each[number] for partition, each in clusters.items() if number < len(each)}


def _read(
    reader: LogReader, together: dict[Partition, list[int]], found: dict[At, LogRecord], idle_seconds_max: float
) -> None:
    left = {partition: frozenset(offsets) for partition, offsets in together.items()}
    reader.assign({partition: min(offsets) for partition, offsets in left.items()})
    heard_at = time.monotonic()
    while left and time.monotonic() - heard_at < idle_seconds_max:
        for record in reader.consume(CONSUME_RECORDS_MAX, CONSUME_SECONDS):
            partition = Partition(record.topic, record.partition)
            offsets = left.get(partition, frozenset())
            if record.offset in offsets:
                found[partition, record.offset] = record
            if offsets:
                heard_at = time.monotonic()
            if offsets and record.offset >= max(offsets):
                del left[partition]
