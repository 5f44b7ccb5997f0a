"""Walks a log's public files from the first entry on, and derives every chain, tile and root again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import pairwise

from processors.audit.checkpoint import Checkpoint
from processors.audit.edge import HashEdge, TileFile
from processors.audit.kept import EVERYTHING, Kept
from processors.audit.merkle import HASH_BYTES
from processors.audit.segment import Segment, bundle_of, read_files
from processors.audit.tiles import BUNDLE_LEVEL, TILE_WIDTH, TileId
from processors.audit.walk import Differences, EntryWalk
from schemas.errors import IntegrityError
from sinks.audit.reader import LogSource, read_sound

#: Called with (entries done, entries in all).
OnProgress = Callable[[int, int], None]
#: Entries read at once.
CHUNK_ENTRIES = 32 * TILE_WIDTH
#: Chunks read and hashed ahead of the one that is joined.
CHUNKS_AHEAD_MAX = 4
#: A log of no more is read before other processes would have started.
SMALL_ENTRIES = 8 * CHUNK_ENTRIES


@dataclass
class LogWalk:
    """One walk over one log; what differs is kept in `differences`."""

    log: LogSource
    differences: Differences
    edge: HashEdge = field(default_factory=HashEdge)
    #: First hash tile or entry that does not fit its bundle: (tile path, leaf index or None).
    misfit: tuple[str, int | None] | None = None

    def __post_init__(self) -> None:
        """Stand before the first entry."""
        #: Entries below it are gone by retention: only their hashes are verified.
        self.minimum_index = 0
        self.entries = EntryWalk(self.differences)

    async def pass_over_what_is_gone(self, size: int, sizes: Collection[int] = ()) -> dict[int, bytes]:
        """Begin a log of `size` where retention left it, over the hash tiles of what is gone, which must be there.

        Returns the roots at those of `sizes` that are passed. They are made of the very hashes that lead to the signed
        root: whoever serves the files may answer otherwise when asked again.
        """
        roots: dict[int, bytes] = {}
        try:
            kept = _below(await self.log.kept(), size)
            for first, end in chunks(0, kept.minimum_index):
                hashes = await self._gone(first, end, size)
                derived: list[TileFile] = []
                for stop in sorted({*sizes, end}):
                    if first < stop <= end:
                        start = self.edge.size - first
                        derived += self.edge.take(hashes[start * HASH_BYTES : (stop - first) * HASH_BYTES])
                        roots[stop] = self.edge.root()
                await self._compare(derived)
        except IntegrityError as error:
            self.differences.add("retention", str(error))
            kept, self.edge, roots = EVERYTHING, HashEdge(), {}
        self.entries.begin_at(kept)
        self.minimum_index = kept.minimum_index
        return roots

    async def _gone(self, first: int, end: int, size: int) -> bytes:
        """The leaf hashes of entries that are gone, of whole tiles; raises IntegrityError when they are not there."""
        tiles = await read_sound(self.log, [tile._replace(level=0) for tile in bundles(first, end, size)])
        for tile, data in tiles.items():
            if len(data) != tile.width * HASH_BYTES:
                raise IntegrityError(f"{tile.path} has {len(data)} bytes")
        return b"".join(tiles.values())

    def compare_cut(self) -> None:
        """Of a log that was cut, an entry that is left says so."""
        if self.minimum_index and not self.entries.tells_of_cut:
            self.differences.add("retention", "the log is cut, but no entry after the cut says so")

    @property
    def size(self) -> int:
        """Entries walked."""
        return self.edge.size

    async def take(self, segment: Segment, *, partial: bool) -> None:
        """Join the next run, and compare the tiles it completes; with `partial` the unfinished ones at its end too."""
        derived = self.edge.take(segment.leaves, segment.tile_roots)
        self.entries.join(segment)
        await self._compare(derived + (self.edge.partial() if partial else []))

    async def _compare(self, derived: list[TileFile]) -> None:
        if self.misfit is not None or not derived:
            return
        for (tile, data), found in zip(derived, await self.log.read([tile for tile, _ in derived]), strict=True):
            if isinstance(found, IntegrityError):
                self.misfit = (f"{found}, so it", None)
            elif len(found) != len(data):
                self.misfit = (f"{tile.path} has {len(found)} bytes, so it", None)
            elif found != data:
                item = _first_item(found, data)
                self.misfit = (f"{tile.path} item {item}", tile.number * TILE_WIDTH + item if tile.level == 0 else None)
            if self.misfit is not None:
                return

    def compare_root(self, checkpoint: Checkpoint, name: str) -> None:
        """Compare the root here with a signed one; it settles who is right where bundle and tile disagree."""
        if self.edge.root() == checkpoint.root:
            if self.misfit is not None:
                self.differences.add("tiles", f"{self.misfit[0]} is not the hash of what it covers")
            return
        if self.misfit is not None:
            words, leaf = self.misfit
            if leaf is None:
                self.differences.add("tiles", f"{words}, or a tile below it, is not the hash that was signed")
            else:
                words = f"entry {leaf} ({bundle_of(leaf)}) is not the entry whose hash was signed"
                self.differences.add("entries", words)
        self.differences.add(name, f"the entries do not give the root signed at {checkpoint.size} entries")

    def compare_end(self, size: int) -> None:
        """A checkpoint's last entry says where every tenant stands."""
        if size and self.entries.lacks_heads:
            self.differences.add("tenants", f"the checkpoint of {size} entries does not end with a heads entry")


def chunks(first: int, stop: int) -> list[tuple[int, int]]:
    """The runs from `first` to `stop` that are read at once; all but the first begin at a multiple of their length."""
    bounds = [first, *range(first - first % CHUNK_ENTRIES + CHUNK_ENTRIES, stop, CHUNK_ENTRIES), stop]
    return [(start, end) for start, end in pairwise(bounds) if start < end]


def bundles(first: int, end: int, size: int) -> list[TileId]:
    """The bundles of a log of `size` that hold the entries [first, end)."""
    numbers = range(first // TILE_WIDTH, -(-end // TILE_WIDTH))
    return [TileId(BUNDLE_LEVEL, number, min(TILE_WIDTH, size - number * TILE_WIDTH)) for number in numbers]


async def segments(
    log: LogSource, first: int, stop: int, size: int, executor: Executor | None = None
) -> AsyncIterator[Segment]:
    """The runs from `first` to `stop` of a log of `size`, in order, hashed in the executor's processes or a thread."""
    if size <= SMALL_ENTRIES:
        executor = None
    loop, ahead = asyncio.get_running_loop(), deque[asyncio.Future[Segment]]()
    try:
        for start, end in chunks(first, stop):
            tiles = bundles(start, end, size)
            files = await log.read(tiles)
            ahead.append(loop.run_in_executor(executor, read_files, tiles, files, start, end))
            if len(ahead) > CHUNKS_AHEAD_MAX:
                yield await ahead.popleft()
        while ahead:
            yield await ahead.popleft()
    finally:
        for each in ahead:
            each.cancel()


def _below(kept: Kept, size: int) -> Kept:
    if kept.minimum_index and kept.minimum_index >= size:
        raise IntegrityError(f"the minimum index is {kept.minimum_index}, but the checkpoint's size {size}")
    return kept


def _first_item(found: bytes, expected: bytes) -> int:
    starts = range(0, len(expected), HASH_BYTES)
    return next(
        start // HASH_BYTES
        for start in starts
        if found[start : start + HASH_BYTES] != expected[start : start + HASH_BYTES]
    )
