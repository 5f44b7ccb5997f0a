"""Lanes: what a publisher holds of each partition. One batch at a time is with the broker, so order is kept by waiting.

A batch whose answer did not come is sent again as it was, under its sequence numbers: the broker knows it by them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from schemas.errors import LogError
from streams.kafka.batches import BATCH_BYTES_MAX, batch
from streams.kafka.requests import Identity

BATCH_RECORDS_MAX = 1_000
SEQUENCE_MASK = 0x7FFF_FFFF


class Group:
    """The records of one publish call, counted down as they end."""

    __slots__ = ("_done", "_fault", "_left", "until")

    def __init__(self, records: int, until: float, done: Callable[[LogError | None], None]) -> None:
        """Given up at `until`, by the loop's clock."""
        self._left, self.until, self._done = records, until, done
        self._fault: LogError | None = None

    def ended(self, fault: LogError | None) -> None:
        """One record is acknowledged, or failed."""
        if fault is not None and self._fault is None:
            self._fault = fault
        self._left -= 1
        if not self._left:
            self._done(self._fault)


class _Sent(NamedTuple):
    """A batch that the broker may have."""

    records: list[tuple[bytes, Group]]
    data: bytes


class Lane:
    """One partition."""

    __slots__ = ("_alone", "_identity", "_sent", "_sequence", "_waiting", "leader", "number", "retry_at", "topic")

    def __init__(self, topic: str, number: int) -> None:
        """Nothing waits, and nobody leads it."""
        self.topic, self.number = topic, number
        #: The broker that leads it, as far as is known.
        self.leader: int | None = None
        #: Not sent again before, by the loop's clock.
        self.retry_at = 0.0
        self._waiting: deque[tuple[bytes, Group]] = deque()
        self._sent: _Sent | None = None
        self._identity: Identity | None = None
        self._sequence = 0
        #: Records that go one by one, because a batch of them was refused.
        self._alone = 0

    @property
    def has_work(self) -> bool:
        """Whether something is to be sent, or sent again."""
        return self._sent is not None or bool(self._waiting)

    def add(self, body: bytes, group: Group) -> None:
        """One more record, behind those there are."""
        self._waiting.append((body, group))

    def take(self, identity: Identity, now_millis: int) -> bytes:
        """The batch to send: the one whose answer did not come, else of what waits; only when there is work."""
        if identity is not self._identity:
            self._put_back()
            self._identity, self._sequence = identity, 0
        if self._sent is None:
            records = self._next()
            data = batch([body for body, _ in records], *identity, self._sequence, now_millis)
            self._sent = _Sent(records, data)
        return self._sent.data

    def awaits(self, data: bytes) -> bool:
        """Whether it is this batch whose answer is waited for."""
        return self._sent is not None and self._sent.data is data

    def accepted(self) -> None:
        """The batch stands."""
        records = self._end()
        self._sequence = self._sequence + len(records) & SEQUENCE_MASK
        for _, group in records:
            group.ended(None)

    def refused(self, fault: LogError) -> None:
        """The broker will not have the batch; of several records each is tried alone."""
        if self._sent is not None and len(self._sent.records) > 1:
            self._alone = len(self._sent.records)
            self._put_back()
            return
        for _, group in self._end():
            group.ended(fault)

    def expire(self, now: float, fault: LogError) -> bool:
        """Give up what is overdue; whether of that the broker may have something: it needs a new identity then.

        Only while no answer is waited for.
        """
        sent = self._sent
        in_doubt = sent is not None and any(group.until <= now for _, group in sent.records)
        if in_doubt:
            self._put_back()
        over = [group for _, group in self._waiting if group.until <= now]
        if over:
            self._waiting = deque(record for record in self._waiting if record[1].until > now)
            self._alone = 0
        for group in over:
            group.ended(fault)
        return in_doubt

    def _next(self) -> list[tuple[bytes, Group]]:
        """Records for a batch, at least one."""
        waiting, records = self._waiting, [self._waiting.popleft()]
        if self._alone:
            self._alone -= 1
            return records
        size = len(records[0][0])
        while waiting and len(records) < BATCH_RECORDS_MAX:
            size += len(waiting[0][0])
            if size > BATCH_BYTES_MAX:
                break
            records.append(waiting.popleft())
        return records

    def _put_back(self) -> None:
        if self._sent is not None:
            self._waiting.extendleft(reversed(self._sent.records))
            self._sent = None

    def _end(self) -> list[tuple[bytes, Group]]:
        sent, self._sent = self._sent, None
        return sent.records if sent is not None else []
