"""The quarantine in memory: QuarantineStore and DeadLetters as in Postgres, for tests and as their shortest reading."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from processors.quarantine.events import follow_up, resumed, tried_again
from processors.quarantine.order import Waiting, may_go
from schemas.events import Alert, Event, QuarantinedRecord, QuarantineKind
from sinks.dead_letters import UNRESOLVED, DeadLetter, PausedPartition, Selection, State
from sinks.runner.seam import Calls, Failed, Standing, Unreadable
from streams.log import Partition


@dataclass
class Row:
    """One record that was set aside."""

    event: QuarantinedRecord
    state: State
    attempts: int
    reason: str
    detail: str
    fingerprint: str
    behind_event_id: str | None
    requested: bool = False
    in_cut: bool = False
    note: str | None = None
    settled_by: str | None = None

    @property
    def partition(self) -> Partition:
        """Where it stands."""
        return Partition(self.event.source_topic, self.event.source_partition)

    def waiting(self) -> Waiting:
        """As far as order goes."""
        follows = self.state == "PARKED" and self.behind_event_id is not None
        event = self.event
        millis = event.occurred_at // 1_000
        return Waiting(event.event_id, event.source_offset, event.order_key, event.key_bytes, millis, follows=follows)


@dataclass
class _Pause:
    offset: int
    reason: str
    paused_at: int
    is_resumed: bool = False
    lifted_until: int = 0


class MemoryQuarantine:
    """QuarantineStore and DeadLetters in memory; `kept` holds the first event of each record by its id."""

    def __init__(self) -> None:
        """Nothing is kept."""
        self.kept: dict[str, QuarantinedRecord] = {}
        self.published: set[str] = set()
        self.rows: dict[str, Row] = {}
        #: Follow-ups and alerts, by id.
        self.events: dict[str, Event] = {}
        self._pauses: dict[tuple[str, Partition], _Pause] = {}

    async def put(self, records: Sequence[QuarantinedRecord]) -> None:
        """As the seam says."""
        for record in records:
            if record.event_id not in self.kept:
                self.kept[record.event_id] = record
                state: State = "PARKED" if record.kind is QuarantineKind.PARKED else "QUARANTINED"
                self.rows[record.event_id] = Row(
                    record,
                    state,
                    record.attempts,
                    record.reason.value,
                    record.detail,
                    record.fingerprint,
                    record.behind_event_id,
                )
        for record in records:
            row, head = self.rows[record.event_id], self.rows.get(record.behind_event_id or "")
            # Its owner has not heard that what it waits behind is settled: nobody else will ask for it.
            if row.waiting().follows and (head is None or head.state not in UNRESOLVED):
                row.requested = True

    async def unpublished(self, events_max: int, without: Collection[str] = ()) -> list[Event | Unreadable]:
        """As the seam says; what is kept as it came can always be read."""
        everything: dict[str, Event | Unreadable] = {**self.kept, **self.events}
        passed = self.published.union(without)
        return [event for key, event in everything.items() if key not in passed][:events_max]

    async def mark_published(self, event_ids: Sequence[str]) -> None:
        """As the seam says."""
        self.published.update(event_ids)

    async def standings(self, projection: str, cursors: Mapping[Partition, int]) -> dict[Partition, Standing]:
        """As the seam says."""
        return {partition: self._standing(projection, partition, cursor) for partition, cursor in cursors.items()}

    def _standing(self, projection: str, partition: Partition, cursor: int) -> Standing:
        rows = list(self._of(projection, partition))
        unresolved = tuple(row.waiting() for row in rows if row.state in UNRESOLVED)
        known: dict[int, Waiting | None] = {each.offset: each for each in unresolved if each.offset >= cursor}
        known |= {row.event.source_offset: None for row in rows if row.state == "DISCARDED"}
        pause = self._pauses.get((projection, partition))
        if pause is None:
            return Standing(unresolved, known)
        return Standing(unresolved, known, None if pause.is_resumed else pause.reason, pause.lifted_until)

    async def pause(self, projection: str, partition: Partition, topic_id: str, offset: int, alert: Alert) -> None:  # noqa: ARG002
        """As the seam says."""
        self._pauses[projection, partition] = _Pause(offset, alert.detail, alert.occurred_at)
        self.events[alert.event_id] = alert

    async def calls(self, projection: str) -> Calls:
        """As the seam says."""
        asked = {row.partition for row in self.rows.values() if row.event.sink == projection and row.requested}
        ended = [at for (sink, at), pause in self._pauses.items() if sink == projection and pause.is_resumed]
        return Calls(tuple(sorted(asked)), tuple(sorted(ended)))

    async def take(
        self, projection: str, partition: Partition, cursor: int, records_max: int
    ) -> list[QuarantinedRecord]:
        """As the seam says."""
        rows = {row.event.event_id: row for row in self._of(projection, partition)}
        pinned = [row for row in rows.values() if row.in_cut]
        if not pinned:
            open_rows = [row.waiting() for row in rows.values() if row.state in UNRESOLVED or row.requested]
            asked = {key for key, row in rows.items() if row.requested}
            pinned = [rows[each.event_id] for each in may_go(partition.topic, open_rows, asked, cursor)[:records_max]]
        for row in pinned:
            row.in_cut = True
        if not pinned:
            for row in rows.values():
                row.requested = row.requested and row.event.source_offset >= cursor
        return sorted((row.event for row in pinned), key=lambda event: event.source_offset)

    async def settle(
        self, projection: str, partition: Partition, redriven: Sequence[str], failed: Sequence[Failed]
    ) -> None:
        """As the seam says."""
        now_micros = time.time_ns() // 1_000
        rows = {row.event.event_id: row for row in self._of(projection, partition) if row.in_cut}
        for event_id in redriven:
            if event_id in rows:
                self._settled(rows[event_id], now_micros)
        for failure in failed:
            if failure.event_id in rows:
                self._failed(rows[failure.event_id], failure, now_micros)
        for row in rows.values():
            row.in_cut = row.requested = False
        self._free_followers(redriven)

    def _settled(self, row: Row, now_micros: int) -> None:
        row.state, row.attempts = "REDRIVEN", row.attempts + 1
        event = tried_again(row.event, QuarantineKind.REDRIVEN, row.attempts, now_micros)
        row.settled_by = event.actor
        self.events[event.event_id] = event

    def _failed(self, row: Row, failure: Failed, now_micros: int) -> None:
        row.state, row.attempts, row.behind_event_id = "QUARANTINED", row.attempts + 1, None
        row.reason, row.detail, row.fingerprint = failure.reason.value, failure.detail, failure.fingerprint
        event = tried_again(row.event, QuarantineKind.FAILED, row.attempts, now_micros, *failure[1:])
        self.events[event.event_id] = event

    async def find(self, selection: Selection, rows_max: int) -> list[DeadLetter]:
        """As the seam says."""
        return [_letter(row) for row in self.rows.values() if _matches(row, selection)][:rows_max]

    async def show(self, event_id: str) -> tuple[DeadLetter, QuarantinedRecord] | None:
        """As the seam says."""
        row = self.rows.get(event_id)
        return None if row is None else (_letter(row), row.event)

    async def request(self, event_ids: Sequence[str], actor: str, *, again: bool = False) -> int:  # noqa: ARG002
        """As the seam says."""
        states = (*UNRESOLVED, "REDRIVEN") if again else UNRESOLVED
        chosen = [row for row in self._chosen(event_ids) if row.state in states]
        for row in chosen:
            row.requested = True
        return len(chosen)

    async def park(self, event_ids: Sequence[str], actor: str, note: str) -> int:
        """As the seam says."""
        chosen = [row for row in self._chosen(event_ids) if row.state == "QUARANTINED" and not row.in_cut]
        for row in chosen:
            row.state, row.note = "PARKED", note
            self._tell(row, QuarantineKind.PARKED, actor, note)
        return len(chosen)

    async def discard(self, event_ids: Sequence[str], actor: str, note: str) -> int:
        """As the seam says."""
        chosen = [row for row in self._chosen(event_ids) if row.state in UNRESOLVED and not row.in_cut]
        gone = [row.event.event_id for row in chosen]
        for row in chosen:
            row.state, row.note, row.settled_by, row.requested = "DISCARDED", note, actor, False
            self._tell(row, QuarantineKind.DISCARDED, actor, note)
        self._free_followers(gone)
        return len(chosen)

    async def pauses(self) -> list[PausedPartition]:
        """As the seam says."""
        standing = {key: each for key, each in self._pauses.items() if not each.is_resumed}
        return [PausedPartition(*key, each.offset, each.reason, each.paused_at) for key, each in standing.items()]

    async def resume(self, projection: str, partition: Partition, actor: str, lifted_until: int) -> bool:
        """As the seam says."""
        pause = self._pauses.get((projection, partition))
        if pause is None or pause.is_resumed:
            return False
        pause.is_resumed, pause.lifted_until = True, lifted_until
        event = resumed(projection, str(partition), actor, time.time_ns() // 1_000, "A person resumed it.")
        self.events[event.event_id] = event
        return True

    def _free_followers(self, gone: Sequence[str]) -> None:
        """Ask for what waited behind these, or comes after them in their chains."""
        for first in self._chosen(gone):
            chain, sink = first.event.order_key, first.event.sink
            for row in self._of(sink, first.partition):
                # Behind a record that could not be read, whatever has its key may have waited.
                same = (
                    row.event.order_key == chain if chain is not None else row.event.key_bytes == first.event.key_bytes
                )
                if row.waiting().follows and (same or row.behind_event_id == first.event.event_id):
                    row.requested = True

    def _tell(self, row: Row, kind: QuarantineKind, actor: str, note: str) -> None:
        now_micros = time.time_ns() // 1_000
        event = follow_up(row.event, kind, actor, now_micros, str(now_micros), note)
        self.events[event.event_id] = event

    def _of(self, projection: str, partition: Partition) -> Iterable[Row]:
        return [row for row in self.rows.values() if row.event.sink == projection and row.partition == partition]

    def _chosen(self, event_ids: Sequence[str]) -> list[Row]:
        return [self.rows[event_id] for event_id in dict.fromkeys(event_ids) if event_id in self.rows]


def _matches(row: Row, selection: Selection) -> bool:
    event = row.event
    wanted = (
        (selection.sink, event.sink),
        (selection.topic, event.source_topic),
        (selection.tenant_id, event.tenant_id),
        (selection.fingerprint, row.fingerprint),
    )
    return (
        all(asked is None or asked == found for asked, found in wanted)
        and (not selection.event_ids or event.event_id in selection.event_ids)
        and (not selection.states or row.state in selection.states)
        and (selection.since_micros is None or event.occurred_at >= selection.since_micros)
        and (selection.until_micros is None or event.occurred_at < selection.until_micros)
    )


def _letter(row: Row) -> DeadLetter:
    event = row.event
    return DeadLetter(
        event.event_id,
        event.sink,
        row.partition,
        event.source_offset,
        row.state,
        row.reason,
        row.detail,
        row.fingerprint,
        event.tenant_id,
        row.attempts,
        event.first_seen_at,
        event.occurred_at,
        event.order_key,
        row.behind_event_id,
        row.requested,
        row.note,
        row.settled_by,
    )
