"""A sink without a server: the smallest complete one, for tests of the runner and as an example of the seam.

`MemoryStore` is the store, which outlives processes; each `MemorySink` on it is one process. Like a real store it can
be away, answer too late (the batch is applied but the caller hears of a failure), and refuse records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import FencedError, GapError, IntegrityError, RejectedError, Rejection, StoreUnavailableError
from schemas.topics import TOPICS
from sinks.fake_quarantine import MemoryQuarantine
from sinks.runner.seam import Batch, BatchPolicy, Decoded, Sink, Span
from sinks.totals import StoreTotals, totals_of
from streams.log import Partition


@dataclass
class Cursor:
    """One cursor row."""

    topic_id: str
    next_offset: int = 0
    epoch: int = 0
    owner: str = ""


@dataclass
class MemoryStore:
    """What the store holds, and how it misbehaves."""

    cursors: dict[Partition, Cursor] = field(default_factory=dict)
    #: Applied records by (tenant_id, event_id): where it was first met, and its fields.
    rows: dict[tuple[str, str], tuple[Partition, Decoded]] = field(default_factory=dict)
    quarantine: MemoryQuarantine = field(default_factory=MemoryQuarantine)
    away: bool = False
    #: Applies the next batch and then loses its answer.
    lose_next_answer: bool = False
    #: Says why a record is refused, or None.
    refuses: Callable[[Mapping[str, Any]], str | None] = lambda _: None

    def demand(self) -> None:
        """Raise StoreUnavailableError while the store is away."""
        if self.away:
            raise StoreUnavailableError

    def totals(self, topic: str, barrier: Mapping[Partition, int]) -> StoreTotals:
        """The totals of a topic below the barrier."""
        return totals_of(
            (row.fields["tenant_id"], row.fields["event_id"], row.fields.get("amount_nano") or 0)
            for partition, row in self.rows.values()
            if partition.topic == topic and row.offset < barrier.get(partition, 0)
        )


class MemorySink(Sink):
    """One process on a MemoryStore."""

    def __init__(self, store: MemoryStore, owner: str = "memory", policy: BatchPolicy | None = None) -> None:
        """Project every topic."""
        self.projection = "memory@v1"
        self.topics = tuple(topic.name for topic in TOPICS)
        self.policy = policy or BatchPolicy(
            age_milliseconds=5, poll_milliseconds=5, heartbeat_milliseconds=20, tend_milliseconds=20
        )
        self.store = store
        self.owner = owner
        self._epochs: dict[Partition, int] = {}

    async def open(self) -> None:
        """As the seam says."""
        self.store.demand()

    async def close(self) -> None:
        """As the seam says."""

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """As the seam says."""
        await asyncio.sleep(0)
        self.store.demand()
        for partition in partitions:
            cursor = self.store.cursors.setdefault(partition, Cursor(topic_ids[partition.topic]))
            if cursor.topic_id != topic_ids[partition.topic]:
                raise IntegrityError(f"{partition}: the topic was re-created")
            cursor.epoch, cursor.owner = cursor.epoch + 1, self.owner
            self._epochs[partition] = cursor.epoch
        return {partition: self.store.cursors[partition].next_offset for partition in partitions}

    async def write(self, batch: Batch) -> None:
        """As the seam says."""
        await asyncio.sleep(0)
        self.store.demand()
        spans = [self._unapplied(span) for span in batch.spans]
        self._refuse(spans)
        self._check_ids(spans)
        # No await from the look at the cursors to here: what a transaction does for a real store.
        for span in spans:
            self._apply(span)
        await self.store.quarantine.put([poison.event for span in spans for poison in span.poison])
        if self.store.lose_next_answer:
            self.store.lose_next_answer = False
            raise StoreUnavailableError("the answer was lost")

    def prepare(self, spans: Sequence[Span]) -> None:
        """Never asked: this sink takes no columns."""

    async def redrive(self, span: Span) -> None:
        """As the seam says: an event that is there stays, so nothing else must be remembered."""
        await asyncio.sleep(0)
        self.store.demand()
        if self.store.cursors[span.partition].epoch != self._epochs.get(span.partition, 0):
            raise FencedError(str(span.partition), self._epochs.get(span.partition, 0))
        self._refuse([span])
        self._check_ids([span])
        self._keep(span)
        if self.store.lose_next_answer:
            self.store.lose_next_answer = False
            raise StoreUnavailableError("the answer was lost")

    async def heartbeat(self, end_offsets: Mapping[Partition, int]) -> None:
        """Nothing to look after."""

    async def release(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        for partition in partitions:
            self._epochs.pop(partition, None)

    def _unapplied(self, span: Span) -> Span:
        cursor, epoch = self.store.cursors.get(span.partition), self._epochs.get(span.partition, 0)
        if cursor is None or cursor.epoch != epoch:
            raise FencedError(str(span.partition), epoch)
        if span.first_offset > cursor.next_offset:
            raise GapError(str(span.partition), cursor.next_offset, span.first_offset)
        return span.after(cursor.next_offset)

    def _refuse(self, spans: Sequence[Span]) -> None:
        refused = []
        for span in spans:
            for record in span.records:
                detail = self.store.refuses(record.fields)
                if detail is not None:
                    refused.append(Rejection(*span.partition, record.offset, detail))
        if refused:
            raise RejectedError(tuple(refused))

    def _check_ids(self, spans: Sequence[Span]) -> None:
        met: dict[tuple[str, str], bytes | None] = {}
        for span in spans:
            for record in span.records:
                key = (record.fields["tenant_id"], record.fields["event_id"])
                known = self.store.rows.get(key)
                first = known[1].record.value if known else met.setdefault(key, record.record.value)
                if first != record.record.value:
                    raise IntegrityError(f"event {record.fields['event_id']} was met before with other bytes")

    def _apply(self, span: Span) -> None:
        self._keep(span)
        self.store.cursors[span.partition].next_offset = span.next_offset

    def _keep(self, span: Span) -> None:
        for record in span.records:
            key = (record.fields["tenant_id"], record.fields["event_id"])
            self.store.rows.setdefault(key, (span.partition, record))


__all__ = ["Cursor", "MemoryQuarantine", "MemorySink", "MemoryStore"]
