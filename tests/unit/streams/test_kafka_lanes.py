"""Lanes: the records of a partition from their coming to their end."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatch

from schemas.errors import LogError, LogUnavailableError, RecordRefusedError
from streams.kafka.batches import BATCH_BYTES_MAX, written
from streams.kafka.lanes import Group, Lane
from streams.kafka.requests import Identity
from streams.log import OutgoingRecord

WE, OTHERS = Identity(1, 0), Identity(2, 0)
LATE = 100.0
NOW_MILLIS = 1_700_000_000_000


class Ends:
    """How groups ended, in that order."""

    def __init__(self) -> None:
        """None yet."""
        self.faults: list[LogError | None] = []

    def group(self, records: int = 1, until: float = LATE) -> Group:
        """A group whose end is kept."""
        return Group(records, until, self.faults.append)


@pytest.fixture
def lane() -> Lane:
    """Of a topic's first partition."""
    return Lane("topic", 0)


@pytest.fixture
def ends() -> Ends:
    """Nothing ended yet."""
    return Ends()


def body(value: bytes) -> bytes:
    """A record."""
    return written(OutgoingRecord("topic", b"key", value, ()))[2]


def fill(lane: Lane, ends: Ends, *values: bytes) -> None:
    """Records of a group each."""
    for value in values:
        lane.add(body(value), ends.group())


def taken(lane: Lane, identity: Identity = WE) -> tuple[int, int, list[bytes]]:
    """Producer, first sequence number and values of the batch that would be sent."""
    found = DefaultRecordBatch(lane.take(identity, NOW_MILLIS))
    return found.producer_id, found.base_sequence, [record.value for record in found]


def test_what_waits_goes_together_and_numbers_go_on(lane: Lane, ends: Ends) -> None:
    """The next batch begins with the number after the last record that stands."""
    fill(lane, ends, b"a", b"b")
    assert (1, 0, [b"a", b"b"]) == taken(lane)
    lane.accepted()
    fill(lane, ends, b"c")

    assert (1, 2, [b"c"]) == taken(lane)
    assert [None, None] == ends.faults


def test_a_batch_without_an_answer_is_sent_again_as_it_was(lane: Lane, ends: Ends) -> None:
    """Byte for byte, whatever came meanwhile: so the broker knows it."""
    fill(lane, ends, b"a")
    first = lane.take(WE, NOW_MILLIS)
    fill(lane, ends, b"b")

    assert first == lane.take(WE, NOW_MILLIS + 1)


def test_another_identity_begins_again_with_what_is_open(lane: Lane, ends: Ends) -> None:
    """Numbers count from 0 for each producer; records keep their order."""
    fill(lane, ends, b"a")
    taken(lane)
    lane.accepted()
    fill(lane, ends, b"b")
    taken(lane)
    fill(lane, ends, b"c")

    assert (2, 0, [b"b", b"c"]) == taken(lane, OTHERS)


def test_a_batch_is_bounded(lane: Lane, ends: Ends) -> None:
    """What does not fit waits; what is too large for any goes alone."""
    half = b"x" * (BATCH_BYTES_MAX // 2)
    fill(lane, ends, half, b"small", half, b"x" * 2 * BATCH_BYTES_MAX, b"last")

    sizes = []
    while lane.has_work:
        sizes.append([len(value) for value in taken(lane)[2]])
        lane.accepted()

    assert [[len(half), 5], [len(half)], [2 * BATCH_BYTES_MAX], [4]] == sizes


def test_of_a_refused_batch_each_record_is_tried_alone(lane: Lane, ends: Ends) -> None:
    """Only the one at fault fails, and no number is left out."""
    fill(lane, ends, b"good", b"bad", b"also good")
    taken(lane)
    lane.refused(RecordRefusedError())
    fill(lane, ends, b"later")

    assert (1, 0, [b"good"]) == taken(lane)
    lane.accepted()
    assert (1, 1, [b"bad"]) == taken(lane)
    lane.refused(RecordRefusedError())
    assert (1, 1, [b"also good"]) == taken(lane)
    lane.accepted()
    assert (1, 2, [b"later"]) == taken(lane)
    assert [type(fault) for fault in ends.faults] == [type(None), RecordRefusedError, type(None)]


def test_what_was_never_sent_expires_without_harm(lane: Lane, ends: Ends) -> None:
    """The identity is still good."""
    lane.add(body(b"old"), ends.group(until=1.0))
    fill(lane, ends, b"new")

    assert not lane.expire(1.0, LogUnavailableError())
    assert (1, 0, [b"new"]) == taken(lane)
    assert [LogUnavailableError] == [type(fault) for fault in ends.faults]


def test_what_the_broker_may_have_expires_with_the_identity(lane: Lane, ends: Ends) -> None:
    """Its numbers may be used up or not: nobody knows; what was sent with it and is not overdue goes again."""
    lane.add(body(b"old"), ends.group(until=1.0))
    fill(lane, ends, b"young")
    taken(lane)

    assert lane.expire(1.0, LogUnavailableError())
    assert (2, 0, [b"young"]) == taken(lane, OTHERS)


def test_a_group_ends_once_with_its_first_fault() -> None:
    """When its last record has ended, not before."""
    ends, first = Ends(), RecordRefusedError("first")
    group = ends.group(records=3)
    group.ended(None)
    group.ended(first)
    assert [] == ends.faults

    group.ended(LogUnavailableError("second"))

    assert [first] == ends.faults


def test_only_the_batch_that_is_out_is_waited_for(lane: Lane, ends: Ends) -> None:
    """A former leader's late answer is of none."""
    lane.add(b"first", ends.group())
    first = lane.take(WE, NOW_MILLIS)
    assert lane.awaits(first)
    lane.accepted()
    lane.add(b"second", ends.group())

    second = lane.take(WE, NOW_MILLIS)

    assert (False, True) == (lane.awaits(first), lane.awaits(second))
