"""Integration and publication: sequenced entries become durable tiles, and the tree's root a signed checkpoint.

The order is fixed (protocols.md, ledgers): tiles durable, the database told, sign, compare-and-set in the lock store,
witnesses, publish. A crash after any step leaves a log that verifies, and opening finishes what was begun.
"""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from processors.audit.checkpoint import Checkpoint
from processors.audit.edge import TreeEdge, load_edge
from processors.audit.entry import is_own
from processors.audit.key_chain import signing_ids
from processors.audit.merkle import consistency_proof, leaf_hash
from processors.audit.tiles import TILE_WIDTH, tile_of_node
from schemas.errors import FencedError, IntegrityError
from schemas.limits import AUDIT_INTEGRATE_ENTRIES_MAX, AUDIT_UNINTEGRATED_ENTRIES_MAX
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.layout import Probe, no_probe
from sinks.audit.lock import LockStore
from sinks.audit.recovery import refuse_rollback
from sinks.audit.store import AuditStore, LogState
from sinks.audit.witnesses import Cosigners, NoCosigners

log = structlog.get_logger(__name__)
#: How often a swap may lose: to one that seemed to fail, to a key that comes and to one that goes.
SWAPS = 4


class Publisher:
    """Keeps files and checkpoint up with the database. One call at a time; only under the sequencer's epoch."""

    def __init__(
        self,
        store: AuditStore,
        files: LogFiles,
        lock: LockStore,
        ring: KeyRing,
        probe: Probe = no_probe,
        cosigners: Cosigners | None = None,
    ) -> None:
        """Call `open` first. Raises ConfigurationError when the keys are unusable."""
        self._cosigners = cosigners or NoCosigners()
        self._store = store
        self._files = files
        self._lock = lock
        self._ring = ring
        self._keys = ring.open()
        self._probe = probe
        self._edge = TreeEdge()
        #: Entries just sequenced, from a position on, so that they need not be read back; no more than a bound.
        self._recent_first = 0
        self._recent: list[bytes] = []
        #: Latest signed checkpoint, as the lock store has it, and the one that the public file has; no cosignatures.
        self._note: str | None = None
        self._published: str | None = None
        self._epoch = 0
        #: Whether the last entry in tiles is a heads entry: only there a checkpoint is signed.
        self._ends_with_heads = False
        #: Size of the latest signed checkpoint.
        self.signed_size = 0
        #: Size of the published checkpoint; behind the signed one while that waits for witnesses.
        self.published_size = 0

    @property
    def size(self) -> int:
        """How many entries are in durable tiles."""
        return self._edge.size

    async def check(self, state: LogState) -> None:
        """Refuse a rolled-back database before anything is claimed; raises as `open` does."""
        note = await asyncio.to_thread(self._lock.latest)
        refuse_rollback(state, note, await asyncio.to_thread(self._files.checkpoint), self._keys.chain)

    async def open(self, state: LogState) -> None:
        """Check database, files, lock store and checkpoint against each other, and finish what a crash interrupted.

        Raises IntegrityError, saying what to do, when the database is behind the last signed checkpoint or holds
        another history; ConfigurationError when the key is not the log's.
        """
        self._epoch, self._recent = state.epoch, []
        self._note = await asyncio.to_thread(self._lock.latest)
        self._published = await asyncio.to_thread(self._files.checkpoint)
        self._keys = await asyncio.to_thread(self._ring.load)
        signed = refuse_rollback(state, self._note, self._published, self._keys.chain)
        self.signed_size = signed.size
        if self._note is not None and (self._published or "").startswith(self._note):
            self._published, self.published_size = self._note, signed.size
        self._edge = await self._load(state)
        last = await self._store.entries(max(self._edge.size - 1, 0), self._edge.size)
        self._ends_with_heads = bool(last) and is_own(last[0][1])
        await self._check_signed(signed)
        await asyncio.to_thread(self._ring.publish)
        if await self.publish():
            log.info("audit_checkpoint_published_again", size=self.signed_size)

    async def _load(self, state: LogState) -> TreeEdge:
        """The edge at the integrated size; every file is made again from the rows when the directory is gone."""
        if state.integrated_size == 0 or not self._files.directory.is_dir():
            return TreeEdge()
        edge = await asyncio.to_thread(self._edge_at, state.integrated_size)
        if edge is None or edge.root() != state.integrated_root:
            raise IntegrityError(
                f"the tiles in {self._files.directory} do not give the root that the database has at "
                f"{state.integrated_size} entries; run `quaestor audit verify` to see where. To make the tiles again "
                "from the database, move that directory away and start again"
            )
        return edge

    async def _check_signed(self, signed: Checkpoint) -> None:
        """The last signed checkpoint's tree is the one we hold: its root from the tiles, its last entry from a row."""
        while self._edge.size < signed.size:
            await self._integrate_to(signed.size)
        if signed.size == 0:
            return
        root = await asyncio.to_thread(self._root_at, signed.size)
        rows = await self._store.entries(signed.size - 1, signed.size)
        leaf = await asyncio.to_thread(self._leaf, signed.size)
        if root != signed.root or not rows or leaf_hash(rows[0][1]) != leaf:
            raise IntegrityError(
                f"the last signed checkpoint ({signed.size} entries) is of another history than the one held "
                "here: do not run this log. Run `quaestor audit verify`, and restore database and files together"
            )

    def _edge_at(self, size: int) -> TreeEdge | None:
        """The edge at a size from the tiles; None when they do not have it."""
        try:
            return load_edge(size, self._files.read)
        except IntegrityError as error:
            log.warning("audit_tiles_unusable", size=size, reason=str(error))
            return None

    def _root_at(self, size: int) -> bytes | None:
        edge = self._edge_at(size)
        return None if edge is None else edge.root()

    def _leaf(self, size: int) -> bytes:
        tile, item, _ = tile_of_node(0, size - 1, size)
        return self._files.read(tile)[item * 32 : (item + 1) * 32]

    async def integrate(self) -> int:
        """Put what is sequenced into durable tiles; returns how many entries were added.

        Raises FencedError, StoreUnavailableError, and IntegrityError when a row is missing or not what its leaf says.
        """
        return await self._integrate_to(self._edge.size + AUDIT_INTEGRATE_ENTRIES_MAX)

    async def _integrate_to(self, end: int) -> int:
        first = self._edge.size
        entries = await self._read(first, min(end, first + AUDIT_INTEGRATE_ENTRIES_MAX))
        if not entries:
            if end <= self.signed_size:
                raise IntegrityError(
                    f"entry {first} is missing from the database; restore it from a newer backup, or, where retention "
                    f"cut the log, {self._files.directory} from one"
                )
            return 0
        entries = _up_to_heads(entries)
        edge, files = await asyncio.to_thread(self._edge.grow, entries)
        await asyncio.to_thread(self._files.write, files, self.signed_size)
        await self._store.integrated(self._epoch, edge.size, edge.root())
        self._edge = edge
        self._ends_with_heads = is_own(entries[-1])
        if edge.size // TILE_WIDTH > first // TILE_WIDTH:
            await asyncio.to_thread(self._files.collect, first, edge.size)
        return len(entries)

    def offer(self, first_seq: int, entries: list[bytes]) -> None:
        """Take entries that were just committed, to spare reading them back; kept while they follow on."""
        follows = first_seq == self._recent_first + len(self._recent)
        if not follows or len(self._recent) > AUDIT_UNINTEGRATED_ENTRIES_MAX:
            self._recent_first, self._recent = first_seq, []
        self._recent += entries

    def _take_recent(self, first: int, end: int) -> list[bytes]:
        """The entries [first, end) as far as they were offered, and forget what is before them."""
        if not self._recent_first <= first < self._recent_first + len(self._recent):
            return []
        self._recent = self._recent[first - self._recent_first :]
        self._recent_first = first
        return self._recent[: end - first]

    async def _read(self, first: int, end: int) -> list[bytes]:
        recent = self._take_recent(first, end)
        if recent:
            return recent
        rows = await self._store.entries(first, end)
        for position, (leaf, entry) in enumerate(rows, first):
            if leaf_hash(entry) != leaf or int.from_bytes(entry[9:17], "big") != position:
                raise IntegrityError(f"row {position} of the audit log was changed or lost after it was written")
        return [entry for _, entry in rows]

    async def publish(self) -> bool:
        """Sign and publish a checkpoint of what is in tiles, if that ends with heads; False when nothing was published.

        What is signed is published before more is signed: while witnesses are missing, one checkpoint waits.

        Raises StoreUnavailableError, FencedError when a newer owner signs by now, and IntegrityError when the lock
        store has a checkpoint that is neither ours nor a newer owner's: someone else signs this log.
        """
        grown = self._edge.size > self.signed_size and self._ends_with_heads
        if grown and self._note == self._published:
            checkpoint = Checkpoint(self._keys.chain.name, self._edge.size, self._edge.root())
            note = self._keys.sign(checkpoint, self._note)
            self._probe("signed")
            try:
                await asyncio.to_thread(self._swap, checkpoint, note)
            except IntegrityError as error:
                await self._refuse_fenced(error)
                raise
            self._probe("locked")
        if self._note is None or self._note == self._published:
            return False
        shown = await self._cosigned(self._note)
        if shown is None:
            return False
        await asyncio.to_thread(self._files.publish, shown)
        self._probe("published")
        await self._store.checkpointed(self.signed_size, shown)
        self._published, self.published_size = self._note, self.signed_size
        return True

    async def _refuse_fenced(self, error: IntegrityError) -> None:
        """One that was frozen here and wakes up finds what its successor signed: more than its own tree has."""
        if (await self._store.state()).epoch != self._epoch:
            raise FencedError("the audit log", self._epoch) from error

    async def _cosigned(self, note: str) -> str | None:
        """The note with its witnesses' lines, None while those are too few; raises as `publish` does."""
        shown = await self._cosigners.cosign(note, self.signed_size, partial(self._prove, self.signed_size))
        if shown is None:
            return None
        self._probe("cosigned")
        # Witnesses take their time: what a newer owner has published by now must not go back.
        latest = await asyncio.to_thread(self._lock.latest)
        if latest == note:
            return shown
        try:
            await asyncio.to_thread(self._adopt_resigned, note, latest)
        except IntegrityError as error:
            await self._refuse_fenced(error)
            raise
        return None

    def _adopt_resigned(self, note: str, latest: str | None) -> None:
        """Go on from what a change of keys made of our checkpoint: it is to be witnessed with that signature."""
        size, name = self._adopt(latest).size, self._keys.chain.name
        if size != self.signed_size or signing_ids(note, name) == signing_ids(latest or "", name):
            raise IntegrityError("the lock store changed while witnesses were asked: another one signs this log")

    def _prove(self, size: int, old_size: int) -> list[bytes]:
        """The proof for a witness that stands at an older size; from nothing, nothing is to be proven."""
        return consistency_proof(old_size, size, self._files.nodes(size)) if old_size else []

    def _swap(self, checkpoint: Checkpoint, note: str) -> None:
        for _ in range(SWAPS):
            if self._note == note or self._lock.swap(self._note, note):
                self._note, self.signed_size = note, checkpoint.size
                return
            self._adopt(self._lock.latest())
            if self._note != note:
                note = self._keys.sign(checkpoint, self._note)
        raise IntegrityError("the lock store changes under this process: another one signs this log")

    def _adopt(self, note: str | None) -> Checkpoint:
        """Go on from a checkpoint we did not know.

        It is of the owner before us, or one whose swap seemed to fail, or ours with the signature of another key.
        """
        self._keys = self._ring.load()
        found = None if note is None else self._keys.chain.open_checkpoint(note)
        if found is None or found.size > self._edge.size or self._root_at(found.size) != found.root:
            raise IntegrityError("the lock store holds a checkpoint of another history; run `quaestor audit verify`")
        self._note = note
        return found


def _up_to_heads(entries: list[bytes]) -> list[bytes]:
    """The entries up to the last heads entry; all of them, when a batch is larger than one step and has none yet."""
    last = next((position for position in range(len(entries), 0, -1) if is_own(entries[position - 1])), len(entries))
    return entries[:last]
