"""An AuditStore in this process, for tests: the same refusals as the real one, and hooks to fail it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from processors.audit.entry import Head, Sealed, decode_entry
from schemas.errors import FencedError, GapError, IntegrityError
from schemas.topics import CONTROL
from sinks.audit.layout import Probe, no_probe
from sinks.audit.store import CursorMove, EntryFilter, EntryPlace, Found, LogState, Snapshot, StoredEntry
from sinks.totals import StoreTotals, totals_of
from streams.log import Partition

PAGE_ROWS = 4_096
PARTITION_ENTRIES = 1_048_576


class MemoryAuditStore:
    """Rows of one log in lists and dicts."""

    def __init__(self, probe: Probe = no_probe) -> None:
        """Empty; `probe` is called before and after every change."""
        self.log = LogState()
        self.stored: list[StoredEntry] = []
        self.notes: dict[int, str] = {}
        self.positions: dict[Partition, tuple[str, int]] = {}
        self.tenant_heads: dict[str, Head] = {}
        self.probe = probe
        #: Positions in one table partition; those below `first_row` were dropped.
        self.partition_entries = PARTITION_ENTRIES
        self.first_row = 0

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def claim(self, owner: str, topic_ids: Mapping[Partition, str]) -> LogState:  # noqa: ARG002 - the seam's
        """Raise the epoch; raises IntegrityError for a re-created topic."""
        for partition, topic_id in topic_ids.items():
            known, _ = self.positions.setdefault(partition, (topic_id, 0))
            if known != topic_id:
                raise IntegrityError(f"{partition} is of topic {known} in the audit log, of {topic_id} in Kafka")
        self.log = replace(self.log, epoch=self.log.epoch + 1)
        return self.log

    async def state(self) -> LogState:
        """Where the log stands."""
        return self.log

    async def snapshot(self) -> Snapshot:
        """All of it, now."""
        return Snapshot(self.log, dict(self.tenant_heads), await self.cursors())

    async def cursors(self) -> dict[Partition, int]:
        """Next offset per partition."""
        return {partition: offset for partition, (_, offset) in self.positions.items()}

    async def heads(self, tenants: Sequence[str] | None = None) -> dict[str, Head]:
        """Chain heads."""
        wanted = self.tenant_heads if tenants is None else tenants
        return {tenant: self.tenant_heads[tenant] for tenant in wanted if tenant in self.tenant_heads}

    async def append(
        self, epoch: int, sealed: Sequence[Sealed], heads: Mapping[str, Head], moves: Sequence[CursorMove]
    ) -> None:
        """All or nothing; raises FencedError and GapError."""
        self.probe("append")
        self._check_epoch(epoch)
        if sealed and sealed[0].seq != self.log.next_seq:
            raise GapError("the audit log", self.log.next_seq, sealed[0].seq)
        for move in moves:
            if self.positions.get(move.partition) != (move.topic_id, move.first_offset):
                raise GapError(str(move.partition), self.positions[move.partition][1], move.first_offset)
        self.positions |= {move.partition: (move.topic_id, move.next_offset) for move in moves}
        self.stored.extend(map(_row, sealed))
        self.tenant_heads |= heads
        self.log = replace(self.log, next_seq=self.log.next_seq + len(sealed))
        self.probe("appended")

    async def entries(self, first: int, end: int) -> list[tuple[bytes, bytes]]:
        """(leaf, entry) of a range."""
        return [(row.leaf, row.entry) for row in self.stored[max(first, self.first_row) : end]]

    async def rows(self, first: int, end: int) -> AsyncIterator[list[StoredEntry]]:
        """Rows of a range, in pages."""
        found = self.stored[max(first, self.first_row) : end]
        for start in range(0, len(found), PAGE_ROWS):
            yield found[start : start + PAGE_ROWS]

    async def integrated(self, epoch: int, size: int, root: bytes) -> None:
        """Move the integrated mark; raises FencedError."""
        self.probe("mark integrated")
        self._check_epoch(epoch)
        self.log = replace(self.log, integrated_size=size, integrated_root=root)
        self.probe("marked integrated")

    async def checkpointed(self, size: int, note: str) -> None:
        """Keep a checkpoint."""
        self.probe("keep checkpoint")
        self.notes.setdefault(size, note)
        self.probe("kept checkpoint")

    async def checkpoints(self) -> dict[int, str]:
        """Every checkpoint kept."""
        return dict(self.notes)

    async def totals(self, barrier: Mapping[Partition, int], first_seq: int = 0) -> dict[str, StoreTotals]:
        """Totals below the barrier."""
        found: dict[str, list[tuple[str, str, int]]] = {partition.topic: [] for partition in barrier}
        for row in self.stored[max(first_seq, self.first_row) :]:
            if row.event_id and row.offset < barrier.get(Partition(row.topic, row.partition), 0):
                found[row.topic].append((row.tenant_id, row.event_id, row.amount_nano or 0))
        return {topic: totals_of(events) for topic, events in found.items()}

    async def counts(self, barrier: Mapping[Partition, int]) -> dict[str, int]:
        """Entries below the barrier."""
        found = dict.fromkeys((partition.topic for partition in barrier), 0)
        for row in self.stored:
            if row.offset < barrier.get(Partition(row.topic, row.partition), 0):
                found[row.topic] += 1
        return found

    async def of_control(self, event_id: str) -> EntryPlace | None:
        """The entry of a control event."""
        found = (row for row in self.stored if (row.topic, row.event_id) == (CONTROL.name, event_id))
        return next((EntryPlace(row.seq, row.topic, row.partition, row.offset, row.event_id) for row in found), None)

    async def of_request(self, request_id: str) -> list[EntryPlace]:
        """The entries of a request."""
        found = [row for row in self.stored if row.request_id == request_id]
        return [EntryPlace(row.seq, row.topic, row.partition, row.offset, row.event_id) for row in found]

    async def find(self, wanted: EntryFilter, before: int, limit: int) -> Found:
        """Entries that are looked for, all of the log at once."""
        kept = reversed(self.stored[self.first_row : before])
        rows = [row for row in kept if wanted.fits(decode_entry(row.entry).source)][:limit]
        return Found([(row.seq, row.entry) for row in rows], rows[-1].seq if len(rows) == limit else 0)

    async def drop_entries(self, below: int) -> int:
        """Forget whole partitions of rows; raises IntegrityError."""
        if below >= self.log.integrated_size:
            raise IntegrityError(f"entries below {below} of the audit log can't be dropped")
        self.probe("drop rows")
        before, self.first_row = self.first_row, below // self.partition_entries * self.partition_entries
        self.probe("dropped rows")
        return (self.first_row - before) // self.partition_entries

    def _check_epoch(self, epoch: int) -> None:
        if epoch != self.log.epoch:
            raise FencedError("the audit log", epoch)


def _row(sealed: Sealed) -> StoredEntry:
    source = sealed.source
    return StoredEntry(
        sealed.seq,
        source.tenant_id,
        sealed.tseq,
        sealed.chain,
        sealed.leaf,
        sealed.entry,
        source.topic,
        source.partition,
        source.offset,
        source.event_id,
        source.request_id,
        source.amount_nano,
    )
