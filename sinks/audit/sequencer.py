"""The sequencer: gives every record of a batch its place in the log and in its tenant's chain, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from processors.audit.entry import Head, Source, seal
from processors.audit.sources import undecodable
from schemas.errors import GapError
from sinks.audit.columns import source_of_record, sources_together
from sinks.audit.store import AuditStore, CursorMove, LogState
from sinks.runner.seam import Decoded, Poison, Span
from streams.log import Partition

#: Chain heads kept in memory; all are dropped, and read again, when there are more.
HEADS_CACHED_MAX = 100_000


#: Called with the position of the first and the bytes of entries that were committed.
Entered = Callable[[int, list[bytes]], None]


def ignore(first_seq: int, entries: list[bytes]) -> None:
    """Keep nothing: whoever needs entries reads them from the store."""


class Sequencer:
    """The only writer of a log's entries while its epoch is the log's. One call at a time."""

    def __init__(self, store: AuditStore, owner: str, entered: Entered = ignore) -> None:
        """`owner` names this process in the log's row; `entered` hears of entries that are surely in the log."""
        self._store = store
        self._entered = entered
        self._owner = owner
        self._heads: dict[str, Head] = {}
        self._cursors: dict[Partition, int] = {}
        #: False when a write's outcome is unknown: what is in memory is read again before the next one.
        self._sure = False
        self.epoch = 0
        self.next_seq = 0

    async def claim(self, topic_ids: Mapping[Partition, str]) -> LogState:
        """Fence earlier sequencers; raises IntegrityError and StoreUnavailableError as the store does."""
        self._sure = False
        state = await self._store.claim(self._owner, topic_ids)
        self.epoch = state.epoch
        return state

    async def cursors(self) -> Mapping[Partition, int]:
        """Next offset per partition, as the log stands."""
        await self._read_again()
        return self._cursors

    async def append(self, spans: Sequence[Span]) -> int:
        """Enter what the log does not have of these spans; returns the number of entries made.

        Raises GapError, FencedError and StoreUnavailableError; nothing is applied then, or, with the last, unknown.
        """
        if not self._sure:
            await self._read_again()
        fresh = [span.after(self._cursor(span)) for span in spans]
        moves = [
            CursorMove(span.partition, span.topic_id, span.first_offset, span.next_offset)
            for span in fresh
            if span.next_offset > span.first_offset
        ]
        if not moves:
            return 0
        sources = sources_of_all(fresh)
        heads = await self._heads_of({source.tenant_id for source in sources})
        sealed = seal(sources, self.next_seq, heads)
        self._sure = False
        await self._store.append(self.epoch, sealed, heads, moves)
        self._heads |= heads
        self._cursors |= {move.partition: move.next_offset for move in moves}
        self.next_seq += len(sealed)
        self._sure = True
        if sealed:
            self._entered(sealed[0].seq, [each.entry for each in sealed])
        return len(sealed)

    def _cursor(self, span: Span) -> int:
        cursor = self._cursors.get(span.partition, 0)
        if span.first_offset > cursor:
            raise GapError(str(span.partition), cursor, span.first_offset)
        return cursor

    async def _read_again(self) -> None:
        """Read where the log stands; the epoch stays ours, so that a newer owner's log refuses us."""
        self._heads.clear()
        self.next_seq = (await self._store.state()).next_seq
        self._cursors = await self._store.cursors()
        self._sure = True

    async def _heads_of(self, tenants: set[str]) -> dict[str, Head]:
        if len(self._heads) > HEADS_CACHED_MAX:
            self._heads.clear()
        missing = [tenant for tenant in tenants if tenant not in self._heads]
        found = await self._store.heads(missing) if missing else {}
        return {tenant: self._heads[tenant] for tenant in tenants if tenant in self._heads} | found


def sources_of_all(spans: Sequence[Span]) -> list[Source]:
    """The sources of a batch: topic by topic, each partition's in the order of their offsets."""
    by_topic: dict[str, list[Span]] = {}
    for span in spans:
        by_topic.setdefault(span.partition.topic, []).append(span)
    found: list[Source] = []
    for of_topic in by_topic.values():
        sound = [span for span in of_topic if not span.poison]
        if sound:
            found += sources_together(sound)
        for span in of_topic:
            if span.poison:
                found += sources_of(span)
    return found


def sources_of(span: Span) -> Iterator[Source]:
    """The sources of a span's records and poison, in the order of their offsets."""
    topic, partition = span.partition
    records: Sequence[Decoded | Poison] = span.records
    if span.poison:
        records = sorted([*span.records, *span.poison], key=lambda record: record.offset)
    for item in records:
        if isinstance(item, Decoded):
            yield source_of_record(item, span.topic_id)
        else:
            record = item.record
            yield undecodable(topic, span.topic_id, partition, item.offset, record.timestamp_millis, record.value)
