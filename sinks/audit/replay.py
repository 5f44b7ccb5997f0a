"""Replays the recorded order over Kafka's records: every entry is made again, to the same root."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from processors.audit.checkpoint import Checkpoint
from processors.audit.commitment import Salts
from processors.audit.edge import HashEdge
from processors.audit.entry import LOG_TENANT, MAGIC, Entry, Head, Source, chain_hash, decode_entry, heads_source, seal
from processors.audit.heads import HeadsTree
from processors.audit.kept import Kept
from processors.audit.merkle import leaf_hash
from processors.audit.segment import read_bundles
from processors.audit.trust import Trust
from schemas.errors import IntegrityError
from sinks.audit.log_walk import OnProgress, bundles, chunks
from sinks.audit.reader import LogSource, read_sound
from sinks.audit.reads import EntryContent
from sinks.content import LogRow, Ranges
from streams.log import Partition

#: Reads these ranges of Kafka, in pages; blocks. Raises IntegrityError when they are no longer kept.
ReadLog = Callable[[Ranges], Iterable[list[LogRow]]]
Place = tuple[str, int, int]


async def replay(log: LogSource, trust: Trust, salts: Salts, read_log: ReadLog, on_progress: OnProgress) -> Checkpoint:
    """Make every published entry again from its record in Kafka; the checkpoint whose root that gives.

    Entries of before version 2, whose commitments have no salt, are taken as recorded. Raises IntegrityError naming the
    first entry that comes out differently or whose record Kafka no longer has; NoteError, StoreUnavailableError and
    LogUnavailableError.
    """
    note = await log.checkpoint()
    if note is None:
        raise IntegrityError("there is no checkpoint")
    signed = trust.open(note).checkpoint
    replaying, kept = _Replaying(EntryContent(salts)), await log.kept()
    replaying.begin_at(kept)
    for first, end in chunks(0, kept.minimum_index):
        hashes = await read_sound(log, [tile._replace(level=0) for tile in bundles(first, end, signed.size)])
        replaying.edge.take(b"".join(hashes.values()))
    for first, end in chunks(kept.minimum_index, signed.size):
        tiles = bundles(first, end, signed.size)
        entries, found = read_bundles(tiles, await log.read(tiles), first, end, {})
        if found:
            raise IntegrityError(found[0].words)
        await asyncio.to_thread(replaying.take, entries, read_log)
        on_progress(end, signed.size)
    if replaying.edge.root() != signed.root:
        raise IntegrityError(
            f"the records, in the recorded order, do not give the root signed at {signed.size} entries"
        )
    return signed


class _Replaying:
    """A log being made again."""

    def __init__(self, content: EntryContent) -> None:
        self._content = content
        self._heads: dict[str, Head] = {}
        self._tree = HeadsTree()
        self._grown: set[str] = set()
        self._next_seq = 0
        self.edge = HashEdge()

    def begin_at(self, kept: Kept) -> None:
        """Go on before the first entry that retention left."""
        self._heads, self._grown, self._next_seq = dict(kept.heads), set(kept.heads), kept.minimum_index

    def take(self, entries: Sequence[bytes], read_log: ReadLog) -> None:
        """Make the next entries again; raises IntegrityError for the first that differs."""
        recorded = list(map(decode_entry, entries))
        rows = {
            (row.record.topic, row.record.partition, row.record.offset): row
            for page in read_log(_ranges(recorded))
            for row in page
        }
        leaves = []
        for entry, data in zip(recorded, entries, strict=True):
            leaves.append(self._made_again(entry, data, rows))
            self._grown.add(entry.source.tenant_id)
            self._next_seq += 1
        self.edge.take(b"".join(leaves))

    def _made_again(self, entry: Entry, data: bytes, rows: dict[Place, LogRow]) -> bytes:
        """The leaf of an entry made from its record; raises IntegrityError when that gives other bytes."""
        if entry.magic != MAGIC:
            leaf = leaf_hash(data)
            self._heads[entry.source.tenant_id] = Head(entry.tseq, chain_hash(entry.prev_chain, leaf))
            return leaf
        source = self._source(entry, rows)
        (sealed,) = seal([source], self._next_seq, self._heads)
        if sealed.entry != data:
            raise IntegrityError(f"entry {self._next_seq}: {_words(entry, source)}")
        return sealed.leaf

    def _source(self, entry: Entry, rows: dict[Place, LogRow]) -> Source:
        source = entry.source
        if source.tenant_id == LOG_TENANT:
            self._tree.move({tenant: self._heads[tenant] for tenant in self._grown - {LOG_TENANT}})
            self._grown.clear()
            return heads_source(self._tree.commitment(), source.time_micros)
        row = rows.get((source.topic, source.partition, source.offset))
        if row is None:
            place = f"{source.topic}/{source.partition}@{source.offset}"
            raise IntegrityError(f"entry {entry.seq}: Kafka has no record at {place}")
        return Source(*self._content.of(row))


def _words(entry: Entry, source: Source) -> str:
    wrong = [name for name, old, new in zip(Source._fields, entry.source, source, strict=True) if old != new]
    place = f"{entry.source.topic}/{entry.source.partition}@{entry.source.offset}"
    return f"the record at {place} gives another {', '.join(wrong) or 'place in its chain'}"


def _ranges(entries: Sequence[Entry]) -> Ranges:
    """What of each partition these entries are of."""
    found: dict[Partition, tuple[int, int]] = {}
    for entry in entries:
        source = entry.source
        if source.tenant_id == LOG_TENANT or entry.magic != MAGIC:
            continue
        partition = Partition(source.topic, source.partition)
        first, after = found.get(partition, (source.offset, source.offset))
        found[partition] = (min(first, source.offset), max(after, source.offset + 1))
    return found
