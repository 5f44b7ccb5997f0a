"""The sequencer: gives every record of a batch its place in the log and in its tenant's chain, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from processors.audit.commitment import Salts
from processors.audit.entry import LOG_TENANT, NO_HEAD, Head, Sealed, Source, decode_entry, heads_source, is_own, seal
from processors.audit.heads import HeadsTree
from processors.audit.sources import Place, undecodable
from schemas.errors import GapError
from sinks.audit.columns import source_of_record, sources_together
from sinks.audit.store import AuditStore, CursorMove, LogState
from sinks.runner.seam import Decoded, Poison, Span
from streams.log import Partition

MICROS_PER_SECOND = 1_000_000

#: Called with the position of the first and the bytes of entries that were committed.
Entered = Callable[[int, list[bytes]], None]


def ignore(first_seq: int, entries: list[bytes]) -> None:
    """Keep nothing: whoever needs entries reads them from the store."""


class Sequencer:
    """The only writer of a log's entries while its epoch is the log's. One call at a time."""

    def __init__(
        self,
        store: AuditStore,
        salts: Salts,
        owner: str,
        entered: Entered = ignore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`owner` names this process in the log's row; `entered` hears of entries that are surely in the log.

        `clock` gives seconds since the epoch, for heads entries.
        """
        self._store = store
        self._salts = salts
        self._entered = entered
        self._owner = owner
        self._clock = clock
        #: Where every tenant's chain stands, and the tree over that.
        self._heads: dict[str, Head] = {}
        self._tree = HeadsTree()
        #: Time of the last heads entry; 0 when the log's last entry is none.
        self._heads_micros = 0
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

    async def end_with_heads(self) -> None:
        """Enter heads where a log does not end with them, as one of before they were; raises as `append` does."""
        if not self._sure:
            await self._read_again()
        if self.next_seq and not self._heads_micros:
            await self._enter([], {}, [])

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
        sources = sources_of_all(fresh, self._salts)
        heads = {source.tenant_id: self._heads.get(source.tenant_id, NO_HEAD) for source in sources}
        await self._enter(seal(sources, self.next_seq, heads), heads, moves)
        return len(sources)

    async def _enter(self, sealed: list[Sealed], heads: dict[str, Head], moves: Sequence[CursorMove]) -> None:
        """Put a batch into the log, with its heads entry at the end if it has entries or nothing else to do."""
        self._sure = False
        micros = max(int(self._clock() * MICROS_PER_SECOND), self._heads_micros)
        if sealed or not moves:
            self._tree.move(heads)
            own = {LOG_TENANT: self._heads.get(LOG_TENANT, NO_HEAD)}
            sealed += seal([heads_source(self._tree.commitment(), micros)], self.next_seq + len(sealed), own)
            heads |= own
        await self._store.append(self.epoch, sealed, heads, moves)
        self._heads |= heads
        self._cursors |= {move.partition: move.next_offset for move in moves}
        self.next_seq += len(sealed)
        self._sure = True
        if sealed:
            self._heads_micros = micros
            self._entered(sealed[0].seq, [each.entry for each in sealed])

    def _cursor(self, span: Span) -> int:
        cursor = self._cursors.get(span.partition, 0)
        if span.first_offset > cursor:
            raise GapError(str(span.partition), cursor, span.first_offset)
        return cursor

    async def _read_again(self) -> None:
        """Read where the log stands; the epoch stays ours, so that a newer owner's log refuses us."""
        self.next_seq = (await self._store.state()).next_seq
        self._cursors = await self._store.cursors()
        self._heads = await self._store.heads()
        self._tree = HeadsTree()
        self._tree.move({tenant: head for tenant, head in self._heads.items() if tenant != LOG_TENANT})
        last = await self._store.entries(max(self.next_seq - 1, 0), self.next_seq)
        self._heads_micros = decode_entry(last[0][1]).source.time_micros if last and is_own(last[0][1]) else 0
        self._sure = True


def sources_of_all(spans: Sequence[Span], salts: Salts) -> list[Source]:
    """The sources of a batch: topic by topic, each partition's in the order of their offsets."""
    by_topic: dict[str, list[Span]] = {}
    for span in spans:
        by_topic.setdefault(span.partition.topic, []).append(span)
    found: list[Source] = []
    for of_topic in by_topic.values():
        sound = [span for span in of_topic if not span.poison]
        if sound:
            found += sources_together(sound, salts)
        for span in of_topic:
            if span.poison:
                found += sources_of(span, salts)
    return found


def sources_of(span: Span, salts: Salts) -> Iterator[Source]:
    """The sources of a span's records and poison, in the order of their offsets."""
    topic, partition = span.partition
    records: Sequence[Decoded | Poison] = span.records
    if span.poison:
        records = sorted([*span.records, *span.poison], key=lambda record: record.offset)
    for item in records:
        if isinstance(item, Decoded):
            yield source_of_record(item, span.topic_id, salts)
        else:
            record = item.record
            place = Place(topic, span.topic_id, partition, item.offset, record.timestamp_millis, record.value)
            yield undecodable(place, salts)
