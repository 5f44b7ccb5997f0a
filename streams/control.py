"""ControlFollower: the control topic from its first record on, folded in a thread of its own.

Every gateway worker has one. It is also how a worker knows whether Kafka answers: it asks for the topic's end twice a
second, so a key that is revoked stops working within that time, and a log that is away is noticed without a request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from processors.control import ControlState, evolve_all
from schemas.errors import IntegrityError, LogError, UndecodableError
from schemas.events import ControlEvent
from schemas.topics import CONTROL
from streams.codec import Codec
from streams.log import LogReader, Partition
from streams.records import event_of

log = structlog.get_logger(__name__)

PARTITION = Partition(CONTROL.name, 0)
CONSUME_SECONDS = 0.1
CHECK_SECONDS = 0.5
ANSWER_SECONDS_MAX = 2.0
RETRY_SECONDS = 0.5
RECORDS_MAX = 1_000


class ControlFollower:
    """Folds and follows. `state` is replaced whole, so any thread may read it."""

    def __init__(self, reader: Callable[[], LogReader], codec: Codec) -> None:
        """`reader` makes the reader, inside the thread that will own it."""
        self._make_reader, self._codec = reader, codec
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._cursor = 0
        #: The fold so far.
        self.state = ControlState()
        #: Whether the topic has been read to its end once.
        self.caught_up = False
        #: Records between the cursor and the end, when last asked.
        self.lag_events = 0
        #: time.monotonic() of the question that Kafka last answered; 0 when it never did.
        self.answered_at = 0.0
        #: Whether Kafka answered when last asked.
        self.reachable = False

    def start(self) -> None:
        """Begin to read."""
        self._thread = threading.Thread(target=self._run, name="control-follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; blocks for as long as one question to Kafka may take."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(ANSWER_SECONDS_MAX + 1)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (LogError, IntegrityError) as error:
                self.reachable = False
                log.warning("control_unreadable", error=type(error).__name__, detail=str(error))
                self._stop.wait(RETRY_SECONDS)
            except Exception:  # the thread must not die silently: without it no key would ever be revoked
                self.reachable = False
                log.exception("control_follower_failed")
                self._stop.wait(RETRY_SECONDS)

    def _follow(self) -> None:
        reader = self._make_reader()
        try:
            reader.assign({PARTITION: self._cursor})
            self._check(reader)
            checked_at = time.monotonic()
            while not self._stop.is_set():
                self._take(reader)
                if time.monotonic() - checked_at >= CHECK_SECONDS or not self.caught_up:
                    self._check(reader)
                    checked_at = time.monotonic()
        finally:
            reader.close()

    def _take(self, reader: LogReader) -> None:
        records = reader.consume(RECORDS_MAX, CONSUME_SECONDS)
        if not records:
            return
        events = []
        for record in records:
            try:
                event = event_of(self._codec, record)
            except UndecodableError as error:  # as whoever writes the topic passes it over, and stores set it aside
                log.error("control_event_skipped", offset=record.offset, error=str(error))  # noqa: TRY400 - said in full
                continue
            if isinstance(event, ControlEvent):
                events.append(event)
        before = self.state.unreadable
        self.state = evolve_all(self.state, events)
        self._cursor = records[-1].offset + 1
        if self.state.unreadable > before:
            log.error("control_event_unreadable", events=self.state.unreadable - before)

    def _check(self, reader: LogReader) -> None:
        asked_at = time.monotonic()
        try:
            end = reader.end_offsets([PARTITION], ANSWER_SECONDS_MAX)[PARTITION]
        except LogError:
            if self.reachable:
                log.warning("log_away")
            self.reachable = False
            self._stop.wait(CONSUME_SECONDS)
            return
        self.reachable, self.answered_at = True, asked_at
        self.lag_events = max(0, end - self._cursor)
        if not self.caught_up and self.lag_events == 0:
            self.caught_up = True
            log.info("control_caught_up", offset=self._cursor)
