"""Puts a log's rows, heads and cursors back into the database from the log's own entry bundles.

After the database was lost, or restored from an older backup. Nothing is written before the bundles have been verified
up to the latest signed root; the sequencer then goes on behind it without a fork.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from processors.audit.checkpoint import Checkpoint
from processors.audit.entry import Sealed, decode_entry
from processors.audit.merkle import HASH_BYTES
from processors.audit.note import NoteError
from processors.audit.segment import Segment, bundle_of, read_bundles, read_entries
from processors.audit.trust import Trust
from processors.audit.walk import Differences, EntryWalk
from schemas.errors import IntegrityError
from sinks.audit.log_walk import OnProgress, bundles, chunks
from sinks.audit.reader import LogSource
from sinks.audit.store import AuditStore, CursorMove
from sinks.audit.verify_public import verify_under
from streams.log import Partition


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did."""

    signed: Checkpoint
    #: Entries that the database had already.
    kept: int
    #: Entries put back.
    added: int


async def rebuild(
    store: AuditStore,
    log: LogSource,
    locked: str | None,
    trust: Trust,
    owner: str,
    executor: Executor | None,
    on_progress: OnProgress,
) -> Rebuilt:
    """Put back what the database lacks of the latest signed checkpoint, the published or the `locked` one.

    Fences a sequencer that runs. One that is interrupted goes on where it stood. Raises IntegrityError, and nothing is
    written, when the files do not give the signed root or the database holds something else than its beginning.
    """
    note, earlier = _latest(await log.checkpoint(), locked, trust)
    report = await verify_under(log, note, trust, earlier, executor, on_progress)
    if not report.ok:
        raise IntegrityError(f"the log's files are not what was signed: {report.first_difference}")
    signed = trust.open(note).checkpoint
    rebuilding = _Rebuilding(store, log, signed)
    kept = (await store.state()).next_seq
    if kept >= signed.size:
        return Rebuilt(signed, kept, 0)
    await rebuilding.begin(kept)
    await rebuilding.check_kept(kept)
    epoch = (await store.claim(owner, await rebuilding.topic_ids())).epoch
    await rebuilding.add(epoch, on_progress)
    await store.integrated(epoch, signed.size, signed.root)
    await store.checkpointed(signed.size, note)
    return Rebuilt(signed, kept, signed.size - kept)


def _latest(published: str | None, locked: str | None, trust: Trust) -> tuple[str, list[tuple[str, str]]]:
    """The note with the most entries, and the other one; raises IntegrityError without any, or for one not signed."""
    notes = [(name, note) for name, note in (("the lock store", locked), ("the published log", published)) if note]
    if not notes:
        raise IntegrityError("nothing was ever signed: there is no checkpoint in the lock store or the log")
    try:
        notes.sort(key=lambda named: trust.open(named[1]).checkpoint.size)
    except NoteError as error:
        raise IntegrityError(f"a checkpoint can't be used: {error}") from error
    return notes[-1][1], notes[:-1]


class _Rebuilding:
    """One rebuild from verified files; every read of them is bounded."""

    def __init__(self, store: AuditStore, log: LogSource, signed: Checkpoint) -> None:
        self._store = store
        self._log = log
        self._size = signed.size
        self._walk = EntryWalk(Differences())

    async def begin(self, kept: int) -> None:
        """Stand where the files begin; raises IntegrityError when the database lacks entries that retention dropped."""
        left = await self._log.kept()
        if kept < left.minimum_index:
            raise IntegrityError(
                f"the entries below {left.minimum_index} are gone by retention, and the database has only {kept}: "
                "restore a backup of after the cut first"
            )
        self._walk.begin_at(left)

    async def check_kept(self, kept: int) -> None:
        """Walk over what the database has; raises IntegrityError unless it is the signed log's beginning."""
        for first, end in chunks(self._walk.position, kept):
            _, segment = await self._read(first, end)
            self._walk.join(segment)
            leaves = [segment.leaves[at : at + HASH_BYTES] for at in range(0, len(segment.leaves), HASH_BYTES)]
            rows = await self._store.entries(first, end)
            if [leaf for leaf, _ in rows] != leaves:
                wrong = next((at for at, row in enumerate(rows) if row[0] != leaves[at]), len(rows))
                raise IntegrityError(
                    f"row {first + wrong} of the database is not the entry that was signed there: rebuild into an "
                    "empty database instead"
                )
        snapshot = await self._store.snapshot()
        if snapshot.heads != self._walk.heads:
            raise IntegrityError("the database's heads are not those of its rows: rebuild into an empty database")

    async def topic_ids(self) -> Mapping[Partition, str]:
        """The topic UUID of every partition of the log; raises IntegrityError for a partition with two."""
        found: dict[Partition, str] = {Partition(topic, n): uid for topic, uid, n in self._walk.next_offsets}
        for first, end in chunks(self._walk.position, self._size):
            _, segment = await self._read(first, end)
            for topic, topic_id, number in segment.next_offsets:
                if found.setdefault(Partition(topic, number), topic_id) != topic_id:
                    raise IntegrityError(f"{topic}/{number} was made anew while the log grew: it has two topic UUIDs")
        return found

    async def add(self, epoch: int, on_progress: OnProgress) -> None:
        """Append everything behind what the database has; raises as the store does."""
        cursors = await self._store.cursors()
        for first, end in chunks(self._walk.position, self._size):
            entries, segment = await self._read(first, end)
            self._walk.join(segment)
            moves = [
                CursorMove(partition, topic_id, cursors.get(partition, 0), after)
                for (topic, topic_id, number), after in segment.next_offsets.items()
                for partition in [Partition(topic, number)]
            ]
            await self._store.append(epoch, _sealed(entries, segment), segment.heads, moves)
            cursors |= {move.partition: move.next_offset for move in moves}
            on_progress(end, self._size)

    async def _read(self, first: int, end: int) -> tuple[list[bytes], Segment]:
        tiles = bundles(first, end, self._size)
        entries, found = read_bundles(tiles, await self._log.read(tiles), first, end, {})
        segment = read_entries(first, entries, bundle_of)
        if found or segment.found:
            raise IntegrityError(f"the log's files changed meanwhile: {(found + segment.found)[0].words}")
        return entries, segment


def _sealed(entries: list[bytes], segment: Segment) -> list[Sealed]:
    sealed: list[Sealed] = []
    for number, (data, chain) in enumerate(zip(entries, segment.chains, strict=True)):
        leaf = segment.leaves[number * HASH_BYTES : (number + 1) * HASH_BYTES]
        entry = decode_entry(data)
        sealed.append(Sealed(segment.first + number, entry.tseq, chain, leaf, data, entry.source))
    return sealed
