"""Reads a run of a log's entries without knowing what is before it: every hash, and every rule inside the run.

What depends on the entries before (each chain's and partition's first one, what heads entries say) is handed on to
`processors.audit.walk`, which joins runs in order. So runs can be read beside each other, in processes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from processors.audit.entry import (
    CHAIN_TAG,
    LOG_TENANT,
    MAGIC,
    EntryError,
    EntryScan,
    Head,
    Scanned,
    decode_entry,
    heads_source,
)
from processors.audit.kept import PartitionKey
from processors.audit.merkle import HASH_BYTES, LEAF_PREFIX
from processors.audit.tiles import BUNDLE_LEVEL, TILE_WIDTH, TileId, decode_bundle, tile_root
from schemas.events import ControlAction
from schemas.topics import CONTROL

#: Names the file or row that a position's bytes are from.
Where = Callable[[int], str]
_TILE_BYTES = TILE_WIDTH * HASH_BYTES


class Difference(NamedTuple):
    """Something that is not as it must be."""

    position: int
    kind: str
    words: str


class Start(NamedTuple):
    """A tenant's first entry in a run, which says what is before it."""

    position: int
    tseq: int
    prev_chain: bytes


class Claim(NamedTuple):
    """What an entry of the log's own says, and the chains that grew since the one before it in the run."""

    position: int
    kind: str
    commitment: bytes
    time_micros: int
    grown: dict[str, Head]


@dataclass(slots=True)
class Segment:
    """A run of entries, read."""

    first: int
    count: int = 0
    #: Leaf hashes, 32 bytes each.
    leaves: bytes = b""
    #: The hash above each whole tile of leaves, when the run begins at one.
    tile_roots: list[bytes] = field(default_factory=list)
    #: The chain after each entry; empty bytes after one that can't be read.
    chains: list[bytes] = field(default_factory=list)
    found: list[Difference] = field(default_factory=list)
    #: Per tenant: its first entry here, and where its chain stands at the end.
    starts: dict[str, Start] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    #: Per partition: position and offset of its first entry here, and the offset after its last.
    offsets: dict[PartitionKey, tuple[int, int]] = field(default_factory=dict)
    next_offsets: dict[PartitionKey, int] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    #: Tenants whose chains grew after the last claim.
    grown: dict[str, Head] = field(default_factory=dict)
    #: Whether the last entry may not be the last one under a checkpoint.
    lacks_heads: bool = False
    #: Whether an entry says that retention cut this log.
    tells_of_cut: bool = False
    #: Whether an entry is of today's version, and where the first one of an earlier version is.
    is_salted: bool = False
    unsalted: int | None = None


def bundle_of(position: int) -> str:
    """The bundle that holds an entry."""
    return TileId(BUNDLE_LEVEL, position // TILE_WIDTH, TILE_WIDTH).path


def read_bundles(
    tiles: Sequence[TileId], files: Sequence[bytes | Exception], first: int, end: int, spare: Mapping[int, bytes]
) -> tuple[list[bytes], list[Difference]]:
    """The entries [first, end) out of their bundles, and what is wrong with the files.

    Of a bundle that can't be read the `spare` entries are taken instead (empty bytes where there is none), so that
    those behind it keep their positions.
    """
    entries: list[bytes] = []
    found: list[Difference] = []
    for tile, data in zip(tiles, files, strict=True):
        start = tile.number * TILE_WIDTH
        read, words = _bundle(tile, data)
        if words is not None:
            last = start + tile.width - 1
            found.append(Difference(start, "entries", f"{tile.path} (entries {start} to {last}): {words}"))
            read = [spare.get(position, b"") for position in range(start, last + 1)]
        entries += read[max(first - start, 0) : end - start]
    return entries, found


def _bundle(tile: TileId, data: bytes | Exception) -> tuple[list[bytes], str | None]:
    if isinstance(data, Exception):
        return [], str(data)
    try:
        entries = decode_bundle(data)
    except ValueError as error:
        return [], str(error)
    return entries, None if len(entries) == tile.width else f"has {len(entries)} entries"


def read_files(tiles: Sequence[TileId], files: Sequence[bytes | Exception], first: int, end: int) -> Segment:
    """The run of entries [first, end), out of their bundles."""
    entries, found = read_bundles(tiles, files, first, end, {})
    segment = read_entries(first, entries, bundle_of)
    segment.found = [*found, *segment.found]
    segment.chains.clear()
    return segment


def read_entries(first: int, entries: Sequence[bytes], where: Where) -> Segment:
    """The run of these entries from position `first` on."""
    reading = _Reading(first, where)
    reading.read(entries)
    segment = reading.segment
    segment.count = len(entries)
    if first % TILE_WIDTH == 0:
        leaves = segment.leaves
        ends = range(_TILE_BYTES, len(leaves) + 1, _TILE_BYTES)
        segment.tile_roots = [tile_root(leaves[end - _TILE_BYTES : end]) for end in ends]
    return segment


class _Reading:
    """One run being read. This is where verifying a log takes its time: little is called but what hashes."""

    def __init__(self, first: int, where: Where) -> None:
        self.segment = Segment(first)
        self._where = where

    def read(self, entries: Sequence[bytes]) -> None:
        """Take them all."""
        scan, take, chains, leaves = EntryScan().scan, self._take, self.segment.chains, []
        for position, data in enumerate(entries, self.segment.first):
            leaf = sha256(LEAF_PREFIX + data).digest()
            leaves.append(leaf)
            try:
                chains.append(take(position, leaf, data, scan(data)))
            except EntryError as error:
                chains.append(b"")
                self._add(position, f"({self._where(position)}): {error}")
        self.segment.leaves = b"".join(leaves)

    def _take(self, position: int, leaf: bytes, data: bytes, scanned: Scanned) -> bytes:
        """Apply the rules to an entry; returns the chain after it."""
        magic, seq, tseq, prev_chain, partition, offset, micros, commitment, texts = scanned
        tenant, topic, topic_id, _, kind = texts
        segment = self.segment
        if seq != position:
            self._add(position, f"({self._where(position)}) says that it is entry {seq}")
        if magic == MAGIC:
            segment.is_salted = True
        else:
            self._take_unsalted(position)
        head = segment.heads.get(tenant)
        if head is None:
            segment.starts[tenant] = Start(position, tseq, prev_chain)
        elif head[0] + 1 != tseq or head[1] != prev_chain:
            segment.found += chain_differences(position, tenant, head, tseq, prev_chain)
        chain = sha256(CHAIN_TAG + prev_chain + leaf).digest()
        head = segment.heads[tenant] = Head(tseq, chain)
        if tenant == LOG_TENANT:
            if decode_entry(data).source != heads_source(commitment, micros)._replace(kind=kind):
                self._add(position, f"({self._where(position)}) is one of the log's own and says more than those do")
            segment.lacks_heads = False
            segment.claims.append(Claim(position, kind, commitment, micros, segment.grown))
            segment.grown = {}
            return chain
        segment.lacks_heads = magic == MAGIC
        if kind == ControlAction.PRUNED and topic == CONTROL.name and magic == MAGIC:
            segment.tells_of_cut = True
        segment.grown[tenant] = head
        key = (topic, topic_id, partition)
        expected = segment.next_offsets.get(key)
        segment.next_offsets[key] = offset + 1
        if expected is None:
            segment.offsets[key] = (position, offset)
        elif offset != expected:
            segment.found.append(offset_difference(position, key, offset, expected))
        return chain

    def _take_unsalted(self, position: int) -> None:
        if self.segment.is_salted:
            self.segment.found.append(version_difference(position))
        elif self.segment.unsalted is None:
            self.segment.unsalted = position

    def _add(self, position: int, words: str) -> None:
        self.segment.found.append(Difference(position, "entries", f"entry {position} {words}"))


def chain_differences(position: int, tenant: str, head: Head, tseq: int, prev_chain: bytes) -> list[Difference]:
    """What is wrong between where a tenant's chain stands and its next entry."""
    found: list[Difference] = []
    if tseq != head.tseq + 1:
        words = f"entry {position}: {tenant} goes from its entry {head.tseq} to its entry {tseq}"
        found.append(Difference(position, "chains", words))
    if prev_chain != head.chain:
        words = f"entry {position}: does not continue the chain of {tenant} after its entry {head.tseq}"
        found.append(Difference(position, "chains", words))
    return found


def version_difference(position: int) -> Difference:
    """That a version comes back which needs no heads entry at the end."""
    return Difference(position, "entries", f"entry {position}: is of an earlier version than one before it")


def offset_difference(position: int, key: PartitionKey, offset: int, expected: int) -> Difference:
    """That a partition goes on elsewhere than where it stood."""
    words = f"entry {position}: {key[0]}/{key[2]} goes on at {offset}, not {expected}"
    return Difference(position, "offsets", words)
