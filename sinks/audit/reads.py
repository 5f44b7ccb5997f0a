"""What others read from the audit log as rows: every entry as it says of its record, to be compared with the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from processors.audit.commitment import Salts
from processors.audit.entry import Source, decode_entry
from processors.audit.sources import Place, source_of, undecodable
from sinks.audit.layout import AUDITED_TOPICS
from sinks.audit.store import AuditStore
from sinks.content import Content, LogRow, Ranges, StoredRow, Values
from sinks.totals import StoreTotals
from streams.log import Partition


class EntryContent(Content):
    """What an entry says of its record, the commitment to its bytes included; its place in the log is its own."""

    names = Source._fields

    def __init__(self, salts: Salts) -> None:
        """The log's salts."""
        self._salts = salts

    def of(self, row: LogRow) -> Values:
        """As the seam says."""
        record = row.record
        place = Place(
            record.topic, row.topic_id, record.partition, record.offset, record.timestamp_millis, record.value
        )
        if row.fields is None:
            return list(undecodable(place, self._salts))
        return list(source_of(row.fields, place, self._salts))


class AuditReads:
    """Reads of one log's entries, from its minimum index on."""

    holds_every_record = True

    def __init__(self, store: AuditStore, salts: Salts, minimum_index: int = 0) -> None:
        """Over an open store, with the log's salts."""
        self._store = store
        self._minimum_index = minimum_index
        self.contents: dict[str, Content] = dict.fromkeys(AUDITED_TOPICS, EntryContent(salts))

    async def totals(self, barrier: Mapping[Partition, int]) -> dict[str, StoreTotals]:
        """What the log holds below the barrier, per topic; raises StoreUnavailableError."""
        return await self._store.totals(barrier, self._minimum_index)

    async def cursors(self) -> dict[Partition, int]:
        """Where the log stands; raises StoreUnavailableError."""
        return await self._store.cursors()

    async def rows(self, ranges: Ranges) -> AsyncIterator[list[StoredRow]]:
        """The entries of these ranges, all of the log being read, in bounded pages."""
        end = (await self._store.state()).next_seq
        async for page in self._store.rows(self._minimum_index, end):
            sources = [decode_entry(row.entry).source for row in page]
            yield [_row(source) for source in sources if _is_within(source, ranges)]


def _row(source: Source) -> StoredRow:
    at = Partition(source.topic, source.partition)
    return StoredRow(at, source.offset, source.tenant_id, source.event_id, list(source))


def _is_within(source: Source, ranges: Ranges) -> bool:
    first, after = ranges.get(Partition(source.topic, source.partition), (0, 0))
    return first <= source.offset < after
