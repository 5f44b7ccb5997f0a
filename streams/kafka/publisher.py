"""KafkaPublisher: an idempotent producer whose delivery reports are served by one thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import LogError, LogUnavailableError
from schemas.limits import DELIVERY_TIMEOUT_SECONDS
from streams.kafka import configuration
from streams.kafka.client_log import ClientLog
from streams.log import Done, OutgoingRecord

POLL_SECONDS = 0.1
#: With this many records under way, reports are collected for a moment: each costs a change of threads otherwise, which
#: took 100 of 500 microseconds per request at 32 connections.
BUSY_RECORDS = 32
COLLECT_SECONDS = 0.001
LINGER_MILLISECONDS = 5.0


class KafkaPublisher:
    """Publisher on Kafka. A producer that failed for good is replaced; what it still held is done with the error."""

    def __init__(
        self, bootstrap: str, *, linger_milliseconds: float = LINGER_MILLISECONDS, client_id: str = "quaestor"
    ) -> None:
        """Connect in the background; `linger_milliseconds` is how long a batch waits to fill."""
        self._configuration = configuration.producer(bootstrap, client_id, linger_milliseconds)
        self._client_log = ClientLog()
        self._producer = self._connect()
        self._broken = threading.Event()
        self._closing = False
        self._open = 0
        self._quiet = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="kafka-publisher", daemon=True)
        self._thread.start()

    def publish(self, records: Sequence[OutgoingRecord], done: Done) -> None:
        """As the seam says."""
        total = len(records)
        if not total:
            done(None)
            return
        with self._quiet:
            self._open += total
        group = _Group(self, total, done)
        delivered, produce = group.delivered, self._producer.produce
        for index, (topic, key, value, headers) in enumerate(records):
            try:
                produce(topic, value, key, on_delivery=delivered, headers=list(headers))
            except (BufferError, KafkaException) as error:
                self._refuse(group, total - index, error)
                return

    def _refuse(self, group: _Group, records: int, error: BufferError | KafkaException) -> None:
        """The rest of a group was not taken: the group ends with this once what was taken is done."""
        if isinstance(error, KafkaException):
            fault = configuration.fault_of_exception(error)
            if error.args[0].fatal():
                self._broken.set()
        else:
            fault = LogUnavailableError("the producer's queue is full")
        for _ in range(records):
            group.ended(fault)

    def flush(self, timeout_seconds: float) -> int:
        """As the seam says."""
        with self._quiet:
            self._quiet.wait_for(lambda: self._open == 0, timeout_seconds)
            return self._open

    def close(self) -> None:
        """As the seam says."""
        self.flush(DELIVERY_TIMEOUT_SECONDS + 1)
        self._closing = True
        self._thread.join(DELIVERY_TIMEOUT_SECONDS)

    def finished(self, records: int) -> None:
        """Count a group out; called by the group."""
        with self._quiet:
            self._open -= records
            if self._open == 0:
                self._quiet.notify_all()

    def _connect(self) -> Any:
        return Producer(self._configuration | {"error_cb": self._failed})

    def _failed(self, error: KafkaError) -> None:
        """A client-wide error: worth a line now and then; a fatal one costs the producer."""
        self._client_log.log(logging.WARNING, "%s: %s", error.name(), error.str())
        if error.fatal():
            self._broken.set()

    def _serve(self) -> None:
        while not self._closing:
            self._producer.poll(POLL_SECONDS)
            if self._open > BUSY_RECORDS:
                time.sleep(COLLECT_SECONDS)
            if self._broken.is_set():
                self._replace()
        self._producer.purge()
        self._producer.poll(0)

    def _replace(self) -> None:
        """Give up the broken producer: every record it still holds is reported as failed, then a new one starts."""
        broken, self._producer = self._producer, self._connect()
        self._broken.clear()
        broken.purge()
        while len(broken):
            broken.poll(POLL_SECONDS)


class _Group:
    """The records of one publish call, counted down as they end, from whichever thread."""

    __slots__ = ("_done", "_ends", "_fault", "_publisher", "_total")

    def __init__(self, publisher: KafkaPublisher, total: int, done: Done) -> None:
        self._publisher, self._total, self._done = publisher, total, done
        self._fault: LogError | None = None
        # next() of a count is one atomic step, so exactly one caller sees the last number.
        self._ends = count(1)

    def delivered(self, error: KafkaError | None, _: object) -> None:
        """Take librdkafka's report on one record."""
        if error is not None:
            self.ended(configuration.fault_of(error))
        elif next(self._ends) == self._total:
            self._finish()

    def ended(self, fault: LogError) -> None:
        """One record failed."""
        self._fault = self._fault or fault
        if next(self._ends) == self._total:
            self._finish()

    def _finish(self) -> None:
        try:
            self._done(self._fault)
        finally:
            self._publisher.finished(self._total)
