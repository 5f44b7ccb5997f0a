"""The age of the oldest event that is not applied."""

from __future__ import annotations

from sinks.runner.ages import Ages
from streams.log import LogRecord, Partition
from streams.runs import runs_of

AT = Partition("topic", 0)
OTHER = Partition("topic", 1)


def record(partition: Partition, offset: int, millis: int) -> LogRecord:
    """One record of a time."""
    return LogRecord(partition.topic, partition.number, offset, millis, None, None, ())


def test_nothing_waits_where_everything_is_applied() -> None:
    """Old as the last event may be."""
    ages = Ages()
    ages.note(runs_of([record(AT, 0, 1_000)]))

    assert ages.oldest_millis({AT: 1}, {AT: 1}) is None


def test_the_oldest_partition_counts() -> None:
    """Not the newest event applied: one partition that stands still is seen beside another that flies."""
    ages = Ages()
    ages.note(runs_of([record(AT, 0, 1_000), record(OTHER, 0, 2_000)]))
    ages.note(runs_of([record(OTHER, 1, 9_000)]))

    assert ages.oldest_millis({AT: 0, OTHER: 1}, {AT: 1, OTHER: 2}) == 1_000


def test_it_moves_on_with_the_cursor() -> None:
    """What is applied no longer counts."""
    ages = Ages()
    for offset in range(10):
        ages.note(runs_of([record(AT, offset, 1_000 * offset)]))

    assert ages.oldest_millis({AT: 7}, {AT: 10}) == 7_000


def test_what_is_not_consumed_yet_is_no_older_than_it_says() -> None:
    """Then the time of what was applied last stands in for it."""
    ages = Ages()
    ages.note(runs_of([record(AT, 0, 1_000)]))

    assert ages.oldest_millis({AT: 1}, {AT: 50}) == 1_000


def test_a_partition_read_again_counts_from_there() -> None:
    """After a seek back the chunks behind it are as old as they are read again."""
    ages = Ages()
    ages.note(runs_of([record(AT, 0, 1_000)]))
    ages.note(runs_of([record(AT, 1, 2_000)]))
    ages.note(runs_of([record(AT, 0, 1_000)]))

    assert ages.oldest_millis({AT: 0}, {AT: 2}) == 1_000


def test_a_lost_partition_is_forgotten() -> None:
    """Its age is its new owner's to tell."""
    ages = Ages()
    ages.note(runs_of([record(AT, 0, 1_000)]))
    ages.forget([AT])

    assert ages.oldest_millis({}, {}) is None
