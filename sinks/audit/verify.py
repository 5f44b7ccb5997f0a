"""Verification of a whole log: every entry, chain, tile and row is derived again and compared with what was signed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from processors.audit.checkpoint import Checkpoint, parse_checkpoint
from processors.audit.entry import LOG_TENANT, EntryError, Head, decode_entry
from processors.audit.key_chain import KeyChain
from processors.audit.merkle import EMPTY_ROOT, HASH_BYTES
from processors.audit.note import NoteError, parse_note
from processors.audit.segment import Segment, bundle_of, read_bundles, read_entries
from processors.audit.tiles import TileId
from processors.audit.walk import Differences
from processors.parity.checks import Check
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import hand_over_difference
from sinks.audit.lock import LockStore
from sinks.audit.log_walk import LogWalk, OnProgress, bundles, chunks
from sinks.audit.reader import DirectoryLog
from sinks.audit.store import AuditStore, Snapshot, StoredEntry

CHECKS = (
    *("keys", "checkpoint", "lock", "retention", "entries", "tiles", "root", "chains", "tenants", "clock"),
    *("offsets", "rows", "heads", "cursors"),
)


@dataclass(frozen=True)
class AuditReport:
    """What verification found."""

    origin: str
    #: Entries under the published checkpoint.
    size: int
    root: bytes
    #: Entries in the database, published or not yet.
    sequenced: int
    tenants: int
    #: Entries below it are gone by retention: only their hashes were verified.
    minimum_index: int
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return all(check.ok for check in self.checks)

    @property
    def first_difference(self) -> str | None:
        """The first thing that differs, in the order in which the checks build on each other."""
        return next((check.first_difference for check in self.checks if not check.ok), None)

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "ok": self.ok,
            "origin": self.origin,
            "size": self.size,
            "root": base64.b64encode(self.root).decode("ascii"),
            "sequenced": self.sequenced,
            "tenants": self.tenants,
            "minimum_index": self.minimum_index,
            "checks": [check.as_json() for check in self.checks],
        }


async def verify_audit(
    store: AuditStore, files: LogFiles, lock: LockStore, keys: KeyChain, on_progress: OnProgress | None = None
) -> AuditReport:
    """Verify a log against its published checkpoint, its lock store and its rows; may run while the log grows.

    Never raises for what it finds; raises StoreUnavailableError when it can't look.
    """
    verification = _Verification(store, files, on_progress or (lambda _done, _total: None))
    published = await asyncio.to_thread(files.checkpoint)
    locked = await asyncio.to_thread(lock.latest)
    return await verification.run(published, locked, keys)


@dataclass
class _Verification:
    """One run: what it knows so far."""

    store: AuditStore
    files: LogFiles
    on_progress: OnProgress
    differences: Differences = field(default_factory=Differences)

    def __post_init__(self) -> None:
        """Stand before the first entry."""
        self.walk = LogWalk(DirectoryLog(self.files), self.differences)

    async def run(self, published: str | None, locked: str | None, keys: KeyChain) -> AuditReport:
        """Read the signed ends, then walk the entries up to them and beyond to the last row."""
        words = await asyncio.to_thread(hand_over_difference, self.files.directory, keys)
        if words is not None:
            self.differences.add("keys", words)
        signed = self._open("checkpoint", published, keys)
        held = self._open("lock", locked, keys)
        if signed.size > held.size:
            words = f"the lock store has {held.size} entries, the published checkpoint {signed.size}"
            self.differences.add("lock", words)
        elif signed.size == held.size and signed.root != held.root:
            words = f"the lock store has another root at {held.size} entries than the published checkpoint"
            self.differences.add("lock", words)
        snapshot = await self.store.snapshot()
        if snapshot.state.next_seq < signed.size:
            words = (
                f"the database has {snapshot.state.next_seq} entries, the checkpoint {signed.size}: an older backup?"
            )
            self.differences.add("rows", words)
        await self.walk.pass_over_what_is_gone(signed.size)
        ends = {signed.size, held.size}
        for stop in sorted(ends):
            await self._walk_files(stop, max(ends), max(snapshot.state.next_seq, held.size))
            self.walk.compare_end(stop)
            for checkpoint, name in ((signed, "root"), (held, "lock")):
                if checkpoint.size == stop:
                    self.walk.compare_root(checkpoint, name)
        await self._walk_tail(snapshot.state.next_seq)
        self.walk.compare_cut()
        self._compare_snapshot(snapshot)
        return self._report(signed, snapshot)

    def _open(self, name: str, note: str | None, keys: KeyChain) -> Checkpoint:
        if note is None:
            return Checkpoint(keys.name, 0, EMPTY_ROOT)
        try:
            return keys.open_checkpoint(note)
        except NoteError as error:
            self.differences.add(name, f"{name}: {error}")
        try:
            return parse_checkpoint(parse_note(note)[0])
        except NoteError:
            return Checkpoint(keys.name, 0, EMPTY_ROOT)

    async def _walk_files(self, stop: int, size: int, total: int) -> None:
        for first, end in chunks(self.walk.size, stop):
            rows = await self._rows(first, end)
            tiles = bundles(first, end, size)
            entries, segment = await asyncio.to_thread(
                _read_chunk, tiles, await self.walk.log.read(tiles), first, end, rows
            )
            await self.walk.take(segment, partial=end == stop)
            self._compare_rows(entries, segment, rows)
            self.on_progress(end, total)

    async def _rows(self, first: int, end: int) -> dict[int, StoredEntry]:
        return {row.seq: row async for page in self.store.rows(first, end) for row in page}

    def _compare_rows(self, entries: list[bytes], segment: Segment, rows: dict[int, StoredEntry]) -> None:
        hashes = [segment.leaves[start : start + HASH_BYTES] for start in range(0, len(segment.leaves), HASH_BYTES)]
        for position, (data, leaf, chain) in enumerate(
            zip(entries, hashes, segment.chains, strict=True), segment.first
        ):
            row = rows.get(position)
            if row is None:
                self.differences.add("rows", f"entry {position} has no row in the database")
            elif row != (expected := _row(position, leaf, chain, data)):
                self.differences.add("rows", _row_words(position, row, expected))

    async def _walk_tail(self, end: int) -> None:
        """Rows that are sequenced but not published yet."""
        walk = self.walk.entries
        async for page in self.store.rows(walk.position, end):
            entries = [row.entry for row in page]
            segment = read_entries(walk.position, entries, lambda _position: "its row")
            self._compare_rows(entries, segment, dict(enumerate(page, walk.position)))
            walk.join(segment)
        if walk.position < end:
            self.differences.add("rows", f"entry {walk.position} has no row in the database")

    def _compare_snapshot(self, snapshot: Snapshot) -> None:
        walk = self.walk.entries
        if walk.position != snapshot.state.next_seq:
            return
        _compare(self.differences, "heads", "the chain of", walk.heads, snapshot.heads)
        found: dict[Any, Any] = {(topic, number): end for (topic, _, number), end in walk.next_offsets.items()}
        cursors = {tuple(partition): offset for partition, offset in snapshot.cursors.items() if offset}
        _compare(self.differences, "cursors", "the cursor of", found, cursors)

    def _report(self, signed: Checkpoint, snapshot: Snapshot) -> AuditReport:
        return report_of(CHECKS, self.walk, signed, snapshot.state.next_seq)


def report_of(names: Sequence[str], walk: LogWalk, signed: Checkpoint, sequenced: int) -> AuditReport:
    """The report of these checks after a walk."""
    first = walk.differences.first
    checks = tuple(
        Check(name, name not in first, "no difference", first.get(name, "no difference"), first.get(name))
        for name in names
    )
    tenants = len(walk.entries.heads.keys() - {LOG_TENANT})
    return AuditReport(signed.origin, signed.size, signed.root, sequenced, tenants, walk.minimum_index, checks)


def _compare(differences: Differences, kind: str, what: str, found: dict[Any, Any], kept: dict[Any, Any]) -> None:
    for key in sorted(found.keys() | kept.keys(), key=str):
        if found.get(key) != kept.get(key):
            words = f"{what} {key}: the entries give {_shown(found.get(key))}, the database has {_shown(kept.get(key))}"
            differences.add(kind, words)


def _shown(value: Any) -> str:
    if isinstance(value, Head):
        return f"{value.tseq} entries ending in {value.chain.hex()[:16]}"
    return "nothing" if value is None else str(value)


def _read_chunk(
    tiles: list[TileId], files: Sequence[bytes | Exception], first: int, end: int, rows: dict[int, StoredEntry]
) -> tuple[list[bytes], Segment]:
    """Of a bundle that can't be read the rows' entries are taken, so that the walk can go on."""
    spare = {position: row.entry for position, row in rows.items()}
    entries, found = read_bundles(tiles, files, first, end, spare)
    segment = read_entries(first, entries, bundle_of)
    segment.found = [*found, *segment.found]
    return entries, segment


def _row(position: int, leaf: bytes, chain: bytes, data: bytes) -> StoredEntry | None:
    """The row that an entry must have; None for bytes that are no entry."""
    try:
        entry = decode_entry(data)
    except EntryError:
        return None
    source = entry.source
    return StoredEntry(
        position,
        source.tenant_id,
        entry.tseq,
        chain,
        leaf,
        data,
        source.topic,
        source.partition,
        source.offset,
        source.event_id,
        source.request_id,
        source.amount_nano,
    )


def _row_words(position: int, row: StoredEntry, expected: StoredEntry | None) -> str:
    if expected is None:
        return f"entry {position}: its row can't be compared"
    wrong = next(name for name in StoredEntry._fields if getattr(row, name) != getattr(expected, name))
    return f"entry {position}: column {wrong} of its row is not what the entry says"
