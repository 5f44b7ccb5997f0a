"""The right edge of a tiled log: what must be in memory to append entries and say which files that makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from processors.audit.merkle import HASH_BYTES, LEAF_PREFIX, fold_root, perfect_subtrees
from processors.audit.tiles import (
    BUNDLE_LEVEL,
    TILE_HEIGHT,
    TILE_WIDTH,
    TileId,
    decode_bundle,
    encode_bundle,
    level_size,
    levels_of,
    subtree_hash,
    tile_root,
)
from schemas.errors import IntegrityError

#: One file to write: its tile and its bytes.
TileFile = tuple[TileId, bytes]
TILE_BYTES = TILE_WIDTH * HASH_BYTES


class HashEdge:
    """The unfinished hash tile of every level of a log of `size`; it grows by leaf hashes."""

    __slots__ = ("_levels", "size")

    def __init__(self, size: int = 0, levels: Sequence[bytes] = ()) -> None:
        """The edge at a size: the hashes of each level's partial tile (maybe none)."""
        self.size = size
        self._levels = [*levels]

    def copy(self) -> HashEdge:
        """One that grows apart."""
        return HashEdge(self.size, self._levels)

    def root(self) -> bytes:
        """The root over everything appended."""
        return fold_root([self._node(level, index) for level, index in perfect_subtrees(0, self.size)])

    def _node(self, level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        return subtree_hash(self._levels[tile_level], (index << height) % TILE_WIDTH, height)

    def take(self, leaves: bytes, tile_roots: Sequence[bytes] = ()) -> list[TileFile]:
        """Append leaf hashes; returns the tiles that became full.

        `tile_roots` are the hashes above each whole tile of these leaves, if the caller has them and the first leaf
        begins one.
        """
        files: list[TileFile] = []
        known, position = iter(tile_roots), 0
        while position < len(leaves):
            room = TILE_BYTES - self.size % TILE_WIDTH * HASH_BYTES
            taken = leaves[position : position + room]
            self._push(0, taken)
            self.size += len(taken) // HASH_BYTES
            position += len(taken)
            if self.size % TILE_WIDTH == 0:
                self._finish(files, next(known, None))
        return files

    def _finish(self, files: list[TileFile], tile_root_known: bytes | None) -> None:
        level, above = 0, tile_root_known
        while level < len(self._levels) and len(self._levels[level]) == TILE_BYTES:
            hashes, self._levels[level] = self._levels[level], b""
            files.append((TileId(level, level_size(level, self.size) // TILE_WIDTH - 1, TILE_WIDTH), hashes))
            level += 1
            self._push(level, tile_root(hashes) if above is None else above)
            above = None

    def _push(self, level: int, hashes: bytes) -> None:
        if level == len(self._levels):
            self._levels.append(b"")
        self._levels[level] += hashes

    def partial(self, old_size: int = 0) -> list[TileFile]:
        """The partial tiles at this size that a log of `old_size` did not have."""
        files: list[TileFile] = []
        for level, hashes in enumerate(self._levels):
            now = level_size(level, self.size)
            if hashes and now > level_size(level, old_size):
                files.append((TileId(level, now // TILE_WIDTH, len(hashes) // HASH_BYTES), hashes))
        return files


class TreeEdge:
    """The unfinished tile of every level and the unfinished bundle of a log of `size` entries; immutable by habit."""

    __slots__ = ("_entries", "_hashes")

    def __init__(self, size: int = 0, levels: Sequence[bytes] = (), entries: Sequence[bytes] = ()) -> None:
        """The edge at a size: the hashes of each level's partial tile (maybe none), the partial bundle's entries."""
        self._hashes = HashEdge(size, levels)
        self._entries = [*entries]

    @property
    def size(self) -> int:
        """How many entries."""
        return self._hashes.size

    def grow(self, entries: Sequence[bytes]) -> tuple[TreeEdge, list[TileFile]]:
        """The edge after these entries, and every file that makes: full ones, and the partial ones at the new size.

        Raises ValueError for an entry over 65,535 bytes. This edge stays as it is.
        """
        grown = TreeEdge()
        grown._hashes, grown._entries = self._hashes.copy(), [*self._entries]
        files: list[TileFile] = []
        position = 0
        while position < len(entries):
            taken = entries[position : position + TILE_WIDTH - len(grown._entries)]
            grown._take(taken, files)
            position += len(taken)
        if grown._entries and entries:
            number = grown.size // TILE_WIDTH
            files.append((TileId(BUNDLE_LEVEL, number, len(grown._entries)), encode_bundle(grown._entries)))
        files.extend(grown._hashes.partial(self.size))
        return grown, files

    def root(self) -> bytes:
        """The root over everything appended."""
        return self._hashes.root()

    def _take(self, entries: Sequence[bytes], files: list[TileFile]) -> None:
        """Append entries that fit into the current bundle; a bundle that is full goes to the files with its tiles."""
        self._entries.extend(entries)
        tiles = self._hashes.take(b"".join([sha256(LEAF_PREFIX + entry).digest() for entry in entries]))
        if len(self._entries) == TILE_WIDTH:
            files.append((TileId(BUNDLE_LEVEL, self.size // TILE_WIDTH - 1, TILE_WIDTH), encode_bundle(self._entries)))
            self._entries = []
        files.extend(tiles)


def load_edge(size: int, read: Callable[[TileId], bytes]) -> TreeEdge:
    """The edge of a log of `size` from its files.

    `read` gives a tile's bytes and raises what its store raises. Raises IntegrityError when the partial bundle and the
    partial tile above it disagree, or a file has the wrong length.
    """
    levels: list[bytes] = []
    for level in levels_of(size):
        number, width = divmod(level_size(level, size), TILE_WIDTH)
        levels.append(_tile(TileId(level, number, width), read) if width else b"")
    number, width = divmod(size, TILE_WIDTH)
    tile = TileId(BUNDLE_LEVEL, number, width)
    entries = decode_bundle(read(tile)) if width else []
    leaves = b"".join([sha256(LEAF_PREFIX + entry).digest() for entry in entries])
    if leaves != (levels[0] if levels else b""):
        raise IntegrityError(f"{tile.path} does not fit the hash tile above it")
    return TreeEdge(size, levels, entries)


def _tile(tile: TileId, read: Callable[[TileId], bytes]) -> bytes:
    hashes = read(tile)
    if len(hashes) != tile.width * HASH_BYTES:
        raise IntegrityError(f"{tile.path} has {len(hashes)} bytes")
    return hashes
