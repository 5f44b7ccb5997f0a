"""Verification of a whole log: every entry, chain, tile and row is derived again and compared with what was signed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from processors.audit.checkpoint import Checkpoint, parse_checkpoint
from processors.audit.edge import TileFile, TreeEdge
from processors.audit.entry import LOG_TENANT, Entry, Head
from processors.audit.kept import EVERYTHING, Kept
from processors.audit.key_chain import KeyChain
from processors.audit.merkle import EMPTY_ROOT, HASH_BYTES
from processors.audit.note import NoteError, parse_note
from processors.audit.tiles import BUNDLE_LEVEL, TILE_WIDTH, TileId, decode_bundle, tiles_of
from processors.audit.walk import Differences, EntryWalk
from processors.parity.checks import Check
from schemas.errors import IntegrityError
from schemas.events import ControlAction
from schemas.topics import CONTROL
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import hand_over_difference
from sinks.audit.lock import LockStore
from sinks.audit.store import AuditStore, Snapshot, StoredEntry

#: Called with (entries done, entries in all).
OnProgress = Callable[[int, int], None]
#: Entries verified between two looks at the disk and the database.
CHUNK_ENTRIES = 16 * TILE_WIDTH
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
    edge: TreeEdge = field(default_factory=TreeEdge)
    #: First hash tile or entry that does not fit its bundle: (tile path, leaf index or None).
    misfit: tuple[str, int | None] | None = None
    kept: Kept = EVERYTHING
    #: Whether an entry says that retention cut this log.
    tells_of_cut: bool = False

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
        self.walk = EntryWalk(self.differences, _bundle_of)
        await asyncio.to_thread(self._pass_over_what_is_gone, signed.size)
        for stop in sorted({signed.size, held.size}):
            await self._walk_files(stop, max(snapshot.state.next_seq, held.size))
            if stop and self.walk.lacks_heads:
                self.differences.add("tenants", f"the checkpoint of {stop} entries does not end with a heads entry")
            for checkpoint, name in ((signed, "root"), (held, "lock")):
                if checkpoint.size == stop:
                    self._compare_root(checkpoint, name)
        await self._walk_tail(snapshot.state.next_seq)
        if self.kept.minimum_index and not self.tells_of_cut:
            self.differences.add("retention", "the log is cut, but no entry after the cut says so")
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

    def _pass_over_what_is_gone(self, size: int) -> None:
        """Begin where retention left the log: over the hash tiles of what is gone, which must be there."""
        try:
            self.kept = self._kept_below(size)
            while self.edge.size < self.kept.minimum_index:
                tile = TileId(0, self.edge.size // TILE_WIDTH, TILE_WIDTH)
                self.edge, derived = self.edge.grow_over(self.files.read(tile))
                self._compare_files(derived)
        except (ValueError, IntegrityError) as error:
            self.differences.add("retention", str(error))
            self.kept, self.edge = EVERYTHING, TreeEdge()
        self.walk.begin_at(self.kept)

    def _kept_below(self, size: int) -> Kept:
        kept = self.files.kept()
        if kept.minimum_index and kept.minimum_index >= size:
            raise IntegrityError(f"the minimum index is {kept.minimum_index}, but the checkpoint's size {size}")
        return kept

    async def _walk_files(self, stop: int, total: int) -> None:
        while self.edge.size < stop:
            first = self.edge.size
            end = min(stop, first - first % CHUNK_ENTRIES + CHUNK_ENTRIES)
            rows = await self._rows(first, end)
            entries, grown = await asyncio.to_thread(self._read_chunk, first, end, rows)
            self.edge, derived = grown
            # Partial tiles exist for the sizes that were published, not for every chunk's end.
            files = [file for file in derived if file[0].width == TILE_WIDTH]
            files += self.edge.partial_files() if end == stop else []
            await asyncio.to_thread(self._compare_files, files)
            self._compare_rows(entries, rows)
            self.on_progress(end, total)

    async def _rows(self, first: int, end: int) -> dict[int, StoredEntry]:
        return {row.seq: row async for page in self.store.rows(first, end) for row in page}

    def _read_chunk(
        self, first: int, end: int, rows: dict[int, StoredEntry]
    ) -> tuple[list[bytes], tuple[TreeEdge, list[TileFile]]]:
        entries: list[bytes] = []
        for tile in tiles_of(BUNDLE_LEVEL, end, first // TILE_WIDTH):
            start = tile.number * TILE_WIDTH
            found = self._read_bundle(tile, rows)
            entries.extend(found[max(first - start, 0) :])
        return entries, self.edge.grow(entries)

    def _read_bundle(self, tile: TileId, rows: dict[int, StoredEntry]) -> list[bytes]:
        """A bundle's entries; of one that can't be read the rows' instead, so that the walk can go on."""
        start = tile.number * TILE_WIDTH
        try:
            entries = decode_bundle(self.files.read(tile))
            words = None if len(entries) == tile.width else f"has {len(entries)} entries"
        except (ValueError, IntegrityError) as error:
            entries, words = [], str(error)
        if words is None:
            return entries
        last = start + tile.width - 1
        self.differences.add("entries", f"{tile.path} (entries {start} to {last}): {words}")
        return [rows[seq].entry if seq in rows else b"" for seq in range(start, start + tile.width)]

    def _compare_files(self, derived: list[TileFile]) -> None:
        for tile, data in derived:
            if tile.level == BUNDLE_LEVEL or self.misfit is not None:
                continue
            try:
                found = self.files.read(tile)
            except IntegrityError as error:
                self.misfit = (f"{error}, so it", None)
                continue
            if found != data:
                item = _first_item(found, data)
                leaf = tile.number * TILE_WIDTH + item if tile.level == 0 else None
                self.misfit = (f"{tile.path} item {item}", leaf)

    def _compare_rows(self, entries: list[bytes], rows: dict[int, StoredEntry]) -> None:
        for data in entries:
            position = self.walk.position
            entry, leaf, chain = self._take(data)
            row = rows.get(position)
            if row is None:
                self.differences.add("rows", f"entry {position} has no row in the database")
            elif row != _row(position, entry, leaf, chain, data):
                self.differences.add("rows", _row_words(position, row, entry, leaf, chain, data))

    def _take(self, data: bytes) -> tuple[Entry | None, bytes, bytes]:
        entry, leaf, chain = self.walk.take(data)
        if entry is not None and entry.source.kind == ControlAction.PRUNED and entry.source.topic == CONTROL.name:
            self.tells_of_cut = True
        return entry, leaf, chain

    def _compare_root(self, checkpoint: Checkpoint, name: str) -> None:
        """The root settles who is right where bundle and tile disagree."""
        if self.edge.root() == checkpoint.root:
            if self.misfit is not None:
                self.differences.add("tiles", f"{self.misfit[0]} is not the hash of what it covers")
            return
        if self.misfit is not None:
            words, leaf = self.misfit
            if leaf is None:
                self.differences.add("tiles", f"{words}, or a tile below it, is not the hash that was signed")
            else:
                words = f"entry {leaf} ({_bundle_of(leaf)}) is not the entry whose hash was signed"
                self.differences.add("entries", words)
        self.differences.add(name, f"the entries do not give the root signed at {checkpoint.size} entries")

    async def _walk_tail(self, end: int) -> None:
        """Rows that are sequenced but not published yet."""
        self.walk.where = lambda _position: "its row"
        async for page in self.store.rows(self.walk.position, end):
            for row in page:
                position = self.walk.position
                entry, leaf, chain = self._take(row.entry)
                if row != _row(position, entry, leaf, chain, row.entry):
                    self.differences.add("rows", _row_words(position, row, entry, leaf, chain, row.entry))
        if self.walk.position < end:
            self.differences.add("rows", f"entry {self.walk.position} has no row in the database")

    def _compare_snapshot(self, snapshot: Snapshot) -> None:
        if self.walk.position != snapshot.state.next_seq:
            return
        _compare(self.differences, "heads", "the chain of", self.walk.heads, snapshot.heads)
        found: dict[Any, Any] = {(topic, number): end for (topic, _, number), end in self.walk.next_offsets.items()}
        cursors = {tuple(partition): offset for partition, offset in snapshot.cursors.items() if offset}
        _compare(self.differences, "cursors", "the cursor of", found, cursors)

    def _report(self, signed: Checkpoint, snapshot: Snapshot) -> AuditReport:
        first = self.differences.first
        checks = tuple(
            Check(name, name not in first, "no difference", first.get(name, "no difference"), first.get(name))
            for name in CHECKS
        )
        return AuditReport(
            signed.origin,
            signed.size,
            signed.root,
            snapshot.state.next_seq,
            len(self.walk.heads.keys() - {LOG_TENANT}),
            self.kept.minimum_index,
            checks,
        )


def _compare(differences: Differences, kind: str, what: str, found: dict[Any, Any], kept: dict[Any, Any]) -> None:
    for key in sorted(found.keys() | kept.keys(), key=str):
        if found.get(key) != kept.get(key):
            words = f"{what} {key}: the entries give {_shown(found.get(key))}, the database has {_shown(kept.get(key))}"
            differences.add(kind, words)


def _shown(value: Any) -> str:
    if isinstance(value, Head):
        return f"{value.tseq} entries ending in {value.chain.hex()[:16]}"
    return "nothing" if value is None else str(value)


def _bundle_of(position: int) -> str:
    return TileId(BUNDLE_LEVEL, position // TILE_WIDTH, TILE_WIDTH).path


def _first_item(found: bytes, expected: bytes) -> int:
    starts = range(0, len(expected), HASH_BYTES)
    return next(
        start // HASH_BYTES
        for start in starts
        if found[start : start + HASH_BYTES] != expected[start : start + HASH_BYTES]
    )


def _row(position: int, entry: Entry | None, leaf: bytes, chain: bytes, data: bytes) -> StoredEntry | None:
    if entry is None:
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


def _row_words(position: int, row: StoredEntry, entry: Entry | None, leaf: bytes, chain: bytes, data: bytes) -> str:
    expected = _row(position, entry, leaf, chain, data)
    if expected is None:
        return f"entry {position}: its row can't be compared"
    wrong = next(name for name in StoredEntry._fields if getattr(row, name) != getattr(expected, name))
    return f"entry {position}: column {wrong} of its row is not what the entry says"
