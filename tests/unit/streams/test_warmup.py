"""Where reading begins so that a state is whole at a position."""

from __future__ import annotations

import pytest

from schemas.topics import CONTROL
from streams.log import OutgoingRecord, Partition
from streams.memory import MemoryLog
from streams.warmup import warm_up_offsets

AT = Partition(CONTROL.name, 0)
HOUR = 3_600
START_MILLIS = 1_700_000_000_000


def log_of_hours(hours: int) -> MemoryLog:
    """One record an hour."""
    now = [START_MILLIS]
    log = MemoryLog(clock_millis=lambda: now[0])
    for _ in range(hours):
        log.publisher().publish([OutgoingRecord(CONTROL.name, b"k", b"v", ())], lambda _: None)
        now[0] += HOUR * 1_000
    return log


@pytest.mark.parametrize("stood_still_hours", [0, 1, 30, 500])
@pytest.mark.parametrize("position", [0, 1, 50, 100])
def test_everything_younger_than_the_warm_up_is_read(position: int, stood_still_hours: int) -> None:
    """At least the hours asked for before the record at the position, however old that record is by now."""
    log = log_of_hours(100)
    now_millis = START_MILLIS + (100 + stood_still_hours) * HOUR * 1_000

    start = warm_up_offsets(log.reader(), {AT: position}, {AT: 100}, 5 * HOUR, now_millis)[AT]

    assert start <= max(position - 5, 0) or position == 100
    assert start <= position


def test_a_stream_that_keeps_up_reads_little_more() -> None:
    """Its position is young: the warm-up and no more."""
    log = log_of_hours(100)

    start = warm_up_offsets(log.reader(), {AT: 100}, {AT: 100}, 5 * HOUR, START_MILLIS + 100 * HOUR * 1_000)[AT]

    assert start == 95
