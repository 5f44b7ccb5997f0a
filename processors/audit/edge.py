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


class TreeEdge:
    """The unfinished tile of every level and the unfinished bundle of a log of `size` entries; immutable by habit."""

    __slots__ = ("_entries", "_levels", "size")

    def __init__(self, size: int = 0, levels: Sequence[bytes] = (), entries: Sequence[bytes] = ()) -> None:
        """The edge at a size: the hashes of each level's partial tile (maybe none), the partial bundle's entries."""
        self.size = size
        self._levels = [*levels]
        self._entries = [*entries]

    def grow(self, entries: Sequence[bytes]) -> tuple[TreeEdge, list[TileFile]]:
        """The edge after these entries, and every file that makes: full ones, and the partial ones at the new size.

        Raises ValueError for an entry over 65,535 bytes. This edge stays as it is.
        """
        grown = TreeEdge(self.size, self._levels, self._entries)
        files: list[TileFile] = []
        position = 0
        while position < len(entries):
            taken = entries[position : position + TILE_WIDTH - len(grown._entries)]
            grown._take(taken, files)
            position += len(taken)
        files.extend(grown._partial(self.size))
        return grown, files

    def grow_over(self, hashes: bytes) -> tuple[TreeEdge, list[TileFile]]:
        """The edge after a full tile of leaf hashes whose entries are gone, and the full hash tiles that makes.

        Raises ValueError when this edge is not one between bundles, or the tile not a full one.
        """
        if self.size % TILE_WIDTH or len(hashes) != TILE_BYTES:
            raise ValueError("only a full tile of leaf hashes continues an edge between bundles")
        grown = TreeEdge(self.size, self._levels, self._entries)
        files: list[TileFile] = []
        grown._push(0, hashes)
        grown.size += TILE_WIDTH
        grown._fold(files)
        return grown, files

    def partial_files(self) -> list[TileFile]:
        """Every partial file at this size."""
        return self._partial(0)

    def root(self) -> bytes:
        """The root over everything appended."""
        return fold_root([self._node(level, index) for level, index in perfect_subtrees(0, self.size)])

    def _node(self, level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        return subtree_hash(self._levels[tile_level], (index << height) % TILE_WIDTH, height)

    def _take(self, entries: Sequence[bytes], files: list[TileFile]) -> None:
        """Append entries that fit into the current bundle; a bundle that is full goes to the files with its tiles."""
        self._entries.extend(entries)
        self._push(0, b"".join([sha256(LEAF_PREFIX + entry).digest() for entry in entries]))
        self.size += len(entries)
        if len(self._entries) < TILE_WIDTH:
            return
        files.append((TileId(BUNDLE_LEVEL, self.size // TILE_WIDTH - 1, TILE_WIDTH), encode_bundle(self._entries)))
        self._entries = []
        self._fold(files)

    def _fold(self, files: list[TileFile]) -> None:
        """Full tiles go to the files, and their roots into the level above."""
        level = 0
        while level < len(self._levels) and len(self._levels[level]) == TILE_BYTES:
            hashes, self._levels[level] = self._levels[level], b""
            files.append((TileId(level, level_size(level, self.size) // TILE_WIDTH - 1, TILE_WIDTH), hashes))
            level += 1
            self._push(level, tile_root(hashes))

    def _push(self, level: int, hashes: bytes) -> None:
        if level == len(self._levels):
            self._levels.append(b"")
        self._levels[level] += hashes

    def _partial(self, old_size: int) -> list[TileFile]:
        """The partial files at this size that a log of `old_size` did not have."""
        files: list[TileFile] = []
        if self._entries and self.size > old_size:
            number = self.size // TILE_WIDTH
            files.append((TileId(BUNDLE_LEVEL, number, len(self._entries)), encode_bundle(self._entries)))
        for level, hashes in enumerate(self._levels):
            now = level_size(level, self.size)
            if hashes and now > level_size(level, old_size):
                files.append((TileId(level, now // TILE_WIDTH, len(hashes) // HASH_BYTES), hashes))
        return files


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
