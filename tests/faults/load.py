"""Load for the fault suite: honest stories straight into Kafka, some of their events produced twice."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from schemas.errors import LogError
from streams.codec import Codec
from streams.kafka import KafkaPublisher
from streams.log import OutgoingRecord
from streams.registry import RegistrySchemas
from tests.support.stories import outgoing, price_book, request_story

TENANTS = 12
AMOUNTS_NANO = range(1_000, 1_007)
#: Part of the stories of which a part is produced again later, at other offsets, as a spool that is drained twice does.
REPEATED = 0.1
REMEMBERED_STORIES = 200
#: Records under way at most: a log that is away must not fill the producer's queue.
UNDER_WAY_MAX = 20_000
FLUSH_SECONDS = 60.0
RETRY_SECONDS = 0.05

#: Puts further records between those of a story, given its number.
Spoil = Callable[[int, Sequence[OutgoingRecord]], list[OutgoingRecord]]


def honest(_: int, records: Sequence[OutgoingRecord]) -> list[OutgoingRecord]:
    """Nothing but the story."""
    return list(records)


class Load:
    """Publishes stories at a steady pace from a thread of its own; what Kafka does not acknowledge is sent again."""

    def __init__(
        self, bootstrap: str, registry_url: str, random: Random, stories_per_second: float, spoil: Spoil = honest
    ) -> None:
        """Publishes from the start."""
        self._publisher = KafkaPublisher(bootstrap, client_id="fault-load")
        self._codec = Codec(RegistrySchemas(registry_url))
        self._random = random
        self._pace_seconds = 1.0 / stories_per_second
        self._remembered: deque[list[OutgoingRecord]] = deque(maxlen=REMEMBERED_STORIES)
        self._failed: deque[list[OutgoingRecord]] = deque()
        self._under_way = 0
        self._lock = threading.Lock()
        self._number = 0
        self.spoil = spoil
        #: Records acknowledged, those produced again included.
        self.acknowledged = 0
        #: Records produced a second time, at other offsets.
        self.repeated = 0
        self._go = threading.Event()
        self._idle = threading.Event()
        self._go.set()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="fault-load", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Stop publishing and wait until everything is acknowledged; raises TimeoutError when it is not."""
        self._go.clear()
        if not self._idle.wait(FLUSH_SECONDS):
            raise TimeoutError("the load does not stop")
        self._settle()

    def resume(self) -> None:
        """Publish again."""
        self._idle.clear()
        self._go.set()

    def end(self) -> None:
        """Stop for good."""
        self._ended = True
        self._go.set()
        self._thread.join(FLUSH_SECONDS)
        self._publisher.close()

    def publish(self, records: list[OutgoingRecord]) -> None:
        """Publish a group of records, again and again until it is acknowledged."""
        with self._lock:
            self._under_way += len(records)

        def done(fault: LogError | None) -> None:
            with self._lock:
                self._under_way -= len(records)
                if fault is None:
                    self.acknowledged += len(records)
                else:
                    self._failed.append(records)

        self._publisher.publish(records, done)

    def repeat(self) -> int:
        """Publish every story of late once more; answers how many records that is."""
        stories = list(self._remembered)
        for records in stories:
            self.publish(records)
        count = sum(map(len, stories))
        self.repeated += count
        return count

    def story(self, number: int) -> list[OutgoingRecord]:
        """The records of one story."""
        amount_nano = AMOUNTS_NANO[number % len(AMOUNTS_NANO)]
        return outgoing(self._codec, request_story(number, f"tenant_{number % TENANTS}", amount_nano))

    def _run(self) -> None:
        self.publish(outgoing(self._codec, [price_book(*AMOUNTS_NANO)]))
        due = time.monotonic()
        while not self._ended:
            if not self._go.is_set():
                self._idle.set()
                self._go.wait()
                due = time.monotonic()
                continue
            self._send_again()
            due += self._pace_seconds
            late = time.monotonic() - due
            if late < 0:
                time.sleep(-late)
            elif late > 1:
                due = time.monotonic()
            if self._under_way < UNDER_WAY_MAX:
                self._next()
        self._idle.set()

    def _next(self) -> None:
        records = self.story(self._number)
        self.publish(self.spoil(self._number, records))
        self._number += 1
        self._remembered.append(records)
        if self._random.random() < REPEATED:
            again = self._random.choice(self._remembered)
            again = again[self._random.randrange(len(again)) :]
            self.repeated += len(again)
            self.publish(again)

    def _send_again(self) -> None:
        while self._failed:
            with self._lock:
                records = self._failed.popleft()
            self.publish(records)

    def _settle(self) -> None:
        until = time.monotonic() + FLUSH_SECONDS
        while self._under_way or self._failed:
            if time.monotonic() > until:
                raise TimeoutError(f"{self._under_way} records are not acknowledged")
            self._send_again()
            self._publisher.flush(RETRY_SECONDS)
