"""A request's records, entered into an audit log, and what is told of them."""

from __future__ import annotations

from pathlib import Path

from processors.audit.marks import Claim, Mark, MarkState, Seen
from sinks.audit.marks import Marker
from sinks.audit.store import AuditStore
from sinks.runner.seam import Decoded, Span
from streams.log import LogRecord, Partition
from tests.support.audit import CODEC, SALTS, AuditWorld
from tests.support.stories import TOPIC_ID, Offsets, request_story


def spans_of_records(records: list[LogRecord]) -> list[Span]:
    """Records as the sequencer takes them."""
    spans: dict[Partition, Span] = {}
    for record in records:
        at = Partition(record.topic, record.partition)
        span = spans.setdefault(at, Span(at, TOPIC_ID, record.offset, record.offset))
        span.records.append(Decoded(record.offset, CODEC.decode(record.topic, record.value or b""), record))
        span.next_offset = record.offset + 1
    return list(spans.values())


class Told:
    """One request's records, and a log to enter them into."""

    def __init__(self, folder: Path, store: AuditStore | None = None) -> None:
        """Nothing is entered yet."""
        self.world = AuditWorld(folder)
        if store is not None:
            self.world.store = store
            self.world.begin()
        offsets = Offsets()
        self.others = [record for number in range(2, 40) for record in offsets.records(CODEC, request_story(number))]
        self.records = offsets.records(CODEC, request_story(1))
        self.fields = [CODEC.decode(record.topic, record.value or b"") for record in self.records]
        self.claims = [
            Claim(record.topic, record.partition, record.offset, fields["event_id"], fields["request_id"])
            for record, fields in zip(self.records, self.fields, strict=True)
        ]
        self.seen = {
            (Partition(record.topic, record.partition), record.offset): Seen(
                record.timestamp_millis, record.value, fields
            )
            for record, fields in zip(self.records, self.fields, strict=True)
        }
        self.marker = Marker(self.world.store, self.world.files, self.world.ring.load().chain, SALTS)

    async def enter(self) -> None:
        """Sequence all of it, and some others before it."""
        others, spans = spans_of_records(self.others), spans_of_records(self.records)
        state = await self.world.sequencer.claim({span.partition: TOPIC_ID for span in (*others, *spans)})
        await self.world.publisher.open(state)
        await self.world.sequencer.append(others)
        await self.world.sequencer.append(spans)

    async def marks(self, marker: Marker | None = None, *, without_bytes: bool = False) -> list[Mark]:
        """The marks now."""
        used = marker or self.marker
        standing = await used.standing(self.claims[0].request_id)
        return await used.marks(self.claims, standing, {} if without_bytes else self.seen)

    async def states(self, marker: Marker | None = None, *, without_bytes: bool = False) -> set[MarkState]:
        """The different marks."""
        return {mark.state for mark in await self.marks(marker, without_bytes=without_bytes)}
