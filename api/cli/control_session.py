"""One sitting at the control plane: fold the control topic to its end, decide, publish, wait until it is recorded."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from api.settings import Settings
from processors.control import ControlState, Origin, Refusal, RefusalCode, evolve, evolve_all
from schemas.errors import IntegrityError, LogError, LogUnavailableError, QuaestorError, UndecodableError
from schemas.events import ControlEvent
from schemas.ids import RANDOM_BYTES_PER_UUID7, uuid7
from schemas.limits import CONSUME_BATCH_RECORDS, DELIVERY_TIMEOUT_SECONDS
from schemas.topics import CONTROL
from streams.codec import Codec
from streams.log import LogReader, LogRecord, Partition, Publisher
from streams.records import event_of, outgoing

ASK_SECONDS_MAX = 10.0
READ_SECONDS_MAX = 60.0
CONSUME_SECONDS = 0.5
CONNECT_SECONDS = 3.0
NANOS_PER_MICRO = 1_000

Decide = Callable[[ControlState, Origin], ControlEvent | Refusal]


class ControlRefusedError(QuaestorError):
    """A change of the control plane was refused."""

    def __init__(self, refusal: Refusal) -> None:
        """Carry the refusal; its message is the one line a person sees."""
        super().__init__(refusal.message)
        self.refusal = refusal


class ControlSession:
    """The control plane as of the end of its topic, and changes to it."""

    def __init__(self, publisher: Publisher, reader: LogReader, codec: Codec, actor: str) -> None:
        """`actor` stands on every event. Nothing is read yet, see `refresh`."""
        self._publisher = publisher
        self._reader = reader
        self._codec = codec
        self._actor = actor
        self._cursor: int | None = None
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
        state, events = self.refresh(), []
        for decide in decides:
            event = decide(state, self._origin(None))
            if isinstance(event, ControlEvent):
                events.append(event)
                state = evolve(state, event)
            elif event.code is not RefusalCode.UNCHANGED:
                raise ControlRefusedError(event)
        if events:
            self._publish(events)
        return events

    def _origin(self, reason: str | None) -> Origin:
        now_micros = time.time_ns() // NANOS_PER_MICRO
        event_id = uuid7(now_micros, os.urandom(RANDOM_BYTES_PER_UUID7))
        return Origin(event_id=event_id, now_micros=now_micros, actor=self._actor, reason=reason)

    def _publish(self, events: Sequence[ControlEvent]) -> None:
        done = threading.Event()
        faults: list[LogError] = []

        def finished(fault: LogError | None) -> None:
            if fault is not None:
                faults.append(fault)
            done.set()

        self._publisher.publish([outgoing(self._codec, event) for event in events], finished)
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
                yield event


def _unknown() -> NoReturn:
    raise LogUnavailableError(
        "Kafka did not answer in time: the change may or may not be recorded, look before trying again"
    )


@contextlib.contextmanager
def control_session(settings: Settings, actor: str | None = None) -> Iterator[ControlSession]:
    """A session on the Kafka of these settings, folded to the end; raises LogError when it can't be reached."""
    from streams.kafka import KafkaPublisher, KafkaReader  # noqa: PLC0415 - keeps the other commands fast
    from streams.registry import RegistrySchemas  # noqa: PLC0415 - likewise

    require_kafka(settings.kafka_bootstrap)
    publisher = KafkaPublisher(settings.kafka_bootstrap, linger_milliseconds=0, client_id="quaestor-cli")
    reader = KafkaReader(settings.kafka_bootstrap, "quaestor-cli")
    try:
        codec = Codec(RegistrySchemas(settings.registry_url))
        session = ControlSession(publisher, reader, codec, actor or f"cli/{os.getuid()}")
        session.refresh()
        yield session
    finally:
        reader.close()
        publisher.close()


def require_kafka(bootstrap: str) -> None:
    """Raise LogUnavailableError at once when nobody listens, instead of a Kafka client that tries and logs for long."""
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        with contextlib.suppress(OSError, ValueError):
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
            return
    raise LogUnavailableError(
        f"no Kafka answers at {bootstrap}: `quaestor up` starts it, or set QUAESTOR_KAFKA_BOOTSTRAP"
    )
