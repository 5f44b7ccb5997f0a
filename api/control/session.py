"""One sitting at the control plane: fold the control topic to its end, decide, publish, wait until it is recorded."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, NoReturn

from processors.control import ControlState, Origin, Refusal, RefusalCode, evolve, evolve_all
from processors.control.repeats import difference, origin_of, state_before
from schemas.errors import IntegrityError, LogError, LogUnavailableError, QuaestorError, UndecodableError
from schemas.events import ControlEvent
from schemas.ids import RANDOM_BYTES_PER_UUID7, uuid7
from schemas.limits import CONSUME_BATCH_RECORDS, CONTROL_WRITES_REMEMBERED, DELIVERY_TIMEOUT_SECONDS
from schemas.topics import CONTROL
from streams.codec import Codec
from streams.log import LogReader, LogRecord, Partition, Publisher
from streams.records import event_of, marked, outgoing, write_of

ASK_SECONDS_MAX = 10.0
READ_SECONDS_MAX = 60.0
CONSUME_SECONDS = 0.5
NANOS_PER_MICRO = 1_000

Decide = Callable[[ControlState, Origin], ControlEvent | Refusal]


class Write(NamedTuple):
    """Changes that are made together and, however often they are asked for, once."""

    #: The same each time (a uuid).
    write_id: str
    #: Who stands on its events.
    actor: str
    #: Each on the state that the one before leaves.
    decides: Sequence[Decide]
    reason: str | None = None


class ControlRefusedError(QuaestorError):
    """A change of the control plane was refused."""

    def __init__(self, refusal: Refusal) -> None:
        """Carry the refusal; its message is the one line a person sees."""
        super().__init__(refusal.message)
        self.refusal = refusal


class WriteReusedError(QuaestorError):
    """Something else was written under this id."""

    def __init__(self, field: str) -> None:
        """Carry the field in which it differs."""
        super().__init__(f"something else was written under this id: {field} differs")
        self.field = field


class ControlSession:
    """The control plane as of the end of its topic, and changes to it."""

    def __init__(self, publisher: Publisher, reader: LogReader, codec: Codec, actor: str) -> None:
        """`actor` stands on every event. Nothing is read yet, see `refresh`."""
        self._publisher = publisher
        self._reader = reader
        self._codec = codec
        self._actor = actor
        self._cursor: int | None = None
        #: The newest writes, the oldest first: how many events each has, and those that were read.
        self._writes: OrderedDict[str, tuple[int, list[ControlEvent]]] = OrderedDict()
        #: The fold so far.
        self.state = ControlState()

    @property
    def next_offset(self) -> int:
        """The offset after the last record that is folded."""
        return self._cursor or 0

    def refresh(self) -> ControlState:
        """Fold up to the end offset taken now; raises LogError. Blocks."""
        partition = self._partition()
        end = self._reader.end_offsets([partition], ASK_SECONDS_MAX)[partition]
        if self._cursor is None:
            self._cursor = self._reader.begin_offsets([partition], ASK_SECONDS_MAX)[partition]
            # Once: the reader goes on where it is, and assigning again costs seconds while a fetch is under way.
            self._reader.assign({partition: self._cursor})
        deadline = time.monotonic() + READ_SECONDS_MAX
        while self._cursor < end:
            if time.monotonic() > deadline:
                raise LogUnavailableError(f"the control topic could not be read within {READ_SECONDS_MAX:.0f} seconds")
            # Exactly what is there: a reader waits for more than that until its time is up.
            wanted = min(CONSUME_BATCH_RECORDS, end - self._cursor)
            records = self._reader.consume(wanted, CONSUME_SECONDS)
            self.state = evolve_all(self.state, self._events(records))
            self._cursor = records[-1].offset + 1 if records else self._cursor
        return self.state

    def change(self, decide: Decide, reason: str | None = None) -> ControlEvent:
        """Decide on the newest state, publish, and wait until it is recorded; returns the event.

        Raises ControlRefusedError when it is refused, LogError when it could not be recorded. Blocks.
        """
        self.refresh()
        event = decide(self.state, self._origin(reason))
        if isinstance(event, Refusal):
            raise ControlRefusedError(event)
        self._publish([event])
        return event

    def settle(self, decide: Decide, reason: str | None = None) -> ControlEvent | None:
        """As `change`, but None where the change is made already."""
        try:
            return self.change(decide, reason)
        except ControlRefusedError as error:
            if error.refusal.code is RefusalCode.UNCHANGED:
                return None
            raise

    def settle_all(self, decides: Sequence[Decide]) -> list[ControlEvent]:
        """Make several changes, each on the state that the one before leaves, recorded together; those still needed."""
        events = self._decided(self.refresh(), decides, lambda: self._origin(None))
        if events:
            self._publish(events)
        return events

    def write(self, write: Write) -> list[ControlEvent]:
        """As `settle_all`; a write that was made before is answered with the events that it made then.

        Raises WriteReusedError when what was made is not what is asked for now. The newest CONTROL_WRITES_REMEMBERED
        writes of the log are known; one that is older, and one that changed nothing, is made anew.
        """
        state = self.refresh()
        expected, made = self._writes.get(write.write_id, (0, []))
        rest = _unmade(state, write, made)
        if made and len(made) >= expected:
            return made
        events = self._decided(state, rest, lambda: self._origin(write.reason, write.actor))
        if events:
            self._publish(events, (write.write_id, len(made) + len(events)))
        return [*made, *events]

    @staticmethod
    def _decided(state: ControlState, decides: Sequence[Decide], origin: Callable[[], Origin]) -> list[ControlEvent]:
        events = []
        for decide in decides:
            event = decide(state, origin())
            if isinstance(event, ControlEvent):
                events.append(event)
                state = evolve(state, event)
            elif event.code is not RefusalCode.UNCHANGED:
                raise ControlRefusedError(event)
        return events

    def _origin(self, reason: str | None, actor: str | None = None) -> Origin:
        now_micros = time.time_ns() // NANOS_PER_MICRO
        event_id = uuid7(now_micros, os.urandom(RANDOM_BYTES_PER_UUID7))
        return Origin(event_id=event_id, now_micros=now_micros, actor=actor or self._actor, reason=reason)

    def _publish(self, events: Sequence[ControlEvent], write: tuple[str, int] | None = None) -> None:
        records = [outgoing(self._codec, event) for event in events]
        if write is not None:
            records = [marked(record, *write) for record in records]
        done = threading.Event()
        faults: list[LogError] = []

        def finished(fault: LogError | None) -> None:
            if fault is not None:
                faults.append(fault)
            done.set()

        self._publisher.publish(records, finished)
        if not done.wait(2 * DELIVERY_TIMEOUT_SECONDS):
            _unknown()
        if faults:
            raise faults[0]

    def _partition(self) -> Partition:
        found = self._reader.partitions([CONTROL.name], ASK_SECONDS_MAX)
        if len(found) != 1:
            raise IntegrityError(f"{CONTROL.name} has {len(found)} partitions instead of one")
        return found[0]

    def _events(self, records: list[LogRecord]) -> Iterator[ControlEvent]:
        """The events of records; one that can't be read is passed over, as every other reader of the topic does."""
        for record in records:
            try:
                event = event_of(self._codec, record)
            except UndecodableError:
                continue
            if isinstance(event, ControlEvent):
                self._remember(event, write_of(record.headers))
                yield event

    def _remember(self, event: ControlEvent, write: tuple[str, int] | None) -> None:
        """Know the write again; the oldest is forgotten when there are too many.

        Two processes that were asked at once may both have made it: what came first is what was made.
        """
        if write is None:
            return
        write_id, expected = write
        _, made = self._writes.pop(write_id, (0, []))
        self._writes[write_id] = (expected, [*made, event][:expected])
        if len(self._writes) > CONTROL_WRITES_REMEMBERED:
            self._writes.popitem(last=False)


def _unmade(state: ControlState, write: Write, made: Sequence[ControlEvent]) -> list[Decide]:
    """The decisions that none of the events made came of; raises WriteReusedError for an event that came of none."""
    rest = list(write.decides)
    for event in made:
        before, origin = state_before(state, event), origin_of(event, write.reason)
        differences = [difference(event, decide(before, origin)) for decide in rest]
        if None not in differences:
            raise WriteReusedError(next((name for name in differences if name != "operation"), None) or "operation")
        del rest[differences.index(None)]
    return rest


def _unknown() -> NoReturn:
    raise LogUnavailableError(
        "Kafka did not answer in time: the change may or may not be recorded, look before trying again"
    )
