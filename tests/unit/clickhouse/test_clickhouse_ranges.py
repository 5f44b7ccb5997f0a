"""Reading a planned range again, exactly."""

from __future__ import annotations

from itertools import groupby

import pytest

from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.clickhouse.ranges import LogRangeReader
from streams.log import Partition
from streams.memory import MemoryLog
from tests.support.stories import codec, outgoing, request_story

ENCODER = codec()


def filled() -> tuple[MemoryLog, Partition]:
    """A log of twenty requests, and the costs partition that has most of them."""
    log = MemoryLog()
    for number in range(20):
        for record in outgoing(ENCODER, request_story(number)):
            log.append(record)
    ends = {Partition("quaestor.costs", number): log.end(Partition("quaestor.costs", number)) for number in range(6)}
    return log, max(ends, key=lambda partition: ends[partition])


async def test_exactly_the_range_without_its_exclusions() -> None:
    """First inclusive, last exclusive, excluded ones out."""
    log, partition = filled()
    records = await LogRangeReader(log.reader, ENCODER).read(partition, 1, log.end(partition), {2})

    assert [1, *range(3, log.end(partition))] == [record.offset for record in records]
    assert all("event_id" in record.fields for record in records)
    assert 1 == len(list(groupby(record.record.partition for record in records)))


async def test_a_range_the_log_no_longer_has_is_a_fault() -> None:
    """Retention took it: never a silent gap."""
    log, partition = filled()
    log.truncate(partition, 2)
    with pytest.raises(IntegrityError):
        await LogRangeReader(log.reader, ENCODER).read(partition, 0, 3, ())


async def test_a_range_beyond_the_end_is_a_fault() -> None:
    """Another log: what was planned must be there."""
    log, partition = filled()
    with pytest.raises(IntegrityError):
        await LogRangeReader(log.reader, ENCODER).read(partition, 0, log.end(partition) + 1, ())


async def test_a_log_that_is_away_is_asked_again_later() -> None:
    """The runner repeats the claim."""
    log, partition = filled()
    log.away = True
    with pytest.raises(StoreUnavailableError):
        await LogRangeReader(log.reader, ENCODER).read(partition, 0, 1, ())
