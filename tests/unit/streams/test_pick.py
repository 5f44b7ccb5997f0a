"""Single records by their places."""

from __future__ import annotations

from streams.log import OutgoingRecord, Partition
from streams.memory import MemoryLog
from streams.pick import GAP_RECORDS_MAX, pick

TOPIC = "quaestor.budgets"
AT = Partition(TOPIC, 0)
RECORDS = 3 * GAP_RECORDS_MAX
SECONDS = 20.0


def filled() -> MemoryLog:
    """A log with one partition of many records."""
    log = MemoryLog({TOPIC: 1})
    log.publisher().publish(
        [OutgoingRecord(TOPIC, b"key", b"%d" % number, ()) for number in range(RECORDS)], lambda _: None
    )
    return log


def test_exactly_what_was_asked_for_is_read() -> None:
    """Near each other and far apart, each record is that of its place."""
    wanted = [(AT, offset) for offset in (0, 3, RECORDS - 1)]

    found = pick(filled().reader(), wanted, SECONDS)

    assert {(AT, 0): b"0", (AT, 3): b"3", (AT, RECORDS - 1): b"%d" % (RECORDS - 1)} == {
        at: record.value for at, record in found.items()
    }


def test_what_retention_took_is_left_out() -> None:
    """A record that is gone does not keep the others from being told."""
    log = filled()
    log.truncate(AT, 10)

    assert {} == pick(log.reader(), [(AT, 3)], SECONDS)
    assert [(AT, 12)] == list(pick(log.reader(), [(AT, 12)], SECONDS))


def test_a_log_that_is_away_gives_nothing() -> None:
    """No fault: whoever asks can do without."""
    log = filled()
    log.away = True

    assert {} == pick(log.reader(), [(AT, 3)], SECONDS)


def test_what_is_not_there_yet_is_given_up() -> None:
    """Nothing came for so long; what was found stays found."""
    assert [(AT, 1)] == list(pick(filled().reader(), [(AT, 1), (AT, RECORDS)], 0.2))
