"""Puts a request's story together: rows of Postgres, each held against the log's record and the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from api.why.story import Step, said, steps
from processors.audit.marks import Claim, Mark, MarkState, Seen
from sinks.audit.marks import Marker
from sinks.audit.store import EntryPlace
from sinks.postgres.reads import STORY_ORDER, PostgresReads, StoredEvent
from streams.log import Partition
from streams.pick import At

#: The records at some places, as Kafka has them, without those that can't be had. Blocks; never raises.
SeenOf = Callable[[Collection[At]], Mapping[At, Seen]]


class Story(NamedTuple):
    """What is known of a request."""

    request_id: str
    steps: list[Step]
    #: Entries of the audit log for this request of which Postgres has no row, though it has read past them.
    missing: list[EntryPlace]

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts it."""
        return not self.missing and all(step.ok for step in self.steps)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "request_id": self.request_id,
            "ok": self.ok,
            "steps": [step.as_json() for step in self.steps],
            "missing": [place._asdict() for place in self.missing],
        }


async def tell(request_id: str, reads: PostgresReads, marker: Marker, seen_of: SeenOf) -> Story:
    """The story of a request; raises StoreUnavailableError."""
    # Before the rows: what lies below and is not among them is not in Postgres.
    cursors = await reads.cursors()
    events = await reads.story(request_id)
    standing = await marker.standing(request_id)
    seen = await asyncio.to_thread(seen_of, [_at(event) for event in events])
    marks = await marker.marks([_claim(event, request_id) for event in events], standing, seen)
    judged = [_judged(event, mark, seen.get(_at(event))) for event, mark in zip(events, marks, strict=True)]
    told = {event.event_id for event in events}
    untold = [at for at, place in standing.places.items() if place.event_id not in told]
    lost = [at for at in untold if at[0].topic in STORY_ORDER and at[1] < cursors.get(at[0], 0)]
    aside = await reads.set_aside(reads.projection) if lost else {}
    if lost and events:  # a month that retention dropped is no contradiction
        rows = await reads.month_tables(events[0].occurred_at)
        lost = [at for at in lost if at[0].topic in rows]
    missing = [standing.places[at] for at in lost if at[1] not in aside.get(at[0], ())]
    return Story(request_id, steps(events, judged), missing)


def _judged(event: StoredEvent, mark: Mark, seen: Seen | None) -> Mark:
    """The mark, unless Postgres tells the record differently than Kafka does."""
    if mark.state is not MarkState.VERIFIED or seen is None or seen.fields is None:
        return mark
    fields = seen.fields
    in_kafka = (*said(event.topic, fields), fields["occurred_at"], fields["tenant_id"])
    in_postgres = (*said(event.topic, event.fields), event.occurred_at, event.tenant_id)
    if in_kafka == in_postgres:
        return mark
    return Mark(MarkState.MISMATCH, mark.index, f"Postgres tells it differently; entered was: {in_kafka[1]}")


def _claim(event: StoredEvent, request_id: str) -> Claim:
    return Claim(event.topic, event.partition, event.offset, event.event_id, request_id)


def _at(event: StoredEvent) -> At:
    return Partition(event.topic, event.partition), event.offset
