"""The stream runtime over the log in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from schemas.errors import IntegrityError, LogUnavailableError
from schemas.events import Event, QuarantinedRecord, QuarantineReason
from schemas.ids import derived_id
from schemas.topics import ALERTS, CONTROL, QUARANTINE
from streams.codec import Codec, LocalSchemas
from streams.log import LogRecord, OutgoingRecord, Partition
from streams.memory import MemoryLog
from streams.monitor import Monitor
from streams.records import event_of, outgoing
from streams.runtime import StreamRuntime
from tests.support.events import alert, control

HOUR_MILLIS = 3_600_000
CONTROL_PARTITION = Partition(CONTROL.name, 0)


class Counting:
    """Answers every control event with an alert that says how many came before it."""

    name = "counting"
    topics = (CONTROL.name,)
    warm_up_seconds = 0

    def __init__(self, warm_up_seconds: int = 0) -> None:
        """Its state is whole after `warm_up_seconds` of the past."""
        self.warm_up_seconds = warm_up_seconds
        self.ticks: list[bool] = []

    def initial(self, partition: int) -> int:
        """Nothing was counted; the one partition of control is 0."""
        return partition

    def evolve(self, state: int, event: Event) -> int:
        """One more."""
        return state + 1

    def decide(self, state: int, event: Event) -> Sequence[Event]:
        """The count, under an id that depends on the source alone."""
        event_id = derived_id(self.name, event.event_id, "ALERT", "")
        return (msgspec.structs.replace(alert(event_id), title=str(state)),)

    def tick(self, state: int, now_micros: int, caught_up: bool) -> Sequence[Event]:
        """Remember what it was told."""
        self.ticks.append(caught_up)
        return ()


class Stand:
    """A log, a processor and the runtime that drives it."""

    def __init__(self, warm_up_seconds: int = 0) -> None:
        """A fresh log at a fixed time."""
        self.now_millis = 1_700_000_000_000
        self.log = MemoryLog(clock_millis=lambda: self.now_millis)
        self.codec = Codec(LocalSchemas())
        self.processor = Counting(warm_up_seconds)
        self.reader = self.log.reader()

    def runtime(self, *, commits: bool = True) -> StreamRuntime:
        """A runtime that has joined; without commits it is one that dies before its commit."""
        self.group = self.log.group_reader("stream-counting")
        if not commits:
            self.group.commit_hint = lambda _: None  # type: ignore[method-assign] # the crash comes before it
        made = StreamRuntime(
            self.processor,
            self.group,
            self.log.publisher(),
            self.codec,
            Monitor("stream-counting"),
            clock_micros=lambda: self.now_millis * 1_000,
        )
        made.start()
        return made

    def send(self, *event_ids: str) -> None:
        """Write control events."""
        for event_id in event_ids:
            self.log.publisher().publish([outgoing(self.codec, control(event_id))], lambda _: None)

    def crash(self) -> None:
        """The member dies: its partitions are free, what it did not commit is not committed."""
        committed = dict(self.log.groups["stream-counting"].committed)
        self.group.close()
        self.log.groups["stream-counting"].committed = committed

    def published(self, topic: str) -> list[Any]:
        """The events on a topic."""
        records: list[LogRecord] = []
        for at, kept in self.log.records.items():
            records += kept if at.topic == topic else []
        return [event_of(self.codec, record) for record in records]


def test_every_record_is_decided_on_the_state_before_it() -> None:
    """Decide first, evolve after."""
    stand = Stand()
    stand.send("a", "b", "c")

    stand.runtime().turn()

    assert ["0", "1", "2"] == [event.title for event in stand.published(ALERTS.name)]


def test_the_position_is_committed_after_the_outcome_is_acknowledged() -> None:
    """The position follows the batch."""
    stand = Stand()
    stand.send("a", "b")

    stand.runtime().turn()

    assert {CONTROL_PARTITION: 2} == stand.log.groups["stream-counting"].committed


def test_a_crash_before_the_commit_repeats_the_same_ids() -> None:
    """What is decided twice has the same ids: distinct ids do not change."""
    stand = Stand()
    stand.send("a", "b", "c")
    stand.runtime(commits=False).turn()
    once = {event.event_id for event in stand.published(ALERTS.name)}
    stand.crash()

    stand.runtime().turn()

    again = [event.event_id for event in stand.published(ALERTS.name)]
    assert len(again) == 6
    assert once == set(again)


def test_warm_up_makes_the_state_whole_without_deciding_again() -> None:
    """A new owner knows what came before its position, and says nothing about it."""
    stand = Stand(warm_up_seconds=3600)
    stand.send("a", "b")
    stand.runtime().turn()
    stand.crash()
    stand.send("c")

    stand.runtime().turn()

    assert ["0", "1", "2"] == [event.title for event in stand.published(ALERTS.name)]


def test_warm_up_reaches_back_from_the_position_not_from_now() -> None:
    """After days of standing still the state is that of the records before the position."""
    stand = Stand(warm_up_seconds=3600)
    stand.send("a", "b")
    stand.runtime().turn()
    stand.crash()
    stand.send("c")
    stand.now_millis += 72 * HOUR_MILLIS

    stand.runtime().turn()

    assert stand.published(ALERTS.name)[-1].title == "2"


def test_what_is_older_than_the_warm_up_is_left_out() -> None:
    """The state is that of the last hour."""
    stand = Stand(warm_up_seconds=3600)
    stand.send("a", "b")
    stand.now_millis += 72 * HOUR_MILLIS
    stand.send("c")
    stand.runtime().turn()
    stand.crash()
    stand.send("d")

    stand.runtime().turn()

    assert stand.published(ALERTS.name)[-1].title == "1"


def test_a_record_that_cannot_be_read_is_quarantined_and_passed() -> None:
    """Its bytes go to the quarantine under an id of its position, and the next record is decided."""
    stand = Stand()
    stand.log.publisher().publish([OutgoingRecord(CONTROL.name, b"key", b"nonsense", (("h", b"v"),))], lambda _: None)
    stand.send("a")

    stand.runtime().turn()

    (event,) = stand.published(QUARANTINE.name)
    assert isinstance(event, QuarantinedRecord)
    assert event.reason is QuarantineReason.UNDECODABLE
    assert (event.source_offset, event.value_bytes, event.key_bytes) == (0, b"nonsense", b"key")
    assert len(stand.published(ALERTS.name)) == 1


def test_a_record_under_another_key_is_quarantined() -> None:
    """The key must be that of the record's own fields."""
    stand = Stand()
    misplaced = outgoing(stand.codec, control("a"))._replace(key=b"somewhere/else")
    stand.log.publisher().publish([misplaced], lambda _: None)

    stand.runtime().turn()

    (event,) = stand.published(QUARANTINE.name)
    assert event.reason is QuarantineReason.SEMANTIC


def test_the_same_poison_has_the_same_id() -> None:
    """A repetition of the quarantine is a duplicate by id."""
    stand = Stand()
    stand.log.publisher().publish([OutgoingRecord(CONTROL.name, b"key", b"nonsense", ())], lambda _: None)

    for _ in range(2):
        stand.runtime(commits=False).turn()
        stand.crash()

    assert len({event.event_id for event in stand.published(QUARANTINE.name)}) == 1


def test_a_position_beyond_the_end_stops_the_stream() -> None:
    """A topic that was made anew is not taken for the old one."""
    stand = Stand()
    stand.send("a", "b")
    stand.runtime().turn()
    stand.crash()
    stand.log.recreate(CONTROL.name)

    with pytest.raises(IntegrityError):
        stand.runtime().turn()


def test_a_tick_knows_whether_everything_is_read() -> None:
    """Caught up once the batch reached the end taken after it."""
    stand = Stand()
    stand.send("a")

    stand.runtime().turn()

    assert [True] == stand.processor.ticks


def test_a_log_that_is_away_loses_nothing() -> None:
    """The fault comes out, and the next turn goes on where it stood."""
    stand = Stand()
    stand.send("a")
    runtime = stand.runtime()
    runtime.turn()
    stand.send("b")
    stand.log.away = True
    with pytest.raises(LogUnavailableError):
        runtime.turn()
    stand.log.away = False

    runtime.turn()

    assert ["0", "1"] == [event.title for event in stand.published(ALERTS.name)]


def test_a_traceparent_passes_through() -> None:
    """What follows from a record carries its trace."""
    stand = Stand()
    record = outgoing(stand.codec, control("a"), b"00-trace")
    stand.log.publisher().publish([record], lambda _: None)

    stand.runtime().turn()

    (derived,) = [kept for at, records in stand.log.records.items() if at.topic == ALERTS.name for kept in records]
    assert ("traceparent", b"00-trace") in derived.headers
